"""Finders: scores of patch tokens for the classes of structures, by one of four methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from stedfm_hf.acquisition.examples import BACKGROUND, Examples
from stedfm_hf.discovery.index.standardised import Rows, Standardiser, fit_standardiser, fit_whitening
from stedfm_hf.runs import UserError, atomic_path

ARRAYS, FOREST = "finder.safetensors", "forest.skops"
"""Names of the files with the arrays and with the forest of a finder."""
QUANTILE = 0.95
"""Quantile of the scores of background patches that becomes the smallest score of a region, for templates."""
C = 0.01
"""Inverse of the regularisation of the logistic regression."""
TREES, DEPTH = 100, 15
"""Number and largest depth of the trees of a forest. Source: reference protocol."""
TREE = "sklearn.tree._tree.Tree"
"""Type that skops refuses by default, because a prediction follows its node numbers unchecked: `_is_sound` does."""
LOWEST = -1.0
"""Smallest cosine similarity: the smallest score of a finder that was fitted without background."""
NO_SKOPS = 'a forest needs skops: pip install "stedfm-hf[forest]", or use another --method'


@dataclass(frozen=True, eq=False)
class Space:
    """Space in which tokens are compared: standardised, and without correlations between features.

    Attributes:
        mean: Mean (D,) float64.
        scale: Standard deviation (D,) float64.
        whitening: Matrix (D, D) float32 that removes the correlations.
    """

    mean: np.ndarray
    scale: np.ndarray
    whitening: np.ndarray

    @classmethod
    def fit(cls, tokens: np.ndarray) -> Self:
        """Fit the space to tokens (n, D), as a search for places does to those of its index."""
        rows, kept = Rows([tokens], tokens.shape[1]), np.arange(len(tokens))
        standardiser = fit_standardiser(rows, kept)
        return cls(standardiser.mean, standardiser.scale, fit_whitening(rows, standardiser, kept))

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """Return tokens (n, D) in the space, float32."""
        return Standardiser(self.mean, self.scale)(tokens).astype(np.float32) @ self.whitening


def unit(vectors: np.ndarray) -> np.ndarray:
    """Divide vectors (n, D) by their norms; zeros stay zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms == 0, 1, norms)


@dataclass(frozen=True, eq=False)
class Finder(ABC):
    """Function that scores patch tokens for classes of structures.

    Attributes:
        classes: Names of the L classes.
        min_scores: Smallest score of a region of each class, unless another one is given.
    """

    classes: tuple[str, ...]
    min_scores: tuple[float, ...]
    method: ClassVar[str]
    quantity: ClassVar[str]

    @classmethod
    @abstractmethod
    def fit(cls, examples: Examples, *, seed: int = 0) -> Self:
        """Fit a finder to annotated patches.

        Args:
            examples: Annotated patches.
            seed: Random seed.

        Raises:
            UserError: If a class has no patch, or the method needs a background and there is none.
        """

    @abstractmethod
    def scores(self, tokens: np.ndarray) -> np.ndarray:
        """Score tokens (n, D); (n, L) float32, more where a structure of the class is more likely."""

    def save(self, folder: Path) -> None:
        """Write the files of the finder into a folder, except for the names and the score in `finder.json`."""
        arrays = {name: np.ascontiguousarray(value) for name, value in _arrays(self)}
        with atomic_path(folder / ARRAYS) as temporary:
            save_file(arrays, temporary)

    @classmethod
    def load(cls, folder: Path, classes: tuple[str, ...], min_scores: tuple[float, ...]) -> Self:
        """Read the files that `save` wrote.

        Raises:
            UserError: If a file is missing or damaged.
        """
        found = load_arrays(folder)
        try:
            return cls(classes, min_scores, **cls._from_arrays(found))
        except KeyError as error:
            raise UserError(f"{folder / ARRAYS}: lacks the array {error.args[0]}; fit the finder again") from error

    @classmethod
    def _from_arrays(cls, found: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return the fields of the finder from the arrays of the file."""
        names = [each.name for each in fields(cls) if each.name not in ("classes", "min_scores", "space")]
        values: dict[str, Any] = {name: found[name] for name in names}
        if "space" in {each.name for each in fields(cls)}:
            parts = [each.name for each in fields(Space)]
            values["space"] = (
                Space(**{name: found[f"space.{name}"] for name in parts}) if "space.mean" in found else None
            )
        return values


@dataclass(frozen=True, eq=False)
class TemplateFinder(Finder):
    """Largest cosine similarity to the templates of a class; a template is the mean token of an annotated object.

    Attributes:
        vectors: Templates (T, D) float32, of unit length.
        of_class: Class of each template from 1 (T,) int64.
        space: Space in which tokens are compared; None compares raw tokens, as the reference protocol does.
    """

    vectors: np.ndarray
    of_class: np.ndarray
    space: Space | None = None
    method: ClassVar[str] = "templates"
    quantity: ClassVar[str] = "cosine similarity"

    @classmethod
    def fit(cls, examples: Examples, *, seed: int = 0) -> Self:
        """Make a template of every object; the space is that of all patches."""
        _check_classes(examples)
        space = Space.fit(examples.tokens)
        tokens = space(examples.tokens)
        numbers, first = np.unique(examples.objects[examples.objects > 0], return_index=True)
        of_class = examples.labels[examples.objects > 0][first]
        vectors = np.stack([tokens[examples.objects == number].mean(axis=0) for number in numbers])
        lowest = (LOWEST,) * len(examples.classes)
        finder = cls(examples.classes, lowest, unit(vectors).astype(np.float32), of_class, space)
        others = examples.labels == BACKGROUND
        if not others.any():
            return finder
        levels = np.quantile(finder.scores(examples.tokens[others]), QUANTILE, axis=0)
        return replace(finder, min_scores=tuple(map(float, levels)))

    def scores(self, tokens: np.ndarray) -> np.ndarray:
        """Score tokens (n, D) by their similarity to the most similar template of each class, in [-1, 1]."""
        similarity = unit(tokens if self.space is None else self.space(tokens)) @ self.vectors.T
        numbers = range(1, len(self.classes) + 1)
        return np.stack([similarity[:, self.of_class == number].max(axis=1) for number in numbers], axis=1)


@dataclass(frozen=True, eq=False)
class PrototypeFinder(Finder):
    """Similarity to the mean of a class, minus that to the nearest mean of another class or of the background.

    Attributes:
        vectors: Mean token of the background and of each class (1 + L, D) float32, of unit length.
        space: Space in which tokens are compared.
    """

    vectors: np.ndarray
    space: Space
    method: ClassVar[str] = "prototypes"
    quantity: ClassVar[str] = "difference of cosine similarities"

    @classmethod
    def fit(cls, examples: Examples, *, seed: int = 0) -> Self:
        """Average the tokens of each class."""
        _check_classes(examples)
        _check_background(examples)
        space = Space.fit(examples.tokens)
        tokens = unit(space(examples.tokens))
        means = [tokens[examples.labels == number].mean(axis=0) for number in range(len(examples.classes) + 1)]
        return cls(examples.classes, (0.0,) * len(examples.classes), unit(np.stack(means)).astype(np.float32), space)

    def scores(self, tokens: np.ndarray) -> np.ndarray:
        """Score tokens (n, D); above 0 where the mean of the class is the most similar one."""
        similarity = unit(self.space(tokens)) @ self.vectors.T
        numbers = range(1, len(self.vectors))
        return np.stack(
            [similarity[:, number] - np.delete(similarity, number, axis=1).max(axis=1) for number in numbers], axis=1
        )


@dataclass(frozen=True, eq=False)
class LogisticFinder(Finder):
    """Probability of a class, from a logistic regression of standardised tokens.

    Attributes:
        mean: Mean of the tokens (D,) float64.
        scale: Standard deviation of the tokens (D,) float64.
        coef: Coefficients of the background and of each class (1 + L, D) float32.
        intercept: Intercepts (1 + L,) float32.
    """

    mean: np.ndarray
    scale: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray
    method: ClassVar[str] = "logistic"
    quantity: ClassVar[str] = "probability"

    @classmethod
    def fit(cls, examples: Examples, *, seed: int = 0) -> Self:
        """Fit the regression to the patches of the classes and of the background."""
        _check_classes(examples)
        _check_background(examples)
        known = examples.take(examples.labels >= BACKGROUND)
        standardiser = fit_standardiser(Rows([known.tokens], known.tokens.shape[1]), np.arange(len(known)))
        values = standardiser(known.tokens).astype(np.float32)
        model = LogisticRegression(C=C, max_iter=1000).fit(values, known.labels)
        coef, intercept = model.coef_, model.intercept_
        if len(coef) == 1:  # with two classes there is one row, the evidence for the second
            coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
        arrays = (each.astype(np.float32) for each in (coef, intercept))
        return cls(examples.classes, (0.5,) * len(examples.classes), standardiser.mean, standardiser.scale, *arrays)

    def scores(self, tokens: np.ndarray) -> np.ndarray:
        """Score tokens (n, D) by the probability of each class."""
        logits = Standardiser(self.mean, self.scale)(tokens) @ self.coef.T + self.intercept
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray((odds / odds.sum(axis=1, keepdims=True))[:, 1:], np.float32)


@dataclass(frozen=True, eq=False)
class ForestFinder(Finder):
    """Probability of a class, from a random forest.

    Attributes:
        forest: Forest, whose classes are numbered as in `Examples`.
    """

    forest: RandomForestClassifier
    method: ClassVar[str] = "forest"
    quantity: ClassVar[str] = "probability"

    @classmethod
    def fit(cls, examples: Examples, *, seed: int = 0, background: bool = True) -> Self:
        """Fit the forest to the patches of the classes and, unless `background` is false, of the background."""
        import_skops()
        _check_classes(examples)
        if background:
            _check_background(examples)
        known = examples.take(examples.labels >= (BACKGROUND if background else 1))
        forest = RandomForestClassifier(TREES, max_depth=DEPTH, random_state=seed, n_jobs=1)
        return cls(examples.classes, (0.5,) * len(examples.classes), forest.fit(known.tokens, known.labels))

    def scores(self, tokens: np.ndarray) -> np.ndarray:
        """Score tokens (n, D) by the probability of each class."""
        columns = self.forest.classes_ > BACKGROUND
        return np.asarray(self.forest.predict_proba(tokens)[:, columns], np.float32)

    def predict(self, tokens: np.ndarray) -> np.ndarray:
        """Predict the class of tokens (n, D), from 1; 0 is the background."""
        return np.asarray(self.forest.predict(tokens), np.int64)

    def save(self, folder: Path) -> None:
        """Write the forest into a folder."""
        with atomic_path(folder / FOREST) as temporary:
            import_skops().dump(self.forest, temporary)

    @classmethod
    def load(cls, folder: Path, classes: tuple[str, ...], min_scores: tuple[float, ...]) -> Self:
        """Read the forest that `save` wrote; nothing in the file is executed, and every tree is checked.

        Raises:
            UserError: If the file is missing or damaged, holds other types, or a tree has a node out of range.
        """
        skops, file = import_skops(), folder / FOREST
        try:
            forest = skops.load(file, trusted=[TREE])
        except Exception as error:  # of skops, of zipfile and of json: any of them means that the file is unusable
            raise UserError(f"{file}: is not a forest of a finder ({error}); fit the finder again") from error
        if not isinstance(forest, RandomForestClassifier):
            raise UserError(f"{file}: holds a {type(forest).__name__}, not a forest; fit the finder again")
        if not all(_is_sound(each.tree_, forest.n_features_in_) for each in forest.estimators_):
            raise UserError(f"{file}: has a tree with a node out of range; fit the finder again")
        return cls(classes, min_scores, forest)


FINDERS: dict[str, type[Finder]] = {
    each.method: each for each in (TemplateFinder, PrototypeFinder, LogisticFinder, ForestFinder)
}
"""Finder of each method."""


def import_skops() -> Any:
    """Import the module that stores forests.

    Raises:
        UserError: If skops is not installed.
    """
    try:
        import skops.io
    except ImportError as error:
        raise UserError(NO_SKOPS) from error
    return skops.io


def load_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a finder.

    Raises:
        UserError: If the file is missing or damaged.
    """
    file = folder / ARRAYS
    try:
        return load_file(file)
    except Exception as error:  # safetensors raises errors of its own types, which share no base class with OSError
        raise UserError(f"{file}: cannot be read ({error}); fit the finder again") from error


def _arrays(finder: Finder) -> list[tuple[str, np.ndarray]]:
    """Return the arrays of a finder by name; those of its space start with `space.`."""
    values = [(each.name, getattr(finder, each.name)) for each in fields(finder)]
    spaces = [
        (f"{name}.{each.name}", getattr(value, each.name))
        for name, value in values
        if isinstance(value, Space)
        for each in fields(value)
    ]
    return [*((name, value) for name, value in values if isinstance(value, np.ndarray)), *spaces]


def _is_sound(tree: Any, features: int) -> bool:
    """Return whether the nodes of a tree refer to later nodes and to existing features only, so that it ends."""
    numbers, left, right = np.arange(tree.node_count), tree.children_left, tree.children_right
    leaf = (left == -1) & (right == -1)
    inner = (left > numbers) & (right > numbers) & (np.maximum(left, right) < tree.node_count)
    return bool((leaf | (inner & (tree.feature >= 0) & (tree.feature < features))).all())


def _check_classes(examples: Examples) -> None:
    if missing := examples.missing():
        raise UserError(f"class {missing[0]}: covers no patch; annotate it, or leave it out of the classes")


def _check_background(examples: Examples) -> None:
    if not (examples.labels == BACKGROUND).any():
        raise UserError(
            "no patch is background; annotate images that also show background, add clicks of the class background, "
            "or use the method templates"
        )
