"""`stedfm attribute fit`: fit the direction of an attribute, and score it on other source images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedfm_hf.data.sources import check_dataset
from stedfm_hf.generation.settings import PATTERN, AttributeFitSettings
from stedfm_hf.runs import UserError, counted, some_of
from stedfm_hf.runs.failures import print_failed
from stedfm_hf.runs.options import REFERENCE
from stedfm_hf.runs.output import check_output, open_output
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.settings import takes_settings

if TYPE_CHECKING:
    from stedfm_hf.generation.direction import Direction
    from stedfm_hf.generation.embedded import EmbeddedImages
    from stedfm_hf.generation.fitting import Fit

COMMAND = "attribute fit"
RESULTS = ("direction.safetensors", "direction.json")


@dataclass(frozen=True)
class AttributeFitResult(OutputResult):
    """Result of `attribute fit`: the folder of a direction.

    Attributes:
        direction: Direction with its held-out score.
        images: Number of images that it was fitted to.
    """

    direction: Direction
    images: int

    def summary(self) -> str:
        """Return what was fitted and how good it is."""
        direction, score = self.direction, self.direction.score
        leads = f" from {direction.classes[0]} to {direction.classes[1]}" if direction.classes else ""
        count = self.manifest.counts()["failed"]
        images = counted(self.images, "image") + (f", {count} left out" if count else "")
        lines = [f"{self.output}: direction {direction.name}{leads} ({direction.method}), {images}"]
        if score is not None:
            interval = f"{score.low:.3f} to {score.high:.3f}"
            lines.append(f"held-out {score.name} {score.value:.3f} ({interval}; chance {score.chance:g})")
            if not score.above_chance:
                lines.append("warning: no better than chance; a walk along it shows nothing about the attribute")
        elif not direction.method.startswith("principal component"):
            lines.append("warning: not scored, because there are too few source images")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for programs."""
        score = self.direction.score
        return super().to_json() | {
            "name": self.direction.name,
            "method": self.direction.method,
            "images": self.images,
            "score": None if score is None else {"name": score.name, "value": score.value, "chance": score.chance},
            "above_chance": None if score is None else score.above_chance,
        }


@takes_settings(AttributeFitSettings)
def fit_attribute(settings: AttributeFitSettings) -> AttributeFitResult:
    """Fit the direction of an attribute to the embeddings of labelled images.

    Returns:
        Direction, with its score on held-out source images.

    Raises:
        UserError: The labels do not fit the method, there is only one class, or the output holds something else.

    Example:
        >>> fit_attribute("my-crops", "activity", model="demo", classes=("rest", "active"))  # doctest: +SKIP
    """
    from stedfm_hf.generation.embedded import embed_labelled, is_cluster_result, read_clusters  # imports torch

    check_output(settings.output, COMMAND, is_folder=True, overwrite=settings.overwrite)
    if is_cluster_result(settings.dataset):
        images = read_clusters(settings)
    else:
        check_dataset(settings.dataset)
        images = embed_labelled(settings)
    print_failed(images.failed)
    images = _of_two_classes(images, settings)
    with open_output(
        settings.output,
        COMMAND,
        settings,
        results=RESULTS,
        model=images.model,
        weights_sha256=images.weights_sha256,
        resolved={"data": images.name, "images": len(images)},
        overwrite=settings.overwrite,
    ) as output:
        from stedfm_hf.generation.direction import Direction

        if output.finished:
            output.report_finished()
            direction = Direction.load(output.path)
        else:
            direction = fit_direction(images, settings)
            direction.save(output.path)
            for name, reason in images.failed.items():
                output.manifest.failed(name, reason)
    return AttributeFitResult(output.path, output.manifest, direction, len(images))


def fit_direction(images: EmbeddedImages, settings: AttributeFitSettings) -> Direction:
    """Fit, orthogonalise and score a direction.

    Args:
        images: Embedded images: of two classes, or with numbers.
        settings: Method and attributes to be orthogonal to.

    Raises:
        UserError: The method does not fit the targets.
    """
    from stedfm_hf.generation.fitting import along_pattern, cross_validate, orthogonal_to, percentiles_of, with_spread

    method = _method(images, settings)
    target = images.target
    classes: tuple[str, ...] = ()
    if images.has_classes and method != "component":
        classes = settings.classes or tuple(sorted(set(target.tolist())))
        target = (images.target == classes[1]).astype(int)
    fit = _fit(method, settings)
    nuisances = [_nuisance(name, images, settings) for name in settings.orthogonal_to]

    def whole(X: Any, y: Any, sources: Any) -> Direction:
        return orthogonal_to(fit(X, y, sources), nuisances)

    direction = with_spread(whole(images.embeddings, target, images.sources), images.embeddings)
    if settings.path == PATTERN and method in ("boundary", "regression") and settings.protocol != REFERENCE:
        direction = along_pattern(direction, images.embeddings, nuisances)
    score = None
    if method != "component":
        score = cross_validate(whole, images.embeddings, target, images.sources, is_class=images.has_classes)
    return direction.with_facts(
        name=settings.name or settings.target or ("-".join(classes) if classes else method),
        classes=classes,
        score=score,
        percentiles=percentiles_of(
            direction.signed_distance(images.embeddings), images.target if images.has_classes else None
        ),
        model=images.model,
        weights_sha256=images.weights_sha256,
        encoder_fingerprint=images.encoder_fingerprint,
        size_px=images.size_px,
    )


def _method(images: EmbeddedImages, settings: AttributeFitSettings) -> str:
    """Return the method, which `auto` selects by the targets."""
    if settings.method == "auto":
        return "boundary" if images.has_classes else "regression"
    if images.has_classes and settings.method == "regression":
        raise UserError(f"{images.name}: the labels are classes; use --method boundary or difference")
    if not images.has_classes and settings.method in ("boundary", "difference"):
        raise UserError(f"{images.name}: the labels are numbers; use --method regression")
    return settings.method


def _fit(method: str, settings: AttributeFitSettings) -> Fit:
    from stedfm_hf.generation import fitting

    if method == "boundary":
        reference = settings.protocol == REFERENCE
        return partial(fitting.fit_boundary, standardise=settings.standardise, reference=reference)
    if method == "component":
        return lambda X, _, __: fitting.principal_direction(X, settings.component, standardise=settings.standardise)
    fit = fitting.difference_of_groups if method == "difference" else fitting.fit_regression
    return partial(fit, standardise=settings.standardise)


def _nuisance(name: str, images: EmbeddedImages, settings: AttributeFitSettings) -> Direction:
    """Return the direction of an attribute that shall not change: measured in the images, or saved in a folder."""
    from stedfm_hf.generation.direction import Direction
    from stedfm_hf.generation.fitting import fit_regression
    from stedfm_hf.modeling.conditioning_stedfm import is_same_encoder

    if name in images.measured:
        values = images.measured[name]
        if values.std() == 0:
            raise UserError(f"--orthogonal-to {name}: is the same in all images; leave it out")
        found = fit_regression(images.embeddings, values, images.sources, standardise=settings.standardise)
        return found.with_facts(name=name)
    if not Path(name).is_dir():
        raise UserError(f"--orthogonal-to {name}: is neither brightness, density nor the folder of a direction")
    direction = Direction.load(name)
    one, two = direction.encoder_fingerprint, images.encoder_fingerprint
    if (one and two and not is_same_encoder(one, two)) or len(direction) != images.embeddings.shape[1]:
        raise UserError(
            f"--orthogonal-to {name}: was fitted with another encoder ({direction.model}); fit it again with --model "
            "and the model of this fit"
        )
    return direction


def _of_two_classes(images: EmbeddedImages, settings: AttributeFitSettings) -> EmbeddedImages:
    """Return the images of the two classes, or all images if the targets are numbers or not used."""
    if not images.has_classes or settings.method == "component":
        if settings.classes is not None:
            raise UserError(f"{images.name}: the labels are not used as classes; leave out --classes")
        return images
    known = sorted(set(images.target.tolist()))
    if settings.classes is None:
        if len(known) != 2:
            classes = f"{len(known)} {'class' if len(known) == 1 else 'classes'} ({some_of(known)})"
            raise UserError(
                f"{images.name}: has {classes}; a direction needs two: --classes FROM TO{_left_out(images)}"
            )
        return images
    if unknown := [each for each in settings.classes if each not in known]:
        raise UserError(
            f"--classes {unknown[0]}: is not a class of {images.name}; there are: {', '.join(known)}"
            f"{_left_out(images)}"
        )
    keep = (images.target == settings.classes[0]) | (images.target == settings.classes[1])
    return images.take(keep)


def _left_out(images: EmbeddedImages) -> str:
    """Return how many images were left out, as the end of a message; empty without any."""
    return f". {counted(len(images.failed), 'image')} left out, see above" if images.failed else ""
