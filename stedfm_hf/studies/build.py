"""`stedfm study build`: a study file and its images from the results of other commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedfm_hf.runs import Progress, UserError, atomic_path, counted, print_note, sha256_file
from stedfm_hf.runs.files import remove_path
from stedfm_hf.runs.manifest import portable
from stedfm_hf.runs.output import check_output, open_output
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.studies.settings import StudyBuildSettings
from stedfm_hf.studies.study import CHOOSE, CLASSIFY, RANK, REAL_OR_GENERATED, Study, parse_study, read_study

if TYPE_CHECKING:
    from stedfm_hf.studies.pictures import Picture
    from stedfm_hf.studies.stimuli import StimulusPictures

COMMAND = "study build"
STUDY, STIMULI, IMAGES = "study.yaml", "stimuli.parquet", "images"
QUESTIONS = {
    CHOOSE: "Which picture follows the structure best?",
    CLASSIFY: "Which structure is this?",
    REAL_OR_GENERATED: "Is this image real or generated?",
    RANK: "Which image is more similar to the example?",
}
"""Question of each task, unless another is given."""


@dataclass(frozen=True)
class StudyBuildResult(OutputResult):
    """Result of `study build`.

    Attributes:
        study: The study.
    """

    study: Study

    def summary(self) -> str:
        """Return the number of stimuli of each group."""
        if self.study.type == CHOOSE:
            groups = list(self.study.groups)
        else:
            groups = [
                f"{group}: {count}" for group, count in Counter(each.group for each in self.study.stimuli).items()
            ]
        return f"{self.output / STUDY}: {counted(len(self.study.stimuli), 'trial')} ({', '.join(groups)})"

    def to_json(self) -> dict[str, Any]:
        """Return the study file and the number of stimuli."""
        return super().to_json() | {"study": str(self.output / STUDY), "stimuli": len(self.study.stimuli)}


@takes_settings(StudyBuildSettings)
def build_study(settings: StudyBuildSettings) -> StudyBuildResult:
    """Make a study file and its images from the results of other commands.

    The output folder receives `study.yaml`, the images as PNG files whose names say nothing about their content, and
    `stimuli.parquet`, which tells where each came from: file, plane, SHA-256, command, model and its weights.

    Returns:
        The study.

    Raises:
        UserError: A picture is missing, a group cannot be read, or the pictures do not suit the task.

    Example:
        >>> build_study(["STED=maps-sted", "ImageNet=maps-imagenet"], type="choose", images="cells")  # doctest: +SKIP
    """
    folders = dict(map(_group_and_folder, settings.sources))
    if len(folders) < len(settings.sources):
        raise UserError("two groups have the same name; give each folder its own")
    check_output(settings.output, COMMAND, is_folder=True, overwrite=settings.overwrite)

    from stedfm_hf.studies.pictures import Images, read_pictures
    from stedfm_hf.studies.stimuli import class_of, make_stimuli

    images = None if settings.images is None else Images(settings.images)
    groups = {group: read_pictures(folder, images) for group, folder in folders.items()}
    groups = dict(_selected(groups, settings))
    found = [class_of(each.image) for pictures in groups.values() for each in pictures]
    classes = settings.classes or sorted({each for each in found if each is not None})
    stimuli = make_stimuli(settings.type, groups, images, classes=classes, paired=settings.paired)
    if settings.type == RANK:
        _note_copies(groups)
    with open_output(
        settings.output,
        COMMAND,
        settings,
        results=[STUDY, STIMULI],
        temporary=[IMAGES],
        resolved={"sources": settings.sources},
        seed=settings.seed,
        overwrite=settings.overwrite,
    ) as output:
        if output.finished:
            output.report_finished()
        else:
            remove_path(output.path / IMAGES)
            _write(output.path, settings, stimuli, classes)
    return StudyBuildResult(output.path, output.manifest, read_study(output.path / STUDY))


def _group_and_folder(text: str) -> tuple[str, str]:
    """Return the name of a group and its folder: `GROUP=FOLDER`, or a folder, whose name is that of the group."""
    group, sign, folder = text.partition("=")
    if not sign:
        return Path(text).resolve().name, text
    if not group or not folder:
        raise UserError(f"{text}: is not GROUP=FOLDER, such as STED=maps-sted")
    return group, folder


def _selected(
    groups: Mapping[str, Sequence[Picture]], settings: StudyBuildSettings
) -> Iterator[tuple[str, list[Picture]]]:
    """Yield the groups with the pictures of the images that are used: a random selection, the same for all groups."""
    import numpy as np

    images = list(dict.fromkeys(each.image for pictures in groups.values() for each in pictures))
    order = np.random.default_rng(settings.seed).permutation(len(images))
    used = {images[number] for number in order[: settings.max_images]}
    for group, pictures in groups.items():
        most = settings.per_image or len(pictures)
        yield group, [each for each in pictures if each.image in used and each.number < most]


def _note_copies(groups: Mapping[str, Sequence[Picture]]) -> None:
    """Print a note if an image is among the results of more than one group."""
    keys = [{_key(each) for each in pictures} for pictures in groups.values()]
    if copies := sum(map(len, keys)) - len(set().union(*keys)):
        print_note(
            f"note: {counted(copies, 'image')} in more than one group; participants also compare the copies with each "
            "other"
        )


def _key(picture: Picture) -> tuple[Any, ...]:
    """Return what makes two pictures the same: file, plane, image and region."""
    return picture.file, picture.plane, picture.image, picture.facts.get("y_px"), picture.facts.get("x_px")


def _write(
    folder: Path, settings: StudyBuildSettings, stimuli: Sequence[StimulusPictures], classes: Sequence[str]
) -> None:
    """Write the images, the table of where they came from, and last the study file."""
    import yaml

    pictures = _Pictures(folder)
    listed: list[dict[str, Any]] = []
    with Progress(len(stimuli), description=COMMAND, unit="stimuli") as progress:
        for number, each in enumerate(stimuli, 1):
            name = f"s{number:04d}"
            record: dict[str, Any] = {"id": name}
            if each.image is not None:
                record["image"] = pictures.add(each.image, name, "image", each.group)
            if each.options:
                record["options"] = {
                    group: pictures.add(option, name, group, each.group) for group, option in each.options.items()
                }
            if settings.type != CHOOSE:
                record["group"] = each.group
            if each.truth is not None:
                record["truth"] = each.truth
            listed.append(record)
            progress.update()
    content: dict[str, Any] = {
        "title": settings.title,
        "type": settings.type,
        "question": settings.question or _question(settings),
        "seed": settings.seed,
        "stimuli": listed,
    }
    if settings.type == CLASSIFY:
        content["classes"] = list(classes)
    if settings.example is not None:
        content["example"] = pictures.add_example(settings.example)
    parse_study(content)
    pictures.write_table()
    with atomic_path(folder / STUDY) as temporary:
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
        temporary.write_text(
            f"# Add practice and attention trials, exclusion rules and what you expect.\n{text}", "utf-8"
        )


def _question(settings: StudyBuildSettings) -> str:
    return "Which image is real?" if settings.paired else QUESTIONS[settings.type]


class _Pictures:
    """Images of a study folder, and the table of where they came from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self._sums: dict[Path, str | None] = {}
        self._names: dict[tuple[Any, ...], str] = {}
        (folder / IMAGES).mkdir()

    def add(self, picture: Picture, stimulus: str, role: str, group: str) -> str:
        """Write a picture unless it exists, record it, and return its name relative to the folder."""
        from PIL import Image

        key = _key(picture)
        if key not in self._names:
            self._names[key] = f"{IMAGES}/{len(self._names) + 1:04d}.png"
            Image.fromarray(picture.draw()).save(self.folder / self._names[key])
        if picture.file not in self._sums:
            self._sums[picture.file] = sha256_file(picture.file) if picture.file.is_file() else None
        path, series, channel = picture.image
        self.rows.append(
            {"file": self._names[key], "stimulus": stimulus, "role": role, "group": group, "kind": picture.kind}
            | {"path": path, "series": series, "channel": channel, "number": picture.number, "plane": picture.plane}
            | {"source_file": portable(picture.file), "source_sha256": self._sums[picture.file]}
            | dict(picture.facts)
        )
        return self._names[key]

    def add_example(self, file: str | Path) -> str:
        """Write the example of `rank`, an image file, and return its name."""
        from stedfm_hf.studies.pictures import Images

        found = Images(Path(file)).all()
        return self.add(replace(found[0], file=Path(file)), "", "example", "")

    def write_table(self) -> None:
        """Write the table."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with atomic_path(self.folder / STIMULI) as temporary:
            pq.write_table(pa.Table.from_pylist(_complete(self.rows)), temporary, compression="zstd")


def _complete(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give every row the columns of all rows."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]
