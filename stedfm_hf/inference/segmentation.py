"""Segmentation of whole fields of any size: maps, pictures and a table of objects, in a folder."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

import torch

from stedfm_hf.data.sources import ImageFile, Source, find_sources
from stedfm_hf.inference.field_records import FieldRecords
from stedfm_hf.inference.field_task import KINDS, FieldTask, field_schema, object_schema
from stedfm_hf.inference.fields import Field, read_fields
from stedfm_hf.inference.resuming import left_to_do, remove_maps
from stedfm_hf.inference.segmenter import Segmenter, load_segmenter
from stedfm_hf.inference.stepwise import check_batch_size, chosen_scaling
from stedfm_hf.modeling.blending_stedfm import default_halo
from stedfm_hf.runs import Manifest, Progress, UserError, some_of

PROBABILITIES = ("float32", "uint8")


def segment(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    model: str | Path,
    threshold: float | None = None,
    min_area_px: int = 1,
    window: int | None = None,
    halo: int | None = None,
    batch_size: int = 8,
    probabilities: str | None = "float32",
    overlay: bool = True,
    precision: str = "float32",
    device: str = "auto",
    series: str | int | None = None,
    channel: str | int | None = None,
    normalization: str | None = None,
    intensity_range: tuple[float, float] | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Segment images of any size, and measure the objects in them.

    A field is one channel of one series (all channels where the model takes several). It is scaled once as a whole
    and goes through the model in overlapping windows that are blended (`segment_rows`): the maps are those of the
    pipeline `stedfm-segmentation`, at the pixels of the file. Pixels that are not finite are 0 to the model and are
    left out of the intensities. A field is worked through in bands of rows, so that memory holds its pixels as the
    file has them and little else.

    Written for every field, `n` counting the fields of the file: `<path>.labels<n>.tif` (a model of one class a
    pixel: class numbers; else a plane of 0 and 1 for every class), `<path>.objects<n>.tif` (a plane for every class,
    each object with its number), `<path>.probabilities<n>.tif` (a plane for every class) and `<path>.overlay<n>.png`.
    Beside them `fields.parquet`, `objects.parquet` and `manifest.json`. The same call goes on where it was stopped.

    Args:
        inputs: Image files, folders (searched recursively) and globs; folders or Hub ids of datasets.
        output: The folder to write; it may not lie in a folder of the inputs.
        model: A folder written by `stedfm finetune segmentation`, or a Hub id.
        threshold: Probability above which a pixel is of a class, by default 0.5; only for models whose classes may
            overlap. Others take the most probable class.
        min_area_px: Objects of fewer pixels are left out of table and object file; the labels keep their pixels.
        window: Side of a window in pixels; by default the model's `image_size`.
        halo: Half of what windows overlap by, in pixels; by default an eighth of a window in whole patches.
        batch_size: Windows in one forward pass.
        probabilities: `"float32"`, `"uint8"` (255 is 1) or None: no such file.
        overlay: Whether pictures are written.
        precision: `"float32"`, `"bfloat16"`, `"float16"` or `"auto"`, see `load_encoder`.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"mps"`.
        series: Name or index of the series to take; None takes the only one and is an error for files of several;
            `"all"` takes each, so every plane of a stack.
        channel: Name or index of the channel to take from every image; None takes all.
        normalization: Overrides that of the model's processor.
        intensity_range: Lower and upper intensity for `normalization="fixed"`.
        overwrite: Whether existing results are begun anew.

    Returns:
        The manifest; `manifest.failures()` names the files that failed. Columns of `fields.parquet`: `path`, `series`,
        `channel`, `height`, `width`, `pixel_size_nm`, `share_<class>` (of the pixels), `objects_<class>` (how many),
        `<kind>_file` (in the folder, or null), `model`, `weights_sha256`. Those of `objects.parquet`: see
        `object_schema`.

    Raises:
        UserError: For wrong arguments, a model without a decoder for masks, nothing to segment, or an output begun
            with other settings.

    Example:
        >>> import tempfile
        >>> from stedfm_hf import StedFmConfig, StedFmForSemanticSegmentation
        >>> folder = Path(tempfile.mkdtemp())
        >>> config = StedFmConfig(num_hidden_layers=4, id2label={0: "background", 1: "rings"})
        >>> StedFmForSemanticSegmentation(config).save_pretrained(folder / "model")
        >>> import numpy as np
        >>> np.save(folder / "cell.npy", np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
        >>> segment(folder / "cell.npy", folder / "out", model=folder / "model", device="cpu").counts()["done"]
        1
        >>> sorted(file.name for file in (folder / "out").glob("cell*.tif"))
        ['cell.npy.labels1.tif', 'cell.npy.objects1.tif', 'cell.npy.probabilities1.tif']
    """
    check_batch_size(batch_size)
    if min_area_px < 1:
        raise UserError(f"min area {min_area_px} is too small; the least is 1 pixel")
    inputs = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    sources, skipped = find_sources(inputs)
    folder = Path(output)
    _check_folder(folder, inputs, sources)
    segmenter = load_segmenter(model, device=device, precision=precision)
    side, border = _checked_windows(segmenter, window, halo)
    scaling = chosen_scaling(segmenter, normalization, intensity_range)
    channel = segmenter.processor.channel if channel is None else channel
    task = FieldTask(
        segmenter,
        folder,
        threshold=_checked_threshold(segmenter, threshold),
        min_area_px=min_area_px,
        window=side,
        halo=border,
        batch_size=batch_size,
        probabilities=_checked_probabilities(segmenter, probabilities),
        overlay=overlay,
    )
    manifest = Manifest(
        "segment",
        settings={
            "target_type": segmenter.model.config.target_type,
            "classes": list(segmenter.classes),
            "threshold": task.threshold,
            "min_area_px": min_area_px,
            "window": side,
            "halo": border,
            "probabilities": probabilities,
            "overlay": overlay,
            "precision": str(segmenter.model.dtype).removeprefix("torch."),
            "series": series,
            "channel": channel,
            **scaling,
        },
        options={"device": str(segmenter.model.device), "batch_size": batch_size, "skipped_files": skipped},
        model=segmenter.name,
        weights_sha256=segmenter.weights_sha256,
    )
    channels = segmenter.model.config.num_channels
    records = FieldRecords(folder, manifest, field_schema(segmenter), object_schema(channels), overwrite=overwrite)

    def forget(paths: Collection[str]) -> None:
        records.forget(paths)
        remove_maps(folder, paths, KINDS)

    left = left_to_do(manifest, sources, forget, begun=records.begun)
    try:
        with Progress(len(sources), description="segment", done=len(sources) - len(left)) as progress:
            for source in left:
                _segment_source(
                    source, read_fields(source, segmenter, series, channel, scaling), task, records, progress
                )
                progress.update()
                records.save_at_times()
    except torch.OutOfMemoryError as error:
        records.save()
        raise UserError(f"the GPU has no room for {batch_size} windows of {side}; lower --batch-size") from error
    except BaseException:
        records.save()
        raise
    records.finish([source.path for source in sources])
    return manifest


def _segment_source(
    source: Source, fields: Iterable[Field], task: FieldTask, records: FieldRecords, progress: Progress
) -> None:
    """Segment what of a source is not done yet; what goes wrong is the error of this source alone."""
    manifest, number = records.manifest, 0
    without_signal: dict[str, list[int]] = {}
    try:
        for field in fields:
            number += 1
            if why := field.no_signal():
                without_signal.setdefault(why, []).append(number)
            if not records.has(source.path, number):
                records.add(source.path, number, *task(field, source.path, number))
    except (ValueError, MemoryError) as error:
        manifest.failed(source.path, str(error) or type(error).__name__)
        # Readers name the file in their own way; it is named here by the path of the tables.
        reason = (manifest.items[source.path].reason or "").rpartition(f"{Path(source.path).name}: ")[2]
        progress.note(f"stedfm: error: {source.path}: {reason}")
    else:
        notes = [] if number == 1 else [f"{number} fields"]
        for why, numbers in without_signal.items():
            where = "" if number == 1 else f" in field{'' if len(numbers) == 1 else 's'} {some_of(numbers)}"
            notes.append(f"no signal{where} ({why})")
            progress.note(f"stedfm: {source.path}: {notes[-1]}")
        manifest.done(source.path, ", ".join(notes) or None)


def _check_folder(folder: Path, inputs: Iterable[str | os.PathLike[str]], sources: Iterable[Source]) -> None:
    """Refuse a folder whose maps would be taken for images when the command is given again."""
    here = folder.resolve()
    if here.exists() and not here.is_dir():
        raise UserError(f"output {folder}: is a file; name a folder")
    searched = [Path(one).resolve() for one in inputs if Path(one).is_dir()]
    files = [source.file.resolve() for source in sources if isinstance(source, ImageFile)]
    if any(here.is_relative_to(one) for one in searched) or any(file.is_relative_to(here) for file in files):
        raise UserError(f"output {folder}: lies among the images, and maps would be segmented; choose another folder")


def _checked_windows(segmenter: Segmenter, window: int | None, halo: int | None) -> tuple[int, int]:
    patch_size = segmenter.model.config.patch_size
    side = segmenter.model.config.image_size if window is None else window
    if side < 1 or side % patch_size:
        raise UserError(f"window {side} is no size of a window; choose a multiple of {patch_size} pixels")
    border = default_halo(side, patch_size) if halo is None else halo
    if not 0 <= 2 * border < side:
        raise UserError(f"halo {border} is out of range: 0 to {(side - 1) // 2} pixels for windows of {side}")
    return side, border


def _checked_threshold(segmenter: Segmenter, threshold: float | None) -> float | None:
    if segmenter.single:
        if threshold is not None:
            raise UserError(
                f"model {segmenter.name}: gives every pixel its most probable class, a threshold has no say; leave it"
            )
        return None
    threshold = 0.5 if threshold is None else threshold
    if segmenter.model.config.target_type != "regression" and not 0 <= threshold < 1:
        raise UserError(f"threshold {threshold} is out of range: 0 up to, but not, 1")
    return threshold


def _checked_probabilities(segmenter: Segmenter, probabilities: str | None) -> str | None:
    if probabilities not in (*PROBABILITIES, None):
        raise UserError(f"probabilities {probabilities!r} is unknown; choose {', '.join(PROBABILITIES)} or none")
    if probabilities == "uint8" and segmenter.model.config.target_type == "regression":
        raise UserError(f"model {segmenter.name}: gives values, which 8 bit cannot hold; choose float32 or none")
    return probabilities
