"""Scores of masks, by pixels and by objects, and the baselines that a trained segmenter stands beside."""

from stedfm_hf.evaluation.segmentation.baselines import Baseline, Chance, Constant, Otsu
from stedfm_hf.evaluation.segmentation.fitting import assign_folds, fit_on, make_baselines
from stedfm_hf.evaluation.segmentation.forest import PixelForest
from stedfm_hf.evaluation.segmentation.scored import Scored, Scoring
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
    "Scored",
    "Scoring",
    "WaveletSpots",
    "assign_folds",
    "fit_on",
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
