"""Finders to evaluate: fitted to the other folds of source images, or read from folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from stedfm_hf.acquisition.annotations import Annotated
from stedfm_hf.acquisition.collecting import AnnotatedField, collect_examples, one_plane, prepare_field
from stedfm_hf.acquisition.evaluation.maps import Maps
from stedfm_hf.acquisition.examples import Examples
from stedfm_hf.acquisition.finder_files import StoredFinder, load_finder
from stedfm_hf.acquisition.finders import FINDERS, Finder, ForestFinder
from stedfm_hf.acquisition.reference import Windows, fit_reference, reference_examples, reference_map, scale
from stedfm_hf.acquisition.score_maps import score_map
from stedfm_hf.evaluation.report.content import MethodInfo
from stedfm_hf.inference.loading import Encoder
from stedfm_hf.interpretability.fields import Tiles
from stedfm_hf.runs import UserError

FINDERS_FOLDER = "finders.parts"
"""Folder of the finders of an interrupted run."""
TITLES = {
    "templates": "Templates",
    "prototypes": "Prototypes",
    "logistic": "Logistic regression",
    "forest": "Random forest",
}
"""Name of each method in reports."""


@dataclass(frozen=True)
class JoinedFinders:
    """Finders whose scores are computed from the same tokens.

    Attributes:
        finders: Finders.
    """

    finders: tuple[Finder, ...]

    def scores(self, tokens: np.ndarray) -> np.ndarray:
        """Score tokens (n, D) by all finders; (n, sum of L) float32."""
        return np.concatenate([each.scores(tokens) for each in self.finders], axis=1)

    def split(self, values: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the maps (L, ...) of each finder, in the order of the classes, from those of `scores`."""
        ends = np.cumsum([len(each.classes) for each in self.finders])
        yield from np.split(values, ends[:-1])


@dataclass(eq=False, kw_only=True)
class FinderGroup:
    """Finders that share an encoder.

    Attributes:
        encoder: Encoder.
        methods: Finders, by key.
        classes: Names of the classes of the data.
        scaling: Scaling of the images.
        tiles: Tiles of the images.
        stored: Finders of folders, which are not fitted, by key.
        finders: Finder of each method, by fold; filled by `fit_group`.
    """

    encoder: Encoder = field(repr=False)
    methods: Mapping[str, MethodInfo]
    classes: tuple[str, ...]
    scaling: Mapping[str, Any]
    tiles: Tiles
    stored: dict[str, Finder] = field(default_factory=dict, repr=False)
    finders: list[dict[str, Finder]] = field(default_factory=list, repr=False)

    def prepare(self, each: Annotated) -> AnnotatedField:
        """Prepare an annotated image.

        Raises:
            UserError: If the image does not fit the model.
        """
        return prepare_field(self.encoder, each, self.scaling)

    def maps(self, field: AnnotatedField, fold: int) -> dict[str, Maps]:
        """Return the score maps of all methods for an image of a fold."""
        finders = self.finders[fold]
        joined = JoinedFinders(tuple(finders.values()))
        values = score_map(joined, self.encoder, self.tiles, field.pixels)
        found = {}
        for (key, finder), each in zip(finders.items(), joined.split(values), strict=True):
            order = [finder.classes.index(name) for name in self.classes]
            found[key] = Maps.of_patches(each[order], field)
        return found

    def examples(
        self, method: str, fields: Iterator[tuple[AnnotatedField, int]], *, rotations: bool, seed: int
    ) -> Examples:
        """Embed annotated images, each with the number of its fold."""
        return collect_examples(self.encoder, self.tiles, fields, self.classes, rotations=rotations, seed=seed)

    def fit_method(self, method: str, examples: Examples, *, seed: int) -> Finder:
        """Fit a finder."""
        return FINDERS[method].fit(examples, seed=seed)


@dataclass(eq=False, kw_only=True)
class ReferenceGroup(FinderGroup):
    """Finders of the published code."""

    @cached_property
    def windows(self) -> Windows:
        """Windows that slide over the images."""
        return Windows(self.encoder, self.tiles.batch_size)

    def prepare(self, each: Annotated) -> AnnotatedField:
        """Scale an image from its minimum to its maximum."""
        return AnnotatedField(scale(one_plane(each))[None], each.planes, each.annotated, self.tiles.patch_size)

    def maps(self, field: AnnotatedField, fold: int) -> dict[str, Maps]:
        """Return the published maps, before they are raised to a quantile."""
        found = {}
        for key, finder in self.finders[fold].items():
            values = reference_map(finder, self.windows, field.pixels[0], raised=False)
            if isinstance(finder, ForestFinder):
                values = np.stack([values[0] == number for number in range(1, len(self.classes) + 1)])
            found[key] = Maps(values.astype(np.float32), None)
        return found

    def examples(
        self, method: str, fields: Iterator[tuple[AnnotatedField, int]], *, rotations: bool, seed: int
    ) -> Examples:
        """Embed annotated images as the published code does."""
        images = ((each.pixels[0], each.planes & each.annotated, fold) for each, fold in fields)
        return reference_examples(method, self.windows, images, self.classes, rotations=rotations)

    def fit_method(self, method: str, examples: Examples, *, seed: int) -> Finder:
        """Fit a finder as the published code does."""
        return fit_reference(method, examples, seed=seed)


def fit_group(
    group: FinderGroup,
    fields: Callable[[], Iterator[tuple[AnnotatedField, int]]],
    folds: int,
    folder: Path,
    *,
    rotations: bool,
    seed: int,
) -> None:
    """Fit the finders of each fold to the images of the other folds, or load those of an interrupted run.

    Args:
        group: Finders without folds; filled.
        fields: Function that yields the annotated images, each with the number of its fold.
        folds: Number of folds.
        folder: Folder to save the finders in.
        rotations: Whether images are also used rotated.
        seed: Random seed.

    Raises:
        UserError: If the images of the other folds lack a class.
    """
    if group.stored:
        group.finders = [group.stored] * folds
        return
    names = {key: key.partition(" ")[0] for key in group.methods}
    found: list[dict[str, Finder]] = [{} for _ in range(folds)]
    reference, shared = isinstance(group, ReferenceGroup), None
    for key, method in names.items():
        place_name = sha256(key.encode()).hexdigest()[:16]  # the name of a model may hold slashes
        places = [folder / FINDERS_FOLDER / f"{method}-{place_name}-{fold}" for fold in range(folds)]
        load = partial(FINDERS[method].load, classes=group.classes, min_scores=(0.0,) * len(group.classes))
        if all((place / "done").is_file() for place in places):
            for fold, place in enumerate(places):
                found[fold][key] = load(place)
            continue
        if reference or shared is None:
            shared = group.examples(method, fields(), rotations=rotations, seed=seed)
        for fold, place in enumerate(places):
            try:
                finder = group.fit_method(method, shared.take(shared.sources != fold), seed=seed)
            except UserError as error:
                raise UserError(f"without the images of fold {fold + 1} of {folds}, {error}") from error
            place.mkdir(parents=True, exist_ok=True)
            finder.save(place)
            (place / "done").touch()
            found[fold][key] = finder
    group.finders = found


def load_finders(folders: Sequence[str], classes: tuple[str, ...]) -> dict[str, StoredFinder]:
    """Read the finders of folders, by the names of the folders.

    Args:
        folders: Folders of `stedfm finder fit`.
        classes: Names of the classes of the data.

    Raises:
        UserError: If a folder is not that of a finder, is named twice, or has other classes than the data.
    """
    found: dict[str, StoredFinder] = {}
    for folder in folders:
        stored = load_finder(folder)
        name = Path(folder).resolve().name
        if name in found:
            raise UserError(f"finder {folder}: another finder has the same name; rename one of the folders")
        if stored.record["protocol"] != "default":
            raise UserError(
                f"finder {folder}: was fitted with --protocol {stored.record['protocol']}; fit one without it, or "
                "leave out --finder"
            )
        if sorted(stored.finder.classes) != sorted(classes):
            raise UserError(
                f"finder {folder}: has the classes {', '.join(stored.finder.classes)}, but the data has "
                f"{', '.join(classes)}; name the classes with --classes"
            )
        found[name] = stored
    return found


def assign_folds(presence: np.ndarray, sources: np.ndarray, folds: int | None, seed: int) -> np.ndarray:
    """Assign each source image to a fold at random, such that the images of every class are in several folds.

    Args:
        presence: Whether each image shows each class (n, L) bool.
        sources: Source image of each image (n,).
        folds: Number of folds; None is 5, or one per source image if there are fewer.
        seed: Random seed.

    Returns:
        Number of the fold of each image (n,) int64.

    Raises:
        UserError: If there are too few source images.

    Example:
        >>> presence = np.array([[True, False], [True, False], [False, True], [False, True]])
        >>> sorted(assign_folds(presence, np.array(list("abcd")), 2, 0)[:2].tolist())
        [0, 1]
    """
    names, numbers = np.unique(sources, return_inverse=True)
    if len(names) < 2:
        raise UserError(
            "all images are from one source image; finders are evaluated on others than they are fitted to"
        )
    if folds is not None and folds > len(names):
        raise UserError(f"{folds} folds are not possible with {len(names)} source images; choose 2 to {len(names)}")
    count = min(5, len(names)) if folds is None else folds
    shown = np.zeros((len(names), presence.shape[1]), bool)
    np.logical_or.at(shown, numbers, presence)
    assigned = np.full(len(names), -1)
    order = np.random.default_rng(seed).permutation(len(names))
    # Sources of the rarest class first: each goes to the fold with the fewest of its class, and of all.
    for number in [*np.argsort(shown.sum(axis=0), kind="stable"), None]:
        for each in order:
            if assigned[each] >= 0 or (number is not None and not shown[each, number]):
                continue
            of_class = np.zeros(len(names), bool) if number is None else shown[:, number]
            sizes = [((of_class & (assigned == fold)).sum(), (assigned == fold).sum()) for fold in range(count)]
            assigned[each] = min(range(count), key=lambda fold: sizes[fold])
    return assigned[numbers]
