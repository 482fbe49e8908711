"""Morphology features: size, shape, brightness and arrangement of the objects in an image.

The features are averaged over the objects, which are given as a mask or detected as bright spots by wavelets.

Source:
    Recursive clustering of the STED-FM paper, with these changes: an object is not its own neighbour; a peak counts
    for the object that it lies in; density is per µm²; the entropy is that of 256 grey levels; and images without
    objects, with one object or with a black background have defined values.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree
from skimage.feature import peak_local_max
from skimage.measure import blur_effect, label, regionprops_table, shannon_entropy

from stedfm_hf.evaluation.segmentation.wavelets import wavelet_planes
from stedfm_hf.metrics.objects import components

MORPHOLOGY = (
    "area",
    "perimeter",
    "mean_intensity",
    "eccentricity",
    "major_axis",
    "minor_axis",
    "solidity",
    "density",
    "nearest_neighbour",
    "peaks",
    "blur",
    "entropy",
    "snr",
)
"""Names of the features, in their order."""
PIXEL_SIZE_UM = 0.015
"""Pixel size of images that have none, in µm."""
_PROPERTIES = {
    "area": "area",
    "perimeter": "perimeter",
    "mean_intensity": "intensity_mean",
    "eccentricity": "eccentricity",
    "major_axis": "axis_major_length",
    "minor_axis": "axis_minor_length",
    "solidity": "solidity",
}
"""Property of scikit-image, by feature."""
_RADIUS_UM = 0.5
"""Radius of the neighbourhood of the density, in µm."""
_PEAK_UM = 0.08
"""Distance between peaks, in µm."""
_GREY_LEVELS = 256
_SCALES = (3, 4)
"""Wavelet scales of the spots."""
_MIN_AREA_PX, _MIN_AXIS_PX = 30, 3
"""Smallest area and minor axis of a detected spot, in pixels."""


@dataclass(frozen=True, eq=False)
class MorphologyFeatures:
    """Morphology features of images.

    Attributes:
        values: Features (n, 13) float64, finite, in the order of `MORPHOLOGY`.
        objects: Number of objects of each image (n,) int; features of objects are 0 without objects.
    """

    values: np.ndarray
    objects: np.ndarray


def morphology_features(
    images: Sequence[np.ndarray], masks: Sequence[np.ndarray] | None = None, *, pixel_size_um: float = PIXEL_SIZE_UM
) -> MorphologyFeatures:
    """Compute 13 morphology features of each image: means over its objects, and properties of the whole image.

    Means over objects: area in pixels; perimeter, major and minor axis in pixels; mean intensity; eccentricity;
    solidity; number of other objects within 0.5 µm, per µm²; distance to the nearest other object in µm; number of
    peaks at least 0.08 µm apart. Positions are centroids weighted by intensity. Without another object, the distance
    is the diagonal of the image. Properties of the image: blur (0 is sharp, 1 is blurred), Shannon entropy of 256 grey
    levels in bits, and signal-to-noise ratio (mean of objects - mean of background) / mean of background, where the
    background mean is at least one of 256 grey levels. Without objects, the features of objects are 0.

    Args:
        images: Scaled images (H, W) in [0, 1], of any size.
        masks: Masks (H, W) bool of the objects of each image, whose connected components are the objects; None detects
            bright spots (`detect_spots`).
        pixel_size_um: Size of a pixel, in µm.

    Returns:
        Features and number of objects of each image.

    Raises:
        ValueError: If the pixel size is not above 0, an image is not 2-D or not finite, or a mask has another shape.

    Example:
        >>> image = np.zeros((32, 32))
        >>> image[4:10, 4:10] = image[20:26, 4:10] = 1.0
        >>> found = morphology_features([image, np.zeros((32, 32))], [image > 0, np.zeros((32, 32), bool)])
        >>> found.objects.tolist(), dict(zip(MORPHOLOGY, found.values[0].round(3).tolist()))["nearest_neighbour"]
        ([2, 0], 0.24)
    """
    if not pixel_size_um > 0:
        raise ValueError(f"pixel_size_um must be above 0, not {pixel_size_um}")
    rows, counts = [], []
    for image, mask in zip(images, masks if masks is not None else [None] * len(images), strict=True):
        pixels = np.clip(np.asarray(image, np.float64), 0.0, 1.0)
        if pixels.ndim != 2 or not np.isfinite(pixels).all():
            raise ValueError(f"images must be finite and have the shape (H, W), not {np.shape(image)}")
        inside = detect_spots(pixels) if mask is None else np.asarray(mask, bool)
        if inside.shape != pixels.shape:
            raise ValueError(f"the mask {inside.shape} must have the shape of its image, {pixels.shape}")
        numbers = components(inside)
        found = dict.fromkeys(MORPHOLOGY, 0.0) | _image_features(pixels, inside)
        if numbers.any():
            of_objects = _object_features(pixels, numbers, pixel_size_um)
            found |= {name: float(values.mean()) for name, values in of_objects.items()}
        rows.append([found[name] for name in MORPHOLOGY])
        counts.append(int(numbers.max(initial=0)))
    return MorphologyFeatures(np.array(rows, np.float64).reshape(-1, len(MORPHOLOGY)), np.array(counts, np.int64))


def detect_spots(image: np.ndarray) -> np.ndarray:
    """Detect bright spots by the product of two wavelet scales.

    A pixel belongs to a spot if its coefficients at the third and fourth scale exceed half the universal threshold
    sqrt(2 ln n), in mean absolute deviations; n is the number of independent coefficients of the scale. Spots smaller
    than 30 pixels, or with a minor axis below 3 pixels, are removed.

    Args:
        image: Scaled image (H, W) in [0, 1].

    Returns:
        Mask (H, W) bool.

    Source:
        Olivo-Marin, Extraction of spots in biological images using multiscale products, 2002; thresholds of the
        reference protocol.

    Example:
        >>> y, x = np.mgrid[:64, :64]
        >>> spots = detect_spots(np.exp(-((y - 20) ** 2 + (x - 40) ** 2) / 50))
        >>> bool(spots[20, 40]), bool(spots[50, 10]), bool(detect_spots(np.full((64, 64), 0.3)).any())
        (True, False, False)
    """
    planes = wavelet_planes(image, max(_SCALES))
    # In empty or constant images, rounding errors must not look like signal.
    smallest = 1e-9 * float(np.abs(image).max(initial=0.0))
    above = []
    for scale in _SCALES:
        plane = planes[scale - 1]
        deviation = np.abs(plane - plane.mean()).mean()
        threshold = np.sqrt(2 * np.log(max(plane.size / 4**scale, 1.0))) * deviation / 2
        above.append(plane > max(threshold, smallest))
    numbers = label(np.logical_and.reduce(above), connectivity=1)
    numbers[np.bincount(numbers.ravel())[numbers] < _MIN_AREA_PX] = 0
    if not numbers.any():
        return np.zeros(image.shape, bool)
    table = regionprops_table(numbers, properties=("label", "axis_minor_length"))
    return np.isin(numbers, table["label"][table["axis_minor_length"] >= _MIN_AXIS_PX])


def _object_features(image: np.ndarray, numbers: np.ndarray, pixel_size_um: float) -> dict[str, np.ndarray]:
    """Return the features of each object (objects,), by name."""
    # A small offset: an object of zeros has a centroid, too.
    properties = ("label", "centroid_weighted", *_PROPERTIES.values())
    table = regionprops_table(numbers, image + 1e-12, properties=properties)
    found = {name: np.asarray(table[name_there], np.float64) for name, name_there in _PROPERTIES.items()}
    centroids = np.stack([table["centroid_weighted-0"], table["centroid_weighted-1"]], axis=1) * pixel_size_um
    diagonal = float(np.hypot(*image.shape)) * pixel_size_um
    tree = KDTree(centroids)
    # The first neighbour of an object is the object; without a second one, the distance is infinite.
    found["nearest_neighbour"] = np.minimum(tree.query(centroids, k=2)[0][:, 1], diagonal)
    others = tree.query_ball_point(centroids, _RADIUS_UM, return_length=True) - 1
    found["density"] = others / (np.pi * _RADIUS_UM**2)
    distance_px = int(_PEAK_UM / pixel_size_um) // 2 + 1
    peaks = peak_local_max(image, min_distance=distance_px, exclude_border=False)
    counts = np.bincount(numbers[tuple(peaks.T)], minlength=int(numbers.max()) + 1)
    found["peaks"] = counts[table["label"]].astype(np.float64)
    return found


def _image_features(image: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """Return the features of a whole image, by name."""
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        blur = float(blur_effect(image))  # NaN for images of a few pixels
    levels = np.minimum(image * _GREY_LEVELS, _GREY_LEVELS - 1).astype(np.uint8)
    signal = float(image[inside].mean()) if inside.any() else 0.0
    background = float(image[~inside].mean()) if not inside.all() else 0.0
    snr = (signal - background) / max(background, 1 / _GREY_LEVELS) if inside.any() else 0.0
    return {"blur": blur if np.isfinite(blur) else 1.0, "entropy": float(shannon_entropy(levels)), "snr": snr}
