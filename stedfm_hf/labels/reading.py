"""Read the labelled or annotated images that the settings of a command name."""

from __future__ import annotations

from typing import Any

from stedfm_hf.labels.annotated import AnnotatedImages, parse_classes, read_annotated
from stedfm_hf.labels.labelled import LabelledImages, read_labelled


def read_labelled_images(settings: Any, split: str | None = None) -> dict[str, LabelledImages]:
    """Read labelled images by split; see `read_labelled`.

    Args:
        settings: Settings of a command, with `dataset`, `target`, `series`, `channel` and `source_pattern`.
        split: Name of the only split to return; None: all.

    Raises:
        UserError: If the images cannot be read.
    """
    return read_labelled(
        settings.dataset,
        split,
        target=settings.target,
        series=settings.series,
        channel=settings.channel,
        source_pattern=settings.source_pattern,
    )


def read_annotated_images(settings: Any) -> dict[str, AnnotatedImages]:
    """Read annotated images by split; see `read_annotated`.

    Args:
        settings: Settings of a command, with `dataset`, `masks`, `classes`, `target_type`, `series`, `channel` and
            `source_pattern`.

    Raises:
        UserError: If the images or their masks cannot be read.
    """
    return read_annotated(
        settings.dataset,
        masks=settings.masks,
        classes=parse_classes(settings.classes),
        target_type=settings.target_type,
        series=settings.series,
        channel=settings.channel,
        source_pattern=settings.source_pattern,
    )
