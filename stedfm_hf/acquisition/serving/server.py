"""Parts of a server that its routes use, and what they do with the images of requests."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stedfm_hf.acquisition.reference import Windows
from stedfm_hf.acquisition.serving.engine import Annotation, Click, Engine, Wanted
from stedfm_hf.acquisition.serving.errors import RequestError
from stedfm_hf.acquisition.serving.gate import Admission
from stedfm_hf.acquisition.serving.images import ImageReader, PixelSize, check_pixels
from stedfm_hf.acquisition.serving.messages import FieldScores, FinderInfo, FoundRegion
from stedfm_hf.acquisition.serving.metrics import Metrics
from stedfm_hf.acquisition.serving.reference_route import process
from stedfm_hf.acquisition.serving.settings import ServeSettings
from stedfm_hf.acquisition.serving.store import About, Store
from stedfm_hf.acquisition.serving.tokens import Tokens
from stedfm_hf.acquisition.serving.work import Work
from stedfm_hf.images import StedImage
from stedfm_hf.inference.preparation import Fact
from stedfm_hf.runs import counted

MOST_CLICKS = 1000


@dataclass(frozen=True)
class SentImage:
    """Image as it was sent.

    Attributes:
        body: Bytes of the file, or none.
        path: Path below the shared folder, or None.
        pixel_size_nm: Pixel size (y, x) in nm, in place of that of the file.
    """

    body: bytes
    path: str | None = None
    pixel_size_nm: PixelSize = None


@dataclass(frozen=True)
class SentAnnotation:
    """Annotation as it was sent.

    Attributes:
        mask: Bytes of the file of the mask, or none.
        clicks: Clicks as JSON, or none.
        radius_px: Radius of the disc that a click marks, in pixels, or None.
    """

    mask: bytes
    clicks: str
    radius_px: float | None


@dataclass(frozen=True)
class Server:
    """Parts of a server.

    Attributes:
        settings: Settings.
        tokens: Tokens of the clients.
        engine: Model.
        store: Finders.
        work: Thread that computes; it calls the methods of this class.
        reader: Reader of images.
        admission: Requests that work or wait.
        metrics: Metrics.
        began: Time of the start.
    """

    settings: ServeSettings
    tokens: Tokens
    engine: Engine
    store: Store
    work: Work
    reader: ImageReader
    admission: Admission
    metrics: Metrics
    began: float = field(default_factory=time.monotonic)

    def create(
        self,
        client: str,
        image: SentImage,
        annotation: SentAnnotation,
        method: str,
        classes: Sequence[str],
        rotations: bool,
    ) -> FinderInfo:
        """Fit a finder to an annotated image, and store it.

        Args:
            client: Id of the client.
            image: Image.
            annotation: Annotation.
            method: Method.
            classes: Names of the classes; none are those of the clicks.
            rotations: Whether images are also used rotated.
        """
        if self.store.count(client) >= self.settings.max_finders:
            raise RequestError(409, f"the client has {counted(self.settings.max_finders, 'finder')}; delete one")
        known = self._annotation(annotation)
        about = About(method, known.class_names(classes), rotations)
        examples = self.engine.patches(self._image(image), known, about.classes, 0, rotations=rotations)
        stored = self.engine.fit(method, [examples], rotations=rotations)
        return self.store.info(client, self.store.create(client, about, examples, stored))

    def annotate(self, client: str, finder: str, image: SentImage, annotation: SentAnnotation) -> FinderInfo:
        """Fit a finder again, to another annotated image as well.

        Args:
            client: Id of the client.
            finder: Id of the finder.
            image: Image.
            annotation: Annotation.
        """
        about, earlier = self.store.about(client, finder), self.store.examples(client, finder)
        if len(earlier) >= self.settings.max_images:
            found = counted(self.settings.max_images, "annotated image")
            raise RequestError(409, f"the finder has {found}; make another finder")
        if self.store.load(client, finder).record["weights_sha256"] != self.engine.encoder.weights_sha256:
            raise RequestError(409, "the finder was fitted with another model; make another finder")
        known = self._annotation(annotation)
        examples = self.engine.patches(
            self._image(image), known, about.classes, len(earlier), rotations=about.rotations
        )
        stored = self.engine.fit(about.method, [*earlier, examples], rotations=about.rotations)
        self.store.add(client, finder, examples, stored)
        return self.store.info(client, finder)

    def score(self, client: str, finder: str, image: SentImage) -> tuple[Fact, FieldScores]:
        """Compute the score maps of a field.

        Args:
            client: Id of the client.
            finder: Id of the finder.
            image: Field.
        """
        return self.engine.score(self.store.load(client, finder), self._image(image))

    def regions(
        self, client: str, finder: str, image: SentImage, wanted: Wanted
    ) -> tuple[list[FoundRegion], str | None]:
        """Find the regions of a field to image next.

        Args:
            client: Id of the client.
            finder: Id of the finder.
            image: Field.
            wanted: Regions that the client wants.

        Returns:
            Regions, and why there are none.
        """
        return self.engine.regions(self.store.load(client, finder), self._image(image), wanted)

    def process(self, body: bytes) -> dict[str, Any]:
        """Respond to a request of a client of the published server.

        Args:
            body: JSON object of the request.
        """
        windows = Windows(self.engine.encoder, self.settings.batch_size)
        return process(windows, body, self.reader.max_pixels)

    def _image(self, sent: SentImage) -> StedImage:
        image = self.reader.read(sent.body, sent.path, sent.pixel_size_nm)
        check_pixels(image, self.engine.encoder.model.config.num_channels)
        return image

    def _annotation(self, sent: SentAnnotation) -> Annotation:
        mask = self.reader.read(sent.mask).array if sent.mask else None
        return Annotation(mask, parse_clicks(sent.clicks), sent.radius_px)


def parse_clicks(text: str) -> list[Click]:
    """Convert the clicks of a request; a click without a class is of the class `structure`.

    Args:
        text: JSON list of `[y, x]` or `[y, x, class]`; empty for none.

    Raises:
        RequestError: If the text is not such a list.

    Example:
        >>> parse_clicks('[[3, 4], [5, 6.5, "rings"]]')
        [(3.0, 4.0, 'structure'), (5.0, 6.5, 'rings')]
    """
    try:
        values = json.loads(text or "[]")
        found = [(float(y), float(x), *(name or ["structure"])) for y, x, *name in values]
    except (ValueError, TypeError, RecursionError):
        found = [()]
    good = all(
        len(each) == 3 and isinstance(each[2], str) and len(each[2]) <= 100 and math.isfinite(each[0] + each[1])
        for each in found
    )
    if not good or len(found) > MOST_CLICKS:
        raise RequestError(422, f'clicks: is not a JSON list of at most {MOST_CLICKS} [y, x] or [y, x, "class"]')
    return [(y, x, name) for y, x, name in found]
