"""`stedfm attribute walk`: images along the direction of an attribute, for every input image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from stedfm_hf.data.sources import find_sources
from stedfm_hf.generation.following import PARTLY, slope_of, verdict
from stedfm_hf.generation.settings import AttributeWalkSettings
from stedfm_hf.runs import counted
from stedfm_hf.runs.options import REFERENCE
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from stedfm_hf.generation.direction import Direction
    from stedfm_hf.generation.image_files import Stack
    from stedfm_hf.generation.loading import LoadedPipeline
    from stedfm_hf.generation.walks import Noise, Start, Walk
    from stedfm_hf.inference.preparation import Fact

COMMAND = "attribute walk"
WALKS, REPORT = "walks.parquet", "report.html"


@dataclass(frozen=True)
class AttributeWalkResult(OutputResult):
    """Result of `attribute walk`.

    Attributes:
        table: One row per generated image: wanted and reached distance, and similarity of image and reconstruction.
        report: Page with the walks; None if there are none.
    """

    table: pa.Table
    report: Path | None

    def summary(self) -> str:
        """Return the number of images and how well they were reconstructed."""
        images, files = counted(self.table.num_rows, "image"), self.describe_items("file")
        lines = [f"{self.output.parent}: {images} along walks from {files}"]
        if (similarity := self.similarity) is not None:
            lines.append(f"structural similarity of images and their reconstructions: {similarity:.3f} (mean)")
        slope = self.slope
        if slope is not None:
            lines.append(f"slope of reached over wanted distances: {slope:.2f} (1 is ideal)")
        if self.report is not None:
            lines.append(f"report: {self.report}")
        if slope is not None and slope < PARTLY:
            advice = "Train the pipeline longer, or on images like these; or give --guidance-scale 2."
            lines.append(f"warning: {verdict(slope)} {advice}")
        return "\n".join(lines)

    @property
    def slope(self) -> float | None:
        """Slope of the reached over the wanted distances along the direction: 1 if the images follow it, 0 if not."""
        frame = self.table.to_pandas()
        return slope_of(frame[~frame["direction"].str.startswith("random ")])

    @property
    def similarity(self) -> float | None:
        """Mean structural similarity of the images and their reconstructions, or None without inversion."""
        known = [value for value in self.table["similarity"].to_pylist() if value is not None]
        return sum(known) / len(known) if known else None

    def to_json(self) -> dict[str, Any]:
        """Return plain data for programs."""
        more = {
            "images": self.table.num_rows,
            "similarity": self.similarity,
            "slope": self.slope,
            "report": self.report and str(self.report),
        }
        return super().to_json() | more


@takes_settings(AttributeWalkSettings)
def walk_attribute(settings: AttributeWalkSettings) -> AttributeWalkResult:
    """Generate images along the direction of an attribute, starting from given images.

    The output folder receives a float32 TIFF of every walk, `walks.parquet` and `report.html`.

    Returns:
        Table of the generated images.

    Raises:
        UserError: The direction is of another encoder, the pipeline cannot be loaded, or the output holds something
            else.

    Example:
        >>> walk_attribute("cells/", "walks", model="my-pipeline", direction="activity")  # doctest: +SKIP
    """
    from stedfm_hf.generation.direction import Direction
    from stedfm_hf.generation.names import check_pipeline_name

    folder = Path(settings.output)
    sources, skipped = find_sources(settings.inputs)
    check_output(folder / WALKS, COMMAND, is_folder=False, overwrite=settings.overwrite)
    check_pipeline_name(settings.model)
    direction = Direction.load(settings.direction)
    distances = settings.distances or [
        direction.at_percentile(each, settings.of_class) for each in settings.percentiles
    ]

    import pyarrow as pa

    from stedfm_hf.generation.image_files import make_images
    from stedfm_hf.generation.loading import check_direction, check_sampling, load_pipeline
    from stedfm_hf.generation.walk_report import write_walk_report

    loaded = load_pipeline(settings.model, device=settings.device)
    check_direction(direction, loaded)
    check_sampling(loaded, settings.num_inference_steps, settings.guidance_scale)
    columns = [("direction", pa.string()), ("step", pa.int64())]
    columns += [(name, pa.float64()) for name in ("start", "wanted", "reached", "similarity")]
    result = make_images(
        settings,
        COMMAND,
        sources,
        skipped,
        loaded,
        columns,
        _Walker(settings, direction, distances, loaded),
        table=WALKS,
        kinds=["walk", *(f"random{number}_" for number in range(settings.random_directions))],
        resolved={"distances": distances, "attribute": direction.name, "classes": list(direction.classes)},
    )
    report = write_walk_report(folder, result.table, direction) if result.table.num_rows else None
    return AttributeWalkResult(folder / WALKS, result.manifest, result.table, report)


@dataclass(frozen=True)
class _Walker:
    """Function that walks from one image along the direction and along random directions."""

    settings: AttributeWalkSettings
    direction: Direction
    distances: list[float]
    loaded: LoadedPipeline

    def __call__(self, fact: Fact, image: np.ndarray) -> list[Stack]:
        from stedfm_hf.generation.walks import start_walks

        start = start_walks(
            self.loaded.pipeline,
            image[None],
            noise=self.noise,
            num_inference_steps=self.settings.num_inference_steps,
            seed=self.settings.seed,
        )
        return [self._stack(start, number) for number in (None, *range(self.settings.random_directions))]

    @property
    def noise(self) -> Noise:
        """Noise to start from."""
        return "new" if self.settings.protocol == REFERENCE else cast("Noise", self.settings.noise)

    def _stack(self, start: Start, random: int | None) -> Stack:
        """Walk along the direction, or along a random one, and return the images with their rows."""
        import numpy as np

        from stedfm_hf.generation.image_files import Stack
        from stedfm_hf.generation.walks import walk_images

        made: Walk = walk_images(
            self.loaded.pipeline,
            start.images,
            self.direction,
            np.array(self.distances),
            random_direction=random,
            noise=self.noise,
            num_inference_steps=self.settings.num_inference_steps,
            guidance_scale=self.settings.guidance_scale,
            batch_size=self.settings.batch_size,
            seed=self.settings.seed,
            start=start,
        )
        rows = [
            {
                "direction": self.direction.name if random is None else f"random {random}",
                "step": step,
                "start": made.start[0],
                "wanted": made.wanted[0, step],
                "reached": made.reached[0, step],
                "similarity": None if np.isnan(made.similarity[0]) else made.similarity[0],
            }
            for step in range(len(self.distances))
        ]
        names = ["image", *(f"{self.direction.name} {each:+.2f}" for each in self.distances)]
        kind = "walk" if random is None else f"random{random}_"
        return Stack(kind, np.concatenate([made.originals, made.images[0]]), names, rows)
