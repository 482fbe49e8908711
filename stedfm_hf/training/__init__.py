"""Training: the pretraining of `stedfm pretrain` (`pretrain.py`), and a short one on images in memory for the demo."""
