"""Training: the pretraining of `stedfm pretrain` (`pretrain.py`), and a short one on images in memory for the demo."""

from stedfm_hf.training.quick import LossPoint, QuickResult, pretrain_quickly, quick_config

__all__ = ["LossPoint", "QuickResult", "pretrain_quickly", "quick_config"]
