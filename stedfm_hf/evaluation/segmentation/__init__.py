"""Pixel and object metrics of masks, and baselines for segmentation models."""

from stedfm_hf.evaluation.segmentation.baselines import Baseline, Chance, Constant, Otsu
from stedfm_hf.evaluation.segmentation.fitting import assign_folds, fit_baselines, make_baselines
from stedfm_hf.evaluation.segmentation.forest import PixelForest
from stedfm_hf.evaluation.segmentation.scores import ScoredImage, Scorer
from stedfm_hf.evaluation.segmentation.wavelets import WaveletSpots
from stedfm_hf.metrics.mask_scores import ImageScores, planes_of, predicted_pixels, score_image
from stedfm_hf.metrics.objects import ObjectScores, match_objects, score_objects
from stedfm_hf.metrics.summary import flatten, pool_objects, summarise

__all__ = [
    "Baseline",
    "Chance",
    "Constant",
    "ImageScores",
    "ObjectScores",
    "Otsu",
    "PixelForest",
    "ScoredImage",
    "Scorer",
    "WaveletSpots",
    "assign_folds",
    "fit_baselines",
    "flatten",
    "make_baselines",
    "match_objects",
    "planes_of",
    "pool_objects",
    "predicted_pixels",
    "score_image",
    "score_objects",
    "summarise",
]
