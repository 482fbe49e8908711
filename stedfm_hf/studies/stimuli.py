"""Stimuli of a study from pictures: which pictures are shown together, and what the right answer is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from stedfm_hf.runs import UserError, counted, some_of
from stedfm_hf.studies.pictures import GENERATED, ImageName, Images, Picture, original_of
from stedfm_hf.studies.study import ALL, CHOOSE, CLASSIFY, RANK, REAL
from stedfm_hf.studies.study import GENERATED as IS_GENERATED

Groups = Mapping[str, Sequence[Picture]]
"""Pictures by the name of their group."""


@dataclass(frozen=True)
class StimulusPictures:
    """Pictures of one stimulus.

    Attributes:
        image: Picture above the options, or about which the question is asked; None if there are only options.
        options: Pictures to choose from, by group.
        group: Group whose answers are analysed together.
        truth: Right answer, where there is one.
    """

    image: Picture | None = None
    options: Mapping[str, Picture] = field(default_factory=dict)
    group: str = ALL
    truth: str | None = None


def make_stimuli(
    kind: str, groups: Groups, images: Images | None, *, classes: Sequence[str] = (), paired: bool = False
) -> list[StimulusPictures]:
    """Make the stimuli of a study.

    Args:
        kind: Task.
        groups: Pictures of each group.
        images: Image files that the maps belong to.
        classes: Answers of `classify`; the first folder of an image is the right answer if it is one of them.
        paired: Whether `real-or-generated` shows the original next to a generated image.

    Raises:
        UserError: If pictures are missing, or do not suit the task.
    """
    if kind == CHOOSE:
        return _choose(groups, images)
    if kind == CLASSIFY:
        if len(set(classes)) < 2:
            raise UserError("classify needs at least two answers; name them with --classes")
        return [
            StimulusPictures(each, group=group, truth=_known(class_of(each.image), classes))
            for group, pictures in groups.items()
            for each in pictures
        ]
    if kind == RANK:
        ranked = [StimulusPictures(each, group=group) for group, pictures in groups.items() for each in pictures]
        if len(ranked) < 2:
            raise UserError("rank compares images; give at least two")
        return ranked
    return _paired(groups) if paired else _single(groups)


def class_of(image: ImageName) -> str | None:
    """Return the first folder of the path of an image file, or None; the row `train/0` of a data set has no folder.

    Example:
        >>> [class_of((path, "image", "0")) for path in ("rings/a.tif", "a.tif", "train/0")]
        ['rings', None, None]
    """
    path = PurePosixPath(image[0])
    return path.parts[0] if len(path.parts) > 1 and path.suffix else None


def _known(name: str | None, classes: Sequence[str]) -> str | None:
    return name if name in classes else None


def _choose(groups: Groups, images: Images | None) -> list[StimulusPictures]:
    """Show, for each image, the pictures of all groups."""
    if len(groups) < 2:
        raise UserError("choose compares groups; give at least two, such as STED=maps-sted ImageNet=maps-imagenet")
    by_group = {group: {(each.image, each.number): each for each in pictures} for group, pictures in groups.items()}
    keys = list(dict.fromkeys(key for pictures in by_group.values() for key in pictures))
    for group, pictures in by_group.items():
        if missing := [_name(image, number) for (image, number) in keys if (image, number) not in pictures]:
            raise UserError(
                f"{group}: has no picture of {counted(len(missing), 'image')} of the other groups "
                f"({some_of(missing)}); make all groups from the same images"
            )
    return [
        StimulusPictures(original_of(options[0], images), dict(zip(by_group, options, strict=True)))
        for options in ([pictures[key] for pictures in by_group.values()] for key in keys)
    ]


def _single(groups: Groups) -> list[StimulusPictures]:
    """Show real and generated images one by one; without a group `real`, the originals are the real ones."""
    generated = [(group, each) for group, pictures in groups.items() if group != REAL for each in pictures]
    _check_generated(generated)
    real = groups.get(REAL) or list({each.image: original_of(each, None) for _, each in generated}.values())
    return [
        *(StimulusPictures(each, group=REAL, truth=REAL) for each in real),
        *(StimulusPictures(each, group=group, truth=IS_GENERATED) for group, each in generated),
    ]


def _paired(groups: Groups) -> list[StimulusPictures]:
    """Show each generated image next to its original."""
    if REAL in groups:
        raise UserError(f"{REAL}=FOLDER: pairs show the originals of the generated images; leave it out")
    generated = [(group, each) for group, pictures in groups.items() for each in pictures]
    _check_generated(generated)
    return [
        StimulusPictures(options={REAL: original_of(each, None), IS_GENERATED: each}, group=group)
        for group, each in generated
    ]


def _check_generated(pictures: Sequence[tuple[str, Picture]]) -> None:
    if not pictures:
        raise UserError("real-or-generated needs generated images; give results of `stedfm generate`")
    if other := next((group for group, each in pictures if each.kind != GENERATED), None):
        raise UserError(f"{other}: holds no generated images; give results of `stedfm generate`, or call it {REAL}")


def _name(image: ImageName, number: int) -> str:
    return image[0] if number == 0 else f"{image[0]} ({number + 1})"
