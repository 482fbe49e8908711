"""Images of a study as PNG files for the browser, without metadata; every image is read before the server starts."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from stedfm_hf.images import ImageReadError, read_image
from stedfm_hf.reports.figures import automatic_limits, to_8bit
from stedfm_hf.runs import Progress, UserError, some_of
from stedfm_hf.runs.copies import local_copy
from stedfm_hf.runs.files import sha256_file
from stedfm_hf.runs.storage import as_path, is_remote
from stedfm_hf.studies.study import Study, all_images

LARGEST = 2048
"""Largest height or width of a shown image, in pixels; larger images are averaged."""
_PICTURES = (".png", ".jpg", ".jpeg")
_SHOWN_UNCHANGED = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK")
"""Modes of Pillow with at most 8 bits per channel."""


def prepare_images(
    study: Study, folder: str | os.PathLike[str], output: Path
) -> tuple[dict[str, Path], dict[str, str]]:
    """Write every image of a study as PNG.

    8-bit PNG and JPEG files are shown unchanged. Other images are scaled like those of reports: black is the minimum,
    white the 99.8th percentile of each image.

    Args:
        study: The study.
        folder: Folder, or URL of a data set repository, that the paths of the study file are relative to.
        output: Folder for the PNG files.

    Returns:
        The PNG file and the SHA-256 of the original of each image, by its path in the study file.

    Raises:
        UserError: If images are missing or cannot be read; the message names them.
    """
    files, hashes, problems = {}, {}, []
    paths = all_images(study)
    with Progress(len(paths), description="images", unit="images") as progress:
        for number, path in enumerate(paths):
            source = as_path(path) if "://" in path else as_path(folder) / path
            files[path] = output / f"{number}.png"
            try:
                files[path].write_bytes(encode(source))
                hashes[path] = sha256_file(source)
            except (OSError, ValueError) as error:
                problems.append(f"{path}: {_reason(error, str(source))}")
            progress.update()
    if len(problems) == len(paths) and is_remote(folder):
        reason = problems[0].rpartition(": ")[2]
        raise UserError(
            f"{folder}: no image can be read ({reason}); check the address and, if it is private, the credentials "
            "(HF_TOKEN for hf://)"
        )
    if problems:
        raise UserError(f"images cannot be shown: {some_of(problems)}; correct the study file or add the images")
    return files, hashes


def encode(path: Path) -> bytes:
    """Return an image as PNG for the browser; see `prepare_images`.

    Args:
        path: File.

    Raises:
        ImageReadError: If the image cannot be read, or has several channels of more than 8 bit.
        OSError: If there is no such file.
    """
    picture = _unchanged(path) or _scaled(path)
    if (factor := -(-max(picture.size) // LARGEST)) > 1:
        picture = picture.reduce(factor)
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return content.getvalue()


def _unchanged(path: Path) -> Image.Image | None:
    """Return a picture that is shown unchanged, on white if it is transparent; None if it needs to be scaled."""
    if not path.name.lower().endswith(_PICTURES):
        return None
    with local_copy(path) as file:
        try:
            with Image.open(file, formats=("PNG", "JPEG")) as picture:
                if picture.mode not in _SHOWN_UNCHANGED:
                    return None
                if picture.mode in ("1", "L"):
                    return picture.convert("L")
                if "A" not in picture.mode and "transparency" not in picture.info:
                    return picture.convert("RGB")
                layer = picture.convert("RGBA")
        except (UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
            raise ImageReadError(
                "is named like a PNG or JPEG image, but holds something else (TIFF files work, too)"
            ) from error
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _scaled(path: Path) -> Image.Image:
    """Return an image in 8 bit, scaled like in reports."""
    array = read_image(path).array
    if len(array) == 3 and array.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(array.transpose(1, 2, 0)))
    if len(array) != 1:
        raise ImageReadError(f"has {len(array)} channels instead of 1, or of 3 in 8 bit")
    return Image.fromarray(to_8bit(array[0], automatic_limits(array[0])))


def _reason(error: Exception, source: str) -> str:
    """Return what is wrong with an image, in a few words without its path."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.removeprefix(f"{source}: ").partition(";")[0].split())
