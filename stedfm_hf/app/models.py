"""Models of the app, loaded once and shared by all visitors."""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from stedfm_hf.acquisition import StoredFinder, load_finder
from stedfm_hf.app.index import Index, load_index
from stedfm_hf.app.model_sources import ModelSources
from stedfm_hf.app.settings import AppSettings
from stedfm_hf.generation.direction import Direction
from stedfm_hf.generation.loading import LoadedPipeline, check_direction, load_pipeline
from stedfm_hf.inference import Classifier, Encoder, Segmenter, load_classifier, load_encoder, load_segmenter
from stedfm_hf.inference.limits import StoppedError, time_limit, watch
from stedfm_hf.inference.reconstruction import Autoencoder, load_autoencoder
from stedfm_hf.runs import UserError
from stedfm_hf.weights.models import ModelSource
from stedfm_hf.weights.packaged import DIRECTIONS, PACKAGED, write_demo_segmenter


@dataclass(eq=False)
class Models:
    """Models of the app.

    Attributes:
        encoder: Encoder.
        autoencoder: Masked autoencoder of the same folder; None if the folder has no decoder for pixels.
        classifier: Classifier, or None.
        segmenter: Segmenter, or None.
        generator: Generation pipeline, or None.
        directions: Directions of attributes by name.
        finders: Finders with their encoders, by name.
    """

    encoder: Encoder
    autoencoder: Autoencoder | None
    classifier: Classifier | None
    segmenter: Segmenter | None
    generator: LoadedPipeline | None
    directions: dict[str, Direction]
    finders: dict[str, tuple[StoredFinder, Encoder]]
    _settings: AppSettings
    _work: Path
    _index: Index | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    @property
    def index(self) -> Index:
        """Index of images, made when it is first used."""
        with self._lock:
            if self._index is None:
                self._index = load_index(self._settings, self.encoder, self._work)
            return self._index

    def prepare_index(self, stop: threading.Event) -> None:
        """Make the index in a thread, so that it is ready when the first visitor needs it; the next calls do nothing.

        Args:
            stop: Event that stops the computation.
        """

        def make() -> None:
            with suppress(StoppedError), time_limit(math.inf, stop.is_set):
                self.index  # noqa: B018 -- reading the property builds the index

        if self._thread is None:
            # Not a daemon: torch aborts the process if it ends during a computation.
            self._thread = threading.Thread(target=make)
            self._thread.start()

    def wait(self) -> None:
        """Wait for the thread of the index."""
        if self._thread is not None:
            self._thread.join()


def load_models(settings: AppSettings, sources: ModelSources, work: Path) -> Models:
    """Load the models of the settings; an index that is not the simulated one is loaded, too.

    Args:
        settings: Settings of the app.
        sources: Models of the settings.
        work: Folder for the files of the index.

    Raises:
        UserError: If a model or the index does not exist or does not fit.
    """
    how = {"device": settings.device, "precision": settings.precision}
    encoder = load_encoder(sources.model, **how)
    try:
        autoencoder = load_autoencoder(sources.model, **how)
    except UserError:  # an encoder without a decoder, or a model for a task
        autoencoder = None
    classifier = None if sources.classifier is None else load_classifier(sources.classifier, **how)
    segmenter_source = sources.segmenter
    if segmenter_source is None and settings.model in PACKAGED:
        folder = write_demo_segmenter(work / "demo-segmenter")
        segmenter_source = ModelSource(folder.name, str(folder), f"{folder.name} ({PACKAGED[str(settings.model)]})")
    segmenter = None if segmenter_source is None else load_segmenter(segmenter_source, **how)
    for loaded in (encoder, autoencoder, classifier, segmenter):
        if loaded is not None:
            watch(loaded.model.base_model.encoder)
    generator, directions = load_generator(settings)
    finders = load_finders(settings, encoder)
    models = Models(encoder, autoencoder, classifier, segmenter, generator, directions, finders, settings, work)
    if settings.index is not None:
        models.index  # noqa: B018 -- errors of the index are reported at the start
    return models


def load_finders(settings: AppSettings, encoder: Encoder) -> dict[str, tuple[StoredFinder, Encoder]]:
    """Load the finders of the settings and their encoders.

    Args:
        settings: Settings of the app.
        encoder: Encoder of the app, which finders of the same weights share.

    Raises:
        UserError: If a finder or its model does not exist or does not fit.
    """
    found: dict[str, tuple[StoredFinder, Encoder]] = {}
    for folder in settings.finder:
        stored, name = load_finder(folder), Path(folder).resolve().name
        if name in found:
            raise UserError(f"finder {folder}: another finder has the same name; rename one of the folders")
        if stored.record["weights_sha256"] == encoder.weights_sha256:
            found[name] = stored, encoder
            continue
        other = stored.load_encoder(device=settings.device, precision=settings.precision)
        watch(other.model.base_model.encoder)
        found[name] = stored, other
    return found


def load_generator(settings: AppSettings) -> tuple[LoadedPipeline | None, dict[str, Direction]]:
    """Load the generation pipeline and the directions of the settings.

    Raises:
        UserError: If one cannot be loaded, or a direction is of another encoder.
    """
    pipeline, folders = settings.generator, list(settings.directions)
    if pipeline is None and settings.model in PACKAGED:
        pipeline, folders = settings.model, sorted(map(str, DIRECTIONS.iterdir()))
    if pipeline is None:
        return None, {}
    generator = load_pipeline(pipeline, device=settings.device)
    directions: dict[str, Direction] = {}
    for folder in folders:
        direction = Direction.load(folder)
        check_direction(direction, generator)
        name = direction.name if direction.name not in directions else f"{direction.name} ({Path(folder).name})"
        directions[name] = direction
    watch(generator.pipeline.unet)
    return generator, directions
