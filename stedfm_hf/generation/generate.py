"""`stedfm generate`: new images that look like given images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedfm_hf.data.sources import find_sources
from stedfm_hf.generation.settings import GenerateSettings
from stedfm_hf.runs import counted
from stedfm_hf.runs.options import REFERENCE
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from stedfm_hf.generation.image_files import Stack
    from stedfm_hf.generation.loading import LoadedPipeline
    from stedfm_hf.inference.preparation import Fact

COMMAND, TABLE = "generate", "generated.parquet"
REFERENCE_STEPS = 1000
"""Number of steps of the reference protocol."""


@dataclass(frozen=True)
class GenerateResult(OutputResult):
    """Result of `generate`.

    Attributes:
        table: One row per generated image, with the similarity of its embedding to that of the given image.
        sheet: Figure of some of the images; None if there are none.
    """

    table: pa.Table
    sheet: Path | None

    def summary(self) -> str:
        """Return the number of images."""
        made, files = counted(self.table.num_rows, "image"), self.describe_items("file")
        sheet = "" if self.sheet is None else f"\nsheet: {self.sheet}"
        return f"{self.output.parent}: {made} generated from {files}{sheet}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data for programs."""
        return super().to_json() | {"images": self.table.num_rows, "sheet": self.sheet and str(self.sheet)}


@takes_settings(GenerateSettings)
def generate(settings: GenerateSettings) -> GenerateResult:
    """Generate images that look like given images.

    The output folder receives a float32 TIFF for each image (the image, then the generated ones), `generated.parquet`
    and a figure. The image of one seed does not depend on the other images.

    Returns:
        Table of the generated images.

    Raises:
        UserError: The pipeline cannot be loaded, or the output holds something else.

    Example:
        >>> generate("cells/", "like-cells", model="my-pipeline", number=2)  # doctest: +SKIP
    """
    from stedfm_hf.generation.names import check_pipeline_name

    folder = Path(settings.output)
    sources, skipped = find_sources(settings.inputs)
    check_output(folder / TABLE, COMMAND, is_folder=False, overwrite=settings.overwrite)
    check_pipeline_name(settings.model)

    import pyarrow as pa

    from stedfm_hf.generation.image_files import make_images
    from stedfm_hf.generation.loading import check_sampling, load_pipeline
    from stedfm_hf.generation.sheet import save_sheet

    reference = settings.protocol == REFERENCE
    steps = REFERENCE_STEPS if reference else settings.num_inference_steps
    loaded = load_pipeline(settings.model, device=settings.device)
    check_sampling(loaded, steps, settings.guidance_scale)
    loaded.pipeline.scheduler = scheduler_of("ddpm" if reference else settings.scheduler, loaded.pipeline.scheduler)
    result = make_images(
        settings,
        COMMAND,
        sources,
        skipped,
        loaded,
        [("number", pa.int64()), ("similarity", pa.float64())],
        _Generator(settings, loaded, steps),
        table=TABLE,
        kinds=["generated"],
        resolved={},
    )
    sheet = save_sheet(folder, result.table) if result.table.num_rows else None
    return GenerateResult(folder / TABLE, result.manifest, result.table, sheet)


def scheduler_of(name: str, scheduler: Any) -> Any:
    """Return a solver with the noise schedule of another one.

    Args:
        name: `ddim`, `dpm-solver++`, `sde-dpm-solver++` (with noise in every step) or `ddpm`.
        scheduler: Scheduler of diffusers.
    """
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    if name in ("ddim", "ddpm"):
        return {"ddim": DDIMScheduler, "ddpm": DDPMScheduler}[name].from_config(scheduler.config)
    algorithm = "sde-dpmsolver++" if name == "sde-dpm-solver++" else "dpmsolver++"
    return DPMSolverMultistepScheduler.from_config(scheduler.config, algorithm_type=algorithm)


@dataclass(frozen=True)
class _Generator:
    """Function that generates images from the embedding of one image."""

    settings: GenerateSettings
    loaded: LoadedPipeline
    steps: int

    def __call__(self, fact: Fact, image: np.ndarray) -> list[Stack]:
        import numpy as np
        import torch

        from stedfm_hf.generation.image_files import Stack
        from stedfm_hf.generation.walks import embed

        pipeline, number = self.loaded.pipeline, self.settings.number
        embedding = embed(pipeline, image[None])
        seeds = [np.random.SeedSequence([self.settings.seed, each]).generate_state(1)[0] for each in range(number)]
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        made = []
        for at in range(0, number, self.settings.batch_size):
            batch = generators[at : at + self.settings.batch_size]
            found = pipeline(
                embeddings=torch.from_numpy(np.repeat(embedding, len(batch), axis=0)),
                num_inference_steps=self.steps,
                guidance_scale=self.settings.guidance_scale,
                generator=batch,
            )
            made.append(found.images)
        images = np.concatenate(made)
        cosine = _cosine(embedding[0], embed(pipeline, images))
        rows = [{"number": each, "similarity": float(cosine[each])} for each in range(number)]
        names = ["image", *(f"generated {each}" for each in range(number))]
        return [Stack("generated", np.concatenate([image[None], images]), names, rows)]


def _cosine(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    import numpy as np

    cosine: np.ndarray = others @ one / (np.linalg.norm(others, axis=1) * np.linalg.norm(one) + 1e-12)
    return cosine
