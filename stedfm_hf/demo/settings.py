"""Settings of the demo."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.output import check_output
from stedfm_hf.runs.settings import option, settings


@settings
class DemoSettings:
    """Simulate images, train a small model and write a report.

    The trained model is compared with an untrained one and with simple baselines. Results of an earlier demo in the
    folder are replaced. The demo takes a few minutes on two cores.
    """

    output: str | Path = option("demo", affects_result=False, metavar="DIR", help="Folder to write, with report.html.")
    images: str | Path | None = option(
        None, metavar="DIR", help="Folder of images to use instead of simulated ones; its subfolders are the labels."
    )
    model: str | None = option(None, help="Folder or Hub id of a trained model, or `demo`, instead of training one.")
    max_seconds: float = option(210.0, minimum=0.1, help="Time of the training, in seconds.")
    per_structure: int = option(300, minimum=10, help="Number of simulated images of each structure to train on.")
    seed: int = options.seed("images, weights and masks")
    device: str = options.device()

    def check(self) -> None:
        """Refuse an output with other files, and a folder of images that does not exist."""
        check_output(self.output, "demo", is_folder=True)
        if self.images is not None and not Path(self.images).is_dir():
            raise UserError(f"{self.images}: is not a folder; give a folder of images")
