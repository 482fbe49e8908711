"""Images of requests: `.npy` or TIFF, as bytes or as a path below the shared folder."""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tifffile

from stedfm_hf.acquisition.serving.errors import RequestError
from stedfm_hf.images import StedImage
from stedfm_hf.modeling.io_stedfm import ImageReadError, decode_series, open_series
from stedfm_hf.runs import counted

SIGNATURES = {b"\x93NUMPY": ".npy", b"II*\0": ".tif", b"MM\0*": ".tif", b"II+\0": ".tif", b"MM\0+": ".tif"}
"""First bytes of the files that are read, and the suffix of each."""
MOST_PAGES = 64
"""Largest number of pages of a TIFF."""
PixelSize = tuple[float, float] | None
FORM = (b"--", b"image=")
"""First bytes of forms, which clients send in place of a file."""


@dataclass(frozen=True)
class ImageReader:
    """Reader of the images of requests; nothing in them is executed, and sizes are checked before pixels are decoded.

    Attributes:
        max_bytes: Largest size of a file, in bytes.
        max_pixels: Largest number of pixels, of all channels.
        share: Folder from which images are read by their path, or None.
    """

    max_bytes: int
    max_pixels: float
    share: Path | None

    def read(self, body: bytes, path: str | None = None, pixel_size_nm: PixelSize = None) -> StedImage:
        """Read an image.

        Args:
            body: Bytes of the file; empty if there is a path.
            path: Path below the shared folder, or None.
            pixel_size_nm: Pixel size (y, x) in nm, in place of that of the file.

        Raises:
            RequestError: If the image is refused; the message does not name a folder of the server.
        """
        if path is not None:
            if body:
                raise RequestError(400, "the request has an image and the path of one; send one of them")
            body = self._shared(path)
        name = "the image" if path is None else "the file of the path"
        if not body:
            raise RequestError(400, "the request has no image; send the bytes of a .npy or TIFF file, or a path")
        if body.startswith(FORM):
            raise RequestError(
                415, f"{name} arrived in a form; send the bytes of the file, not a form (curl --data-binary @FILE)"
            )
        suffix = next((each for start, each in SIGNATURES.items() if body.startswith(start)), None)
        if suffix is None:
            raise RequestError(415, f"{name} is neither a .npy nor a TIFF file; save it as one of them")
        with tempfile.TemporaryDirectory(prefix="stedfm-serve-") as folder:
            file = Path(folder, f"image{suffix}")
            file.write_bytes(body)
            try:
                image = self._decode(file, name)
            except ImageReadError as error:
                if isinstance(error.__cause__, RequestError):  # of the checks of the size
                    raise error.__cause__ from None
                raise RequestError(400, str(error).replace(f"{file}:", f"{name}:").replace(folder, "")) from None
        return image if pixel_size_nm is None else replace(image, pixel_size_nm=pixel_size_nm)

    def _decode(self, file: Path, name: str) -> StedImage:
        """Decode the only plane of a file, after its declared size is checked."""
        if file.suffix == ".tif":
            self._check_pages(file, name)
        with open_series(file) as found:
            if len(found) > 1:
                raise RequestError(400, f"{name} holds {len(found)} planes; send one of them")
            self._check_size(math.prod(found[0].info.shape), name)
            return decode_series(found[0], str(file), None)

    def _check_pages(self, file: Path, name: str) -> None:
        """Refuse pages whose tiles are larger than an image may be, and compression without a limit of the output."""
        try:
            with tifffile.TiffFile(file) as tif:
                count = len(tif.pages)
                pages = [tif.pages[number].aspage() for number in range(min(count, MOST_PAGES))]
                largest = max(math.prod(map(int, each.chunks)) for each in pages)
                compressed = any(int(each.compression) != 1 for each in pages)
        except Exception:  # tifffile raises errors of many types for damaged files, which `open_series` explains
            return
        if count > MOST_PAGES:
            raise RequestError(413, f"{name} has {count} pages, more than {MOST_PAGES}; send one plane")
        self._check_size(largest, name)
        if compressed and find_spec("imagecodecs") is None:
            raise RequestError(
                415, f"{name} is compressed, and the server lacks imagecodecs; send it without compression"
            )

    def _check_size(self, count: int, name: str) -> None:
        if count > self.max_pixels:
            raise RequestError(
                413,
                f"{name} has {millions(count)} pixels, more than {millions(self.max_pixels)}; send a part of it, or "
                "raise --max-megapixels",
            )

    def _shared(self, path: str) -> bytes:
        """Read a file below the shared folder; links that lead out of it are refused."""
        if self.share is None:
            raise RequestError(403, "this server reads no files; start it with --share DIR, or send the image")
        root = os.path.realpath(self.share)
        outside = RequestError(403, "the path is not below the shared folder; move the file there, or send the image")
        if "\0" in path or not path:
            raise outside
        try:
            file = os.path.realpath(os.path.join(root, path))
            if os.path.commonpath([root, file]) != root:
                raise outside
            if not os.path.isfile(file):
                raise RequestError(404, "the shared folder has no such file; check the path")
            # The name is resolved: a link that takes its place in the meantime is not followed.
            handle = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
            with os.fdopen(handle, "rb") as opened:
                body = opened.read(self.max_bytes + 1)
        except (OSError, ValueError):
            raise RequestError(404, "the shared file cannot be read; check the path") from None
        if len(body) > self.max_bytes:
            raise RequestError(413, f"the shared file is larger than {self.max_bytes / 1e6:g} MB; send a part of it")
        return body


def check_pixels(image: StedImage, channels: int) -> None:
    """Refuse an image that does not have the channels of a model, or whose pixels are not all finite.

    Args:
        image: Image of a request.
        channels: Number of channels of the model.

    Raises:
        RequestError: If it is refused.
    """
    if (found := len(image.array)) != channels:
        shape = "(height, width)" if channels == 1 else f"({channels}, height, width)"
        raise RequestError(
            400,
            f"the image has {counted(found, 'channel')}, and the model takes {channels}; send an array of shape "
            f"{shape}",
        )
    if image.array.dtype.kind == "f" and not (finite := np.isfinite(image.array)).all():
        wrong = counted(int((~finite).sum()), "pixel")
        raise RequestError(400, f"the image has {wrong} of NaN or infinity; replace them by numbers, such as 0")


def millions(count: float) -> str:
    """Return a number in millions for a message.

    Example:
        >>> millions(21_160_000), millions(2e7)
        ('21.16 million', '20 million')
    """
    return f"{count / 1e6:.4g} million"
