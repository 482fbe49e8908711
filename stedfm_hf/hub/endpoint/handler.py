"""Handler of an Inference Endpoint of Hugging Face: image files as base64 text in, embeddings, classes or masks out.

`stedfm publish` puts this file at the top of the repository of a model, where the endpoint finds it. The model, the
pipeline and the image readers are those of the repository. If stedfm-hf is installed, as in the container of
`Dockerfile`, its readers of the files of microscopes are used, too.
"""

import base64
import binascii
import io
import logging
import math
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image
from transformers import AutoConfig, pipeline

try:
    import stedfm_hf.images.formats  # noqa: F401  adds the readers of the files of microscopes
    from stedfm_hf.modeling import pipeline_stedfm

    installed: ModuleType | None = pipeline_stedfm
except ImportError:
    installed = None

MAX_FILE_BYTES = 100 * 2**20
MAX_PIXELS = 8192 * 8192
"""Largest number of pixels of a plane, in all channels."""
MAX_VALUES = 10**7
"""Largest number of values of an embedding, such as a map of patch tokens."""

_TASKS = {
    "ForImageClassification": ("image-classification", "StedFmImageClassificationPipeline"),
    "ForSemanticSegmentation": ("image-segmentation", "StedFmImageSegmentationPipeline"),
}
"""Task and pipeline by the end of the name of the model class."""
_EMBED = ("image-feature-extraction", "StedFmFeatureExtractionPipeline")
_REQUEST = '{"inputs": {"file": "<base64 of the file>", "name": "cell.tif"}, "parameters": {}}'

_log = logging.getLogger(__name__)


class RequestError(ValueError):
    """Request that cannot be processed; the message is one line for the client.

    Attributes:
        status: Status of HTTP, for a server that can choose it (the toolkit of Hugging Face always sends 400).
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(" ".join(message.split()))
        self.status = status


class EndpointHandler:
    """Model of an endpoint.

    Args:
        path: Folder of the model.

    Example:
    ```python
    >>> handler = EndpointHandler("my-classifier")  # doctest: +SKIP
    >>> file = base64.b64encode(Path("cell.tif").read_bytes()).decode()  # doctest: +SKIP
    >>> handler({"inputs": {"file": file, "name": "cell.tif"}})  # doctest: +SKIP
    [{'label': 'rings', 'score': 0.93}, {'label': 'fibres', 'score': 0.07}]

    ```
    """

    def __init__(self, path: str = "") -> None:
        # The code is that of the repository to which this file belongs.
        config = AutoConfig.from_pretrained(path, trust_remote_code=True)
        head = next((each for each in _TASKS if str((config.architectures or [""])[0]).endswith(each)), "")
        self.task, name = _TASKS.get(head, _EMBED)
        chosen = {} if installed is None else {"pipeline_class": getattr(installed, name)}
        self.pipeline = pipeline(self.task, model=path, trust_remote_code=True, **chosen)
        read_image = sys.modules[type(self.pipeline).__module__].read_image
        self.readers = sys.modules[read_image.__module__]

    def __call__(self, data: dict[str, Any]) -> Any:
        """Process one request.

        Args:
            data: `inputs` with `file` (base64 text) and `name` (name of the file with its suffix), and `parameters`
                with arguments of the pipeline, such as `series`, `channel`, `pooling`, `top_k` or `threshold`.

        Returns:
            The embedding as a list of numbers, or a list of lists of lists for `pooling="patch"`; the classes, each
            with `label` and `score`; or the masks, each with `label`, `score` and `mask`, a PNG of 8 bit (0 and 255)
            as base64 text.

        Raises:
            RequestError: The request or the file is not valid; the message names no path of the server.
        """
        content, name = _file_of(data)
        parameters = data.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise RequestError("parameters is not an object; send names and values")
        with tempfile.TemporaryDirectory() as folder:
            # Only the suffix of the name decides how the file is read.
            path = Path(folder, "image").with_suffix(_suffix(name))
            path.write_bytes(content)
            try:
                return self._predict(path, name, parameters)
            except RequestError:
                raise
            except Exception as error:
                message = str(error).replace(str(path), name).replace(path.name, name).replace(folder, "")
                if isinstance(error, (self.readers.ImageReadError, ValueError, TypeError)):
                    raise RequestError(message[:500]) from error
                _log.exception("request failed")
                raise RequestError(f"{name}: cannot be processed ({type(error).__name__})", 500) from None

    def _predict(self, path: Path, name: str, parameters: dict[str, Any]) -> Any:
        """Read a file, apply the pipeline and return plain data; `name` is that of the file in messages."""
        with self.readers.open_series(path) as stored:
            shapes = [each.info.shape for each in stored]
        channels, height, width = max(shapes, key=math.prod)
        if channels * height * width > MAX_PIXELS:
            found = f"{channels} x {height} x {width} pixels (channels, rows, columns)"
            raise RequestError(f"{name}: {found} are too many; send a part of the image", 413)
        parameters = dict(parameters)
        chosen = {key: parameters.pop(key, None) for key in ("series", "channel")}
        result = self.pipeline(self.readers.read_image(path, **chosen), **parameters)
        if self.task == "image-feature-extraction":
            if result.size > MAX_VALUES:
                raise RequestError(f"{name}: {result.size} values are too many; send a part of the image", 413)
            return result.astype(np.float32).tolist()
        if self.task == "image-segmentation":
            return [{"label": each["label"], "score": each["score"], "mask": _png(each["mask"])} for each in result]
        return result


def _file_of(data: Any) -> tuple[bytes, str]:
    """Return the content and the name of the file of a request."""
    inputs = data.get("inputs") if isinstance(data, dict) else None
    if not isinstance(inputs, dict) or not isinstance(inputs.get("file"), str):
        raise RequestError(f"the request has no file; send JSON: {_REQUEST}")
    name = inputs.get("name")
    if not isinstance(name, str) or not _suffix(name):
        raise RequestError(f"the request has no file name with a suffix; send JSON: {_REQUEST}")
    text = inputs["file"]
    if len(text) * 3 // 4 > MAX_FILE_BYTES:
        raise RequestError(f"the file is larger than {MAX_FILE_BYTES // 2**20} MiB; send a part of the image", 413)
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"the file is not base64 text ({error}); encode the bytes of the file") from None
    if not content:
        raise RequestError("the file is empty (0 bytes); encode the bytes of the file")
    return content, _shown(name)


def _shown(name: str) -> str:
    """Return the last part of a file name on one line, at most 100 characters."""
    return "".join(each if each.isprintable() else "?" for each in name.replace("\\", "/").rpartition("/")[2])[-100:]


def _suffix(name: str) -> str:
    """Return the suffix of a name if it is made of letters and digits, such as `.tif`; otherwise ''."""
    suffix = Path(_shown(name)).suffix
    return suffix if suffix[1:].isascii() and suffix[1:].isalnum() and len(suffix) <= 10 else ""


def _png(mask: np.ndarray) -> str:
    """Return a mask as a PNG of 8 bit (0 and 255) in base64 text."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
