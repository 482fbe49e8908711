"""The run of `finder fit`: embed the annotated images, fit the finder, measure it, and write it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stedfm_hf.acquisition.annotations import Annotated, ClickedImages, MaskedImages, read_annotations
from stedfm_hf.acquisition.examples import BACKGROUND, Examples, join
from stedfm_hf.acquisition.finder_files import FILES, RECORD, StoredFinder, read_record
from stedfm_hf.acquisition.finders import FINDERS, Finder, import_skops
from stedfm_hf.acquisition.reference import Windows, fit_reference, scale
from stedfm_hf.acquisition.score_maps import example_patches
from stedfm_hf.acquisition.settings import FitFinderSettings
from stedfm_hf.acquisition.validation import cross_validate
from stedfm_hf.inference.loading import Encoder, load_encoder
from stedfm_hf.inference.one_image import prepare_image
from stedfm_hf.inference.stepwise import scaling_of
from stedfm_hf.interpretability.fields import tiles_of
from stedfm_hf.runs import Progress, UserError
from stedfm_hf.runs.options import REFERENCE
from stedfm_hf.runs.output import Output, open_output
from stedfm_hf.weights.models import ModelSource

MOST_PATCHES = 400_000
"""Largest number of patches that a finder is fitted to; of more, each image gives a random part."""


def run_fit(settings: FitFinderSettings, folder: Path, model: ModelSource) -> tuple[Output, dict[str, Any]]:
    """Fit a finder and write its folder (see `stedfm_hf.acquisition.fit_finder`).

    Args:
        settings: Settings of the command.
        folder: Folder to write.
        model: Model.
    """
    if settings.method == "forest":
        import_skops()  # a missing package is reported before the images are embedded
    encoder = load_encoder(model, device=settings.device, precision=settings.precision)
    images = read_annotations(settings, encoder.model.config.patch_size)
    scaling = scaling_of(encoder, settings.normalization, settings.intensity_range)
    how = {"fingerprint": images.fingerprint, "classes": list(images.classes), "precision": encoder.precision}
    with open_output(
        folder,
        "finder fit",
        settings,
        results=[RECORD],
        temporary=[name for name in FILES if name != RECORD],
        resolved=scaling | how,
        options={"device": str(encoder.model.device)},
        model=encoder.name,
        weights_sha256=encoder.weights_sha256,
        seed=settings.seed,
        overwrite=settings.overwrite,
    ) as output:
        if output.finished:
            output.report_finished()
        else:
            stored = _fit(settings, encoder, images, scaling, output)
            stored.save(folder)
    return output, read_record(folder)


def _fit(
    settings: FitFinderSettings,
    encoder: Encoder,
    images: MaskedImages | ClickedImages,
    scaling: Mapping[str, Any],
    output: Output,
) -> StoredFinder:
    """Fit the finder, and collect what `finder.json` records."""
    reference = settings.protocol == REFERENCE
    names: dict[str, int] = {}
    read = _read(images, names, output)
    finder: Finder
    if reference:
        windows = Windows(encoder, settings.batch_size)
        planes = ((scale(_one_plane(each)), each.planes, number) for each, number in read)
        finder, examples = fit_reference(
            settings.method, windows, planes, images.classes, rotations=settings.rotations, seed=settings.seed
        )
        validation = None
    else:
        examples = _examples(settings, encoder, images.classes, scaling, read)
        fit = partial(FINDERS[settings.method].fit, seed=settings.seed)
        finder, validation = fit(examples), cross_validate(examples, fit)
    record = {
        "protocol": settings.protocol,
        "model": encoder.name,
        "given_model": None if settings.model is None else str(settings.model),
        "weights_sha256": encoder.weights_sha256,
        "scaling": dict(scaling),
        "channel": settings.channel,
        "rotations": settings.rotations,
        "images": len(output.manifest.items),
        "source_images": len(names),
        "patches": {"background": int((examples.labels == BACKGROUND).sum())}
        | {name: int((examples.labels == number).sum()) for number, name in enumerate(images.classes, 1)},
        "validation": validation,
    }
    return StoredFinder(finder, record)


def _read(
    images: MaskedImages | ClickedImages, names: dict[str, int], output: Output
) -> Iterator[tuple[Annotated, int]]:
    """Yield the annotated images, each with the number of its source image, and record them as done."""
    with Progress(None, description="finder fit") as progress:
        for each in images:
            yield each, names.setdefault(each.source, len(names))
            output.manifest.done(each.name)
            progress.update()


def _examples(
    settings: FitFinderSettings,
    encoder: Encoder,
    classes: tuple[str, ...],
    scaling: Mapping[str, Any],
    images: Iterator[tuple[Annotated, int]],
) -> Examples:
    """Embed the annotated images; of many, a random part of the patches of each is kept."""
    tiles = tiles_of(encoder, settings.tile_size, settings.tile_overlap, settings.batch_size)
    rng, parts = np.random.default_rng(settings.seed), list[Examples]()
    for each, number in images:
        try:
            prepared = prepare_image(encoder, each.image, scaling)
        except ValueError as error:
            raise UserError(f"{each.name}: {error}") from error
        if len(prepared) != 1:
            raise UserError(f"{each.name}: has {len(prepared)} channels; choose one with --channel")
        pixels = prepared[0][1]
        masks = _resized(np.concatenate([each.planes, each.annotated[None]]), (pixels.shape[1], pixels.shape[2]))
        found = example_patches(
            encoder, tiles, pixels, masks[:-1], masks[-1], classes, number, rotations=settings.rotations
        )
        parts.append(found)
        most = max(1, MOST_PATCHES // len(parts))
        if sum(map(len, parts)) > MOST_PATCHES:
            parts = [each.part(most, rng) for each in parts]
    return join(parts)


def _resized(planes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize masks (L, H, W) to the shape of the input of the model, by their nearest pixels."""
    rows, cols = (
        ((np.arange(length) + 0.5) * old / length).astype(np.int64)
        for length, old in zip(shape, planes.shape[1:], strict=True)
    )
    return planes[:, rows[:, None], cols]


def _one_plane(each: Annotated) -> np.ndarray:
    if len(each.image.array) != 1:
        raise UserError(f"{each.name}: has {len(each.image.array)} channels; choose one with --channel")
    return np.asarray(each.image.array[0])
