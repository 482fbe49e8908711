"""The run of `finder fit`: embed the annotated images, fit the finder, measure it, and write it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from stedfm_hf.acquisition.annotations import Annotated, ClickedImages, MaskedImages, read_annotations
from stedfm_hf.acquisition.collecting import collect_examples, one_plane, prepare_field
from stedfm_hf.acquisition.finder_files import FILES, RECORD, StoredFinder, make_record, read_record
from stedfm_hf.acquisition.finders import FINDERS, Finder, import_skops
from stedfm_hf.acquisition.reference import Windows, fit_reference, reference_examples, scale
from stedfm_hf.acquisition.settings import FitFinderSettings
from stedfm_hf.acquisition.validation import cross_validate
from stedfm_hf.inference.loading import Encoder, load_encoder
from stedfm_hf.inference.stepwise import scaling_of
from stedfm_hf.interpretability.fields import tiles_of
from stedfm_hf.labels.training_sources import TRAINING_SOURCES_FILE, write_training_ids
from stedfm_hf.runs import Progress
from stedfm_hf.runs.options import REFERENCE
from stedfm_hf.runs.output import Output, open_output
from stedfm_hf.weights.models import ModelSource


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
        temporary=[*(name for name in FILES if name != RECORD), TRAINING_SOURCES_FILE],
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
            write_training_ids(folder, images.source_ids())
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
        planes = ((scale(one_plane(each)), each.planes, number) for each, number in read)
        examples = reference_examples(settings.method, windows, planes, images.classes, rotations=settings.rotations)
        finder, validation = fit_reference(settings.method, examples, seed=settings.seed), None
    else:
        tiles = tiles_of(encoder, settings.tile_size, settings.tile_overlap, settings.batch_size)
        fields = ((prepare_field(encoder, each, scaling), number) for each, number in read)
        examples = collect_examples(
            encoder, tiles, fields, images.classes, rotations=settings.rotations, seed=settings.seed
        )
        if isinstance(images, ClickedImages) and images.marks_background:
            examples.needs_background()
        fit = partial(FINDERS[settings.method].fit, seed=settings.seed)
        finder, validation = fit(examples), cross_validate(examples, fit)
    record = make_record(encoder, examples, settings.protocol, settings.model, scaling) | {
        "channel": settings.channel,
        "rotations": settings.rotations,
        "images": len(output.manifest.items),
        "source_images": len(names),
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
