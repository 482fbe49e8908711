"""Policies: which region to image next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from stedfm_hf.acquisition.examples import Examples, join
from stedfm_hf.acquisition.finders import LogisticFinder, TemplateFinder
from stedfm_hf.acquisition.loop.fields import EmbeddedField
from stedfm_hf.acquisition.regions import find_regions

MOST_PATCHES = 3000
"""Largest number of annotated patches that the classifier is fitted to; all those of the target are kept."""
EXPLORE_EVERY = 4
"""The classifier with exploration uses every fourth region to explore."""
Position = tuple[float, float]
"""x and y on the stage, in µm."""


@dataclass(eq=False)
class Policy(ABC):
    """Rule that chooses the next region.

    Attributes:
        size_um: Height and width of the sample, in µm; its corner is at x = y = 0.
        region_um: Height and width of a region, in µm.
        rng: Random generator.
        field: Embedded overview; None for policies that need none.
        examples: Annotated patches of another overview; None for policies that need none.
    """

    size_um: float
    region_um: float
    rng: np.random.Generator
    field: EmbeddedField | None = None
    examples: Examples | None = None
    name: ClassVar[str]
    needs_overview: ClassVar[bool] = True

    @abstractmethod
    def choose(self, visited: Sequence[Position]) -> Position:
        """Return the centre of the next region.

        Args:
            visited: Centres of the regions so far.
        """

    def best(self, scores: np.ndarray, visited: Sequence[Position]) -> Position | None:
        """Return the centre of the highest maximum whose region overlaps no earlier one, or None."""
        assert self.field is not None
        frame = self.field.frame
        height, width = frame.pixels.shape
        size = tuple(self.region_um * 1000 / each for each in frame.pixel_size_nm)
        found = find_regions(
            scores,
            cell=self.field.cell,
            shape=(height, width),
            size=(size[0], size[1]),
            min_score=-np.inf,
            count=scores.size,
            min_distance=(1, 1),
        )
        centres = (frame.position_um(*region.centre) for region in found)
        return next((each for each in centres if self.is_apart(each, visited)), None)

    def is_apart(self, position: Position, visited: Sequence[Position]) -> bool:
        """Return whether the region around a position overlaps no earlier one."""
        reach = self.region_um * (1 - 1e-9)
        return all(max(abs(position[0] - x), abs(position[1] - y)) >= reach for x, y in visited)

    def random_position(self, visited: Sequence[Position]) -> Position:
        """Sample a region inside the sample, which overlaps no earlier one if that is possible."""
        low, high = self.region_um / 2, self.size_um - self.region_um / 2
        tried = self.rng.uniform(low, high, (200, 2)).tolist()
        return next((each for x, y in tried if self.is_apart(each := (x, y), visited)), (tried[0][0], tried[0][1]))


class Raster(Policy):
    """Regions side by side, line by line."""

    name, needs_overview = "raster", False

    def choose(self, visited: Sequence[Position]) -> Position:
        """Return the next cell of the grid; after the last one, the first."""
        count = max(1, int(self.size_um / self.region_um + 1e-9))
        row, col = divmod(len(visited) % count**2, count)
        first = (self.size_um - (count - 1) * self.region_um) / 2
        return first + col * self.region_um, first + row * self.region_um


class Random(Policy):
    """Regions at random positions."""

    name, needs_overview = "random", False

    def choose(self, visited: Sequence[Position]) -> Position:
        """Sample a region."""
        return self.random_position(visited)


class ScoredPolicy(Policy):
    """Regions at the maxima of a score map; at random where all maxima overlap earlier regions."""

    def choose(self, visited: Sequence[Position]) -> Position:
        """Return the highest maximum."""
        scores = self.scores(len(visited))
        return self.best(scores, visited) or self.random_position(visited)

    @abstractmethod
    def scores(self, number: int) -> np.ndarray:
        """Return the score of every patch of the overview (rows, cols).

        Args:
            number: Number of regions so far.
        """


class Intensity(ScoredPolicy):
    """The brightest patches of the overview."""

    name = "intensity"

    def scores(self, number: int) -> np.ndarray:
        """Return the brightness."""
        assert self.field is not None
        return self.field.brightness()


@dataclass(eq=False)
class Template(ScoredPolicy):
    """The patches that are most similar to an annotated object of the target."""

    name = "template"
    _scores: np.ndarray | None = field(default=None, init=False)

    def scores(self, number: int) -> np.ndarray:
        """Return the similarity to the most similar template."""
        assert self.field is not None and self.examples is not None
        if self._scores is None:
            self._scores = self.field.score(TemplateFinder.fit(self.examples))
        return self._scores


@dataclass(eq=False)
class Classifier(ScoredPolicy):
    """The patches with the highest probability; the classifier is fitted again after every region."""

    name = "classifier"
    _learned: list[Examples] = field(default_factory=list, init=False)
    _scores: np.ndarray | None = field(default=None, init=False)

    def scores(self, number: int) -> np.ndarray:
        """Return the probability of the target."""
        assert self.field is not None and self.examples is not None
        if self._scores is None:
            if not self._learned:
                self._learned.append(self.examples.part(MOST_PATCHES, self.rng))
            self._scores = self.field.score(LogisticFinder.fit(join(self._learned)))
        return self._scores

    def update(self, found: Examples) -> None:
        """Add the patches of the region to those that the classifier is fitted to."""
        self._learned.append(found)
        self._scores = None


class ExploringClassifier(Classifier):
    """As the classifier, but every fourth region is where it is most uncertain."""

    name = "classifier-exploring"

    def scores(self, number: int) -> np.ndarray:
        """Return the probability of the target, or how close it is to 0.5."""
        probabilities = super().scores(number)
        explores = number % EXPLORE_EVERY == EXPLORE_EVERY - 1
        return -np.abs(probabilities - 0.5) if explores else probabilities


POLICIES = {each.name: each for each in (Raster, Random, Intensity, Template, Classifier, ExploringClassifier)}
"""Policies by name, baselines first."""
