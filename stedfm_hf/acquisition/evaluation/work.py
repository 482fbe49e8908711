"""Images to score, and the methods that score them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stedfm_hf.acquisition.annotations import annotated_image
from stedfm_hf.acquisition.collecting import AnnotatedField
from stedfm_hf.acquisition.evaluation.fitted import TITLES, FinderGroup, ReferenceGroup, load_finders
from stedfm_hf.acquisition.evaluation.maps import Baseline, Maps
from stedfm_hf.acquisition.evaluation.scoring import Scorer
from stedfm_hf.acquisition.settings import EvaluateFindSettings
from stedfm_hf.evaluation.extractors import untrained_encoder
from stedfm_hf.evaluation.report.content import MethodInfo
from stedfm_hf.inference.loading import Encoder, load_encoder
from stedfm_hf.inference.stepwise import scaling_of
from stedfm_hf.interpretability.fields import tiles_of
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.runs import Manifest, print_note
from stedfm_hf.runs.options import REFERENCE
from stedfm_hf.weights.models import ModelSource


@dataclass(eq=False)
class Work:
    """Images to score, and the methods that score them.

    Attributes:
        data: Annotated images.
        classes: Names of the classes.
        fold: Number of the fold of each image (n,).
        groups: Finders by encoder; the first prepares the images of the baselines.
        baselines: Baselines without an encoder, by key.
        scorer: Scorer.
        manifest: Manifest, which lists the images that cannot be read.
    """

    data: AnnotatedImages
    classes: tuple[str, ...]
    fold: np.ndarray
    groups: Sequence[FinderGroup]
    baselines: dict[str, Baseline]
    scorer: Scorer
    manifest: Manifest

    @property
    def methods(self) -> list[MethodInfo]:
        """Models, then baselines."""
        return methods_of(self.groups, self.baselines)

    @property
    def folds(self) -> int:
        """Number of folds."""
        return int(self.fold.max()) + 1

    def keys(self, group: FinderGroup) -> list[str]:
        """Return the keys of the methods of `maps`."""
        return [*group.methods, *(self.baselines if group is self.groups[0] else ())]

    def maps(self, group: FinderGroup, field: AnnotatedField, number: int) -> dict[str, list[Maps]]:
        """Return the maps of an image: those of a group and, for the first group, of the baselines."""
        fold, image_id = int(self.fold[number]), str(self.data.image_ids[number])
        found = {key: [each] for key, each in group.maps(field, fold).items()}
        if group is self.groups[0]:
            found |= {key: each.maps(field, image_id, fold) for key, each in self.baselines.items()}
        return found

    def fields(self, group: FinderGroup, numbers: Sequence[int] | None = None) -> Iterator[tuple[AnnotatedField, int]]:
        """Yield the images that can be read, each with its number; others are recorded as failed.

        Args:
            group: Finders, for which the images are prepared.
            numbers: Numbers of the images; None reads all.
        """
        for number in range(len(self.data)) if numbers is None else numbers:
            image_id = str(self.data.image_ids[number])
            if image_id in self.manifest.failures():
                continue
            try:
                field = group.prepare(annotated_image(self.data, number))
            except (ValueError, OSError, MemoryError) as error:
                reason = (str(error) or type(error).__name__).removeprefix(f"{image_id}: ")
                print_note(f"error: {image_id}: {reason}")
                self.manifest.failed(image_id, reason)
                continue
            yield field, number

    def in_folds(self, group: FinderGroup) -> Iterator[tuple[AnnotatedField, int]]:
        """Yield the images that can be read, each with the number of its fold."""
        return ((field, int(self.fold[number])) for field, number in self.fields(group))


def methods_of(groups: Sequence[FinderGroup], baselines: dict[str, Baseline]) -> list[MethodInfo]:
    """Return the models, then the baselines."""
    found = [each for group in groups for each in group.methods.values()]
    found += [MethodInfo(key, each.name, "baseline", None) for key, each in baselines.items()]
    return sorted(found, key=lambda each: each.kind == "baseline")


def load_groups(
    settings: EvaluateFindSettings, models: Sequence[ModelSource], data: AnnotatedImages, classes: tuple[str, ...]
) -> list[FinderGroup]:
    """Load the models, the finders and the untrained network.

    Args:
        settings: Settings of the command.
        models: Models to fit finders with.
        data: Annotated images.
        classes: Names of the classes.

    Raises:
        UserError: If a model or a finder cannot be loaded, or the classes of a finder do not match the data.
    """
    how = {"device": settings.device, "precision": settings.precision}
    kind = ReferenceGroup if settings.protocol == REFERENCE else FinderGroup

    def fitted(encoder: Encoder, ending: str, *, baseline: bool) -> FinderGroup:
        added = f" ({ending})" if ending else ""
        digest = None if baseline else encoder.weights_sha256
        methods = {
            f"{name}{added}": MethodInfo(
                f"{name}{added}", f"{TITLES[name]}{added}", "baseline" if baseline else "model", digest
            )
            for name in settings.methods
        }
        scaling = scaling_of(encoder, settings.normalization, settings.intensity_range)
        tiles = tiles_of(encoder, settings.tile_size, settings.tile_overlap, settings.batch_size)
        return kind(encoder=encoder, methods=methods, classes=classes, scaling=scaling, tiles=tiles)

    encoders = [load_encoder(model, **how) for model in models]
    groups = [
        fitted(encoder, model.given if len(models) > 1 else "", baseline=False)
        for model, encoder in zip(models, encoders, strict=True)
    ]
    for name, stored in load_finders(settings.finder, classes).items():
        encoder = stored.load_encoder(**how)
        info = MethodInfo(name, f"{name} ({TITLES[stored.finder.method].lower()})", "model", encoder.weights_sha256)
        tiles = tiles_of(encoder, settings.tile_size, settings.tile_overlap, settings.batch_size)
        groups.append(
            FinderGroup(
                encoder=encoder,
                methods={name: info},
                classes=classes,
                scaling=stored.record["scaling"],
                tiles=tiles,
                stored={name: stored.finder},
            )
        )
    if "untrained" in settings.baseline_names and encoders:
        groups.append(fitted(untrained_encoder(encoders[0], data, settings.seed)[0], "untrained", baseline=True))
    return groups
