"""Training: for now a short pretraining on images in memory."""

from stedfm_hf.training.quick import LossPoint, QuickResult, pretrain_quickly, quick_config

__all__ = ["LossPoint", "QuickResult", "pretrain_quickly", "quick_config"]
