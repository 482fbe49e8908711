"""Settings of `stedfm attribute`."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.settings import option, settings

METHODS = ("auto", "boundary", "difference", "regression", "component")


@settings
class AttributeFitSettings:
    """Fit the direction of an attribute in the space of embeddings.

    Classes give a boundary, numbers a regression. The direction is scored on source images that it was not fitted to;
    a direction that is no better than chance is reported as such.
    """

    dataset: str | Path = option(
        affects_result=False,
        help="Folder or Hub id of a data set, folder with one subfolder of images per class, or result folder of "
        "`stedfm cluster`, whose leaves are the classes.",
    )
    output: str | Path = option(affects_result=False, metavar="DIR", help="Folder of the direction to write.")
    model: str | Path | None = option(
        None,
        affects_result=False,
        help="Folder of a generation pipeline or an encoder, Hub id, or `demo`; by default the official small model.",
    )
    method: str = option(
        "auto",
        choices=METHODS,
        help="How to fit: boundary between two classes, difference of their means, regression on a number, or "
        "principal component; auto is boundary for classes and regression for numbers.",
    )
    target: str | None = option(None, help="Column of the labels, or key of the column metadata; by default label.")
    classes: tuple[str, str] | None = option(
        None, metavar="FROM TO", help="Two classes: the direction leads from the first to the second."
    )
    component: int = option(1, minimum=1, help="Number of the principal component, for --method component.")
    standardise: bool = option(True, help="Standardise the columns of the embeddings first.")
    orthogonal_to: list[str] = option(
        default_factory=list,
        metavar="NAME|DIR",
        help="Attributes that a walk keeps: brightness, density (of bright spots), or folders of directions.",
    )
    name: str | None = option(None, help="Name of the attribute in tables and figures; by default from the labels.")
    protocol: str = options.protocol("fits a linear support vector machine to embeddings that are not standardised")
    split: str | None = option(None, affects_result=False, help="Split to fit to; by default all images.")
    series: str | int | None = options.series()
    channel: str | int | None = options.channel()
    source_pattern: str | None = options.source_pattern()
    device: str = options.device()
    batch_size: int = options.batch_size(32, "images")
    cache: str | Path | None = option(
        "auto",
        affects_result=False,
        metavar="DIR|auto|none",
        parse=lambda text: None if text == "none" else text,
        help="Folder to cache embeddings in; auto is a folder in the user cache, none disables the cache.",
    )
    overwrite: bool = options.overwrite()

    def check(self) -> None:
        """Refuse options that contradict the method."""
        if self.component != 1 and self.method != "component":
            raise UserError("--component needs --method component; add it, or leave out --component")
        if self.protocol == options.REFERENCE and self.method not in ("auto", "boundary"):
            raise UserError("--protocol reference fits a boundary; leave out --method")
        if self.classes is not None and self.classes[0] == self.classes[1]:
            raise UserError(f"--classes names {self.classes[0]} twice; give two different classes")
