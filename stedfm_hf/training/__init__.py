"""Training: `stedfm pretrain` (`pretrain.py`) and `stedfm finetune` (`classify.py`, `segment.py`)."""
