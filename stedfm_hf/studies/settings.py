"""Settings of the commands `stedfm study`."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.addresses import is_loopback
from stedfm_hf.runs.settings import argument, option, settings
from stedfm_hf.studies.study import CLASSIFY, RANK, REAL_OR_GENERATED, TYPES


def _study() -> Any:
    return argument(affects_result=False, metavar="STUDY", help="Study file (YAML).")


def _address(more: str) -> Any:
    return option(
        None,
        affects_result=False,
        metavar="URL",
        parse=parse_address,
        help=f"Address that participants open, such as https://study.example.org{more}.",
    )


def parse_address(text: str) -> str:
    """Return the address of a server without a final slash.

    Raises:
        UserError: If it is not `http://HOST` or `https://HOST`, perhaps with a port.

    Example:
        >>> parse_address("https://study.example.org/")
        'https://study.example.org'
    """
    try:
        parts = urlsplit(text)
        is_valid = parts.scheme in ("http", "https") and parts.hostname and parts.path in ("", "/")
        if is_valid and not (parts.query or parts.fragment or parts.username) and parts.port != 0:
            return text.rstrip("/")
    except ValueError:
        pass
    raise UserError(f"address {text!r} is not http://HOST or https://HOST, such as https://study.example.org")


@settings
class StudyBuildSettings:
    """Make a study file and its images from the results of other commands.

    A source is a folder that explain, generate, attribute walk or search wrote, or a folder of images. Its group is
    what the study compares, such as the model. Missing pictures are errors.
    """

    sources: list[str] = argument(
        affects_result=False,
        metavar="GROUP=FOLDER",
        help="Group and folder of its pictures, such as STED=maps-sted; a folder alone is a group of its name.",
    )
    output: str | Path = option(
        affects_result=False, metavar="DIR", cli_default=Path("study"), help="Folder to write."
    )
    type: str = option(choices=TYPES, help="Task: choose, classify, real-or-generated or rank; see the study file.")
    images: str | Path | None = option(
        None,
        affects_result=False,
        metavar="DIR",
        help="Folder of the image files that were explained or searched; generated images hold their originals.",
    )
    example: str | Path | None = option(
        None,
        affects_result=False,
        metavar="FILE",
        help="Image with which rank compares the others.",
    )
    classes: list[str] = option(
        default_factory=list, metavar="NAME", help="Answers of classify; by default the first folders of the images."
    )
    paired: bool = option(False, help="Show the original next to each generated image, for real-or-generated.")
    max_images: int | None = option(
        None, minimum=1, help="Number of images that are used, selected at random; by default all."
    )
    per_image: int | None = option(
        None, minimum=1, help="Number of pictures of each image that are used, such as generated ones; by default all."
    )
    title: str = option("Image study", help="Title for participants and reports.")
    question: str | None = option(None, help="Question above every trial; by default that of the task.")
    seed: int = options.seed("the images that are used, and the order of trials")
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse options that do not fit the task."""
        for name, task in (("classes", CLASSIFY), ("example", RANK), ("paired", REAL_OR_GENERATED)):
            if getattr(self, name) and self.type != task:
                raise UserError(f"--{name} belongs to {task}, not to {self.type}; leave it out")


@settings
class StudyAnalyseSettings:
    """Analyse the answers of a study.

    The exclusion rules of the study file are applied first, and everything that they exclude is reported. Scores,
    agreement, tests and rankings follow, with figures and a report.
    """

    study: str | Path = _study()
    answers: str | Path = argument(affects_result=False, metavar="ANSWERS", help="Table of answers (Parquet).")
    output: str | Path = option(
        Path("analysis"), affects_result=False, metavar="DIR", help="Folder of the results to write."
    )
    protocol: str = options.protocol(
        "shows standard deviations, scores classifications without Other and Unclassifiable, counts generated images "
        "that are taken for real, and makes uncorrected pairwise tests of independent samples"
    )
    mixed_model: bool = option(True, help="Fit a mixed model if participants answered about the same stimuli.")
    seed: int = options.seed("the permutations")
    overwrite: bool = options.overwrite()


@settings
class StudySimulateSettings:
    """Simulate a study, to find out how many participants and trials it needs.

    Simulated raters answer with the preferences that the study file expects. For each size, the power is the fraction
    of simulated studies that find a significant preference. The answers of one study are written as well, to try the
    analysis on.
    """

    study: str | Path = _study()
    output: str | Path = option(
        Path("simulated"), affects_result=False, metavar="DIR", help="Folder of the results to write."
    )
    participants: list[int] = option(
        default_factory=lambda: [5, 10, 20], minimum=1, help="Numbers of participants to try; by default 5, 10 and 20."
    )
    trials: list[int] = option(
        default_factory=list,
        minimum=1,
        help="Numbers of stimuli for each participant to try, for rank numbers of images to sort; by default that of "
        "the study file.",
    )
    repeats: int = option(200, minimum=1, help="Number of simulated studies of each size.")
    power: float = option(0.8, minimum=0, maximum=1, help="Power that the recommended size reaches.")
    alpha: float = option(0.05, minimum=0, maximum=1, help="Significance level.")
    rater_sd: float = option(
        0.5, minimum=0, help="Standard deviation of the preferences of raters around the expected ones, in log odds."
    )
    image_sd: float = option(0.5, minimum=0, help="Standard deviation of the effects of images, in log odds.")
    null: bool = option(False, help="Simulate raters without any preference, to test the analysis.")
    seed: int = options.seed("the raters and the permutations")
    overwrite: bool = options.overwrite()


@settings
class StudyServeSettings:
    """Serve a study as web pages, on which people take part.

    Participants need no account: each has a private link, by which they also come back after a pause. Each answer is
    stored before the next trial is shown. The command prints the link of a page for you, on which you invite
    participants, see their progress and download the answers.
    """

    study: str | Path = _study()
    answers: Path = option(
        Path("answers.sqlite"),
        affects_result=False,
        metavar="FILE",
        help="File of the answers (SQLite), on a local disk; made if it does not exist, continued if it does.",
    )
    images: Path | None = option(
        None,
        affects_result=False,
        metavar="DIR|URL",
        storage=True,
        help="Folder, or data set repository such as hf://datasets/my-lab/my-stimuli, of the images; by default that "
        "of the study file.",
    )
    open: bool = option(
        False, affects_result=False, help="Offer an open link, by which everybody who has it can take part."
    )
    max_participants: int = option(
        500, affects_result=False, minimum=1, help="Number of participants up to which the open link admits new ones."
    )
    host: str = options.host("0.0.0.0 admits other computers")
    port: int = options.port(8330)
    address: str | None = _address("; needed unless they use this computer")

    def check(self) -> None:
        """Refuse to serve other computers without knowing the address that they open."""
        if not is_loopback(self.host) and self.address is None:
            raise UserError(f"--host {self.host} needs --address, the address that participants open")


@settings
class StudyInviteSettings:
    """Make private links for new participants of a study that is or was served.

    Each link is for one person. Keep the output: the links are not stored.
    """

    answers: str | Path = argument(affects_result=False, metavar="ANSWERS", help="File of the answers (SQLite).")
    participants: int = option(1, affects_result=False, minimum=1, maximum=10_000, help="Number of links.")
    address: str | None = _address("; by default that of the running server")


@settings
class StudyExportSettings:
    """Write the answers of a served study as a table for `stedfm study analyse`.

    The server may be running.
    """

    answers: str | Path = argument(affects_result=False, metavar="ANSWERS", help="File of the answers (SQLite).")
    output: Path = option(
        Path("answers.parquet"), affects_result=False, metavar="FILE", help="Table to write (Parquet)."
    )
    push_to_hub: str | None = option(
        None,
        affects_result=False,
        metavar="OWNER/NAME",
        help="Private data set repository on the Hub that receives the table and the study file, too.",
    )
    overwrite: bool = options.overwrite()
