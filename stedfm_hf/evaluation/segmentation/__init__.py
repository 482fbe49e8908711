"""Scores of masks, by pixels and by objects, and the baselines that a trained segmenter stands beside."""

from stedfm_hf.evaluation.segmentation.baselines import Baseline, Constant, Otsu
from stedfm_hf.evaluation.segmentation.forest import PixelForest
from stedfm_hf.evaluation.segmentation.objects import ObjectScores, match_objects, score_objects
from stedfm_hf.evaluation.segmentation.scores import ImageScores, planes_of, predicted_pixels, score_image
from stedfm_hf.evaluation.segmentation.summary import flatten, pool_objects, summarise
from stedfm_hf.evaluation.segmentation.wavelets import WaveletSpots, wavelet_spots

__all__ = [
    "Baseline",
    "Constant",
    "ImageScores",
    "ObjectScores",
    "Otsu",
    "PixelForest",
    "WaveletSpots",
    "flatten",
    "match_objects",
    "planes_of",
    "pool_objects",
    "predicted_pixels",
    "score_image",
    "score_objects",
    "summarise",
    "wavelet_spots",
]
