"""Client of `stedfm serve`, for programs that control a microscope."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import numpy as np

from stedfm_hf.acquisition.serving.messages import NPY, REMARK_HEADER, FieldScores, FinderInfo, FoundRegion
from stedfm_hf.runs import UserError

URL = "http://127.0.0.1:8321"
VARIABLE = "STEDFM_TOKEN"
"""Environment variable of the token of a client."""
Image = np.ndarray | str | Path
"""Image (H, W) or (1, H, W) of any type of numbers, or the path of a `.npy` or TIFF file."""
Clicks = Sequence[tuple[float, float] | tuple[float, float, str]]
"""y and x in pixels of each click, and its class; `background` is the background."""


class ServerBusyError(UserError):
    """Server that refuses a request, because too many wait.

    Attributes:
        retry_after_s: Time after which the request may be repeated, in seconds.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class _Upload:
    """Image to send: bytes of a file, or a path below the folder that is shared with the server."""

    body: bytes
    path: str | None


class Client:
    """Client of `stedfm serve`: finders, score maps, and the regions to image next.

    Every method raises a UserError with one sentence: that of the server, or why it cannot be reached.

    Args:
        url: Address of the server.
        token: Token of the client; None uses STEDFM_TOKEN, or asks a server without tokens for one.
        share: Folder that the server was started with (`--share`), if it runs on this computer: the server reads files
            below it, which are not sent. Other files, also behind links, are refused.
        timeout_s: Time to wait for an answer, in seconds.
        http: HTTP client to use instead of a new one, with its time limit, such as `TestClient` of Starlette.

    Attributes:
        token: Token; keep one that the server gave, to find the finders again.

    Example:
    ```python
    >>> client = Client()  # doctest: +SKIP
    >>> finder = client.create_finder(overview, clicks=[(120, 200), (310, 305)])  # doctest: +SKIP
    >>> for region in client.regions(overview, finder, count=5):  # doctest: +SKIP
    ...     print(region.centre_y_px, region.centre_x_px, region.score)

    ```
    """

    def __init__(
        self,
        url: str = URL,
        *,
        token: str | None = None,
        share: str | Path | None = None,
        timeout_s: float = 120.0,
        http: httpx2.Client | None = None,
    ) -> None:
        self._token = token or os.environ.get(VARIABLE) or None
        self._url, self._share, self._timeout_s = _address(url), share, timeout_s
        # Requests to this computer do not pass a proxy.
        self._http = httpx2.Client(trust_env=False, timeout=timeout_s) if http is None else http
        self._owned = http is None

    @property
    def token(self) -> str:
        """Token; a client without one asks the server for it."""
        if self._token is None:
            self._token = str(self._request("POST", "/clients", with_token=False).json()["token"])
        return self._token

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._owned:
            self._http.close()

    def health(self) -> dict[str, Any]:
        """Return the state and the version of the server."""
        return self._request("GET", "/health", with_token=False).json()

    def models(self) -> list[dict[str, Any]]:
        """Return the name, checksum, patch size, crop size, backend, precision and device of the model."""
        return self._request("GET", "/models").json()

    def create_finder(
        self,
        image: Image,
        *,
        mask: Image | None = None,
        clicks: Clicks | None = None,
        classes: Sequence[str] | None = None,
        method: str = "templates",
        click_radius_px: float | None = None,
        rotations: bool = True,
    ) -> FinderInfo:
        """Fit a finder to an annotated image.

        Args:
            image: Image.
            mask: Numbers of the classes (H, W), 0 is the background; or one plane for each class (L, H, W). An array,
                or a `.npy` or TIFF file.
            clicks: Clicks in place of a mask; without one of the class `background`, all else is background.
            classes: Names of the classes; by default `structure`, or those of the clicks in their order.
            method: `templates`, `prototypes`, `logistic` or `forest`.
            click_radius_px: Radius of the disc that a click marks, in pixels; by default half a patch.
            rotations: Whether the image is also used rotated by 90, 180 and 270 degrees.

        Returns:
            Finder. Its warning, if it has one, is also a Python warning.
        """
        fields = {"method": method, "classes": list(classes or []), "rotations": str(rotations).lower()}
        return self._annotate("/finders", image, mask, clicks, click_radius_px, fields)

    def add_annotations(
        self,
        finder: FinderInfo | str,
        image: Image,
        *,
        mask: Image | None = None,
        clicks: Clicks | None = None,
        click_radius_px: float | None = None,
    ) -> FinderInfo:
        """Fit a finder again, to another annotated image as well.

        Args:
            finder: Finder, or its id.
            image: Image.
            mask: As for `create_finder`, with the classes of the finder.
            clicks: As for `create_finder`, with the classes of the finder.
            click_radius_px: As for `create_finder`.

        Returns:
            Finder with the same id.
        """
        path = f"/finders/{_id(finder)}/annotations"
        return self._annotate(path, image, mask, clicks, click_radius_px, {})

    def finders(self) -> list[FinderInfo]:
        """Return the finders of this client."""
        return [_finder(each) for each in self._request("GET", "/finders").json()]

    def delete_finder(self, finder: FinderInfo | str) -> None:
        """Delete a finder.

        Args:
            finder: Finder, or its id.
        """
        self._request("DELETE", f"/finders/{_id(finder)}")

    def score(self, image: Image, finder: FinderInfo | str) -> FieldScores:
        """Compute the score maps of a field.

        Args:
            image: Field.
            finder: Finder, or its id.
        """
        upload = self._upload(image)
        params = {"finder": _id(finder)} | ({} if upload.path is None else {"path": upload.path})
        found = self._request("POST", "/score", params=params, content=upload.body, headers={"Accept": NPY})
        values = np.load(io.BytesIO(found.content), allow_pickle=False)
        return FieldScores.from_headers(values, found.headers)

    def regions(
        self,
        image: Image,
        finder: FinderInfo | str,
        *,
        count: int = 25,
        min_score: float | None = None,
        region_size_px: float | None = None,
        region_size_um: float | None = None,
        min_distance_px: float | None = None,
        pixel_size_nm: float | tuple[float, float] | None = None,
        stage: np.ndarray | None = None,
    ) -> list[FoundRegion]:
        """Find the regions of a field to image next, the highest score first.

        If there are none, a Python warning says why.

        Args:
            image: Field.
            finder: Finder, or its id.
            count: Largest number of regions of a class.
            min_score: Smallest score of a region; by default that of the finder.
            region_size_px: Height and width of a region, in pixels; by default the crop size of the model.
            region_size_um: The same in µm.
            min_distance_px: Smallest distance between the centres of two regions along one of the axes, in pixels; by
                default their size.
            pixel_size_nm: Pixel size in nm, one number or (y, x); by default that of the TIFF.
            stage: Matrix (2, 3) that maps x and y in pixels to the stage in µm (`fit_stage_matrix`).
        """
        upload = self._upload(image)
        given = {
            "finder": _id(finder),
            "path": upload.path,
            "count": count,
            "min_score": min_score,
            "region_size_px": region_size_px,
            "region_size_um": region_size_um,
            "min_distance_px": min_distance_px,
            "pixel_size_nm": None if pixel_size_nm is None else np.ravel(pixel_size_nm).tolist(),
            "stage": None if stage is None else _stage(stage),
        }
        params = {name: value for name, value in given.items() if value is not None}
        found = self._request("POST", "/regions", params=params, content=upload.body)
        if (remark := found.headers.get(REMARK_HEADER)) is not None:
            warnings.warn(json.loads(remark), stacklevel=2)
        return [FoundRegion(**each) for each in found.json()]

    def _annotate(
        self,
        path: str,
        image: Image,
        mask: Image | None,
        clicks: Clicks | None,
        radius_px: float | None,
        fields: Mapping[str, Any],
    ) -> FinderInfo:
        """Send an annotated image."""
        upload = self._upload(image)
        values = dict(fields)
        if clicks is not None:
            values["clicks"] = json.dumps(_clicks(clicks))
        if radius_px is not None:
            values["click_radius_px"] = str(radius_px)
        if upload.path is not None:
            values["path"] = upload.path
        files = {} if upload.path is not None else {"image": ("image", upload.body, NPY)}
        if mask is not None:
            files["mask"] = ("mask", _content(mask), NPY)
        # Without a file, the form would be sent in another encoding.
        found = _finder(self._request("POST", path, data=values, files=files or {"image": ("", b"")}).json())
        if found.warning is not None:
            warnings.warn(found.warning, stacklevel=3)
        return found

    def _upload(self, image: Image) -> _Upload:
        """Return the bytes of an image, or its path in the shared folder."""
        if self._share is not None and isinstance(image, str | Path):
            file = Path(image)
            root, real = os.path.realpath(self._share), os.path.realpath(file)
            if not Path(real).is_relative_to(root):
                raise UserError(
                    f"{file}: is not below the shared folder {self._share}; move it there, or leave share out"
                )
            return _Upload(b"", Path(real).relative_to(root).as_posix())
        return _Upload(_content(image), None)

    def _request(self, method: str, path: str, *, with_token: bool = True, **parts: Any) -> httpx2.Response:
        """Send a request, and return its answer.

        Raises:
            ServerBusyError: If the server is busy.
            UserError: If the server refuses the request, or cannot be reached.
        """
        headers = parts.pop("headers", {})
        if with_token:
            headers = {**headers, "Authorization": f"Bearer {self.token}"}
        try:
            found = self._http.request(method, self._url + path, headers=headers, **parts)
        # The messages have the reasons; the tracebacks of the library would bury them.
        except httpx2.TimeoutException:
            raise UserError(f"{self._url}: no answer within {self._timeout_s:g} s; raise timeout_s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise UserError(f"{self._url}: cannot be reached ({error}); start `stedfm serve`, or check url") from None
        if found.is_success:
            return found
        try:
            message = str(found.json()["error"])
        except (ValueError, KeyError, TypeError):
            message = f"{self._url}: answers with status {found.status_code}; check url"
        if found.status_code in (429, 503):
            raise ServerBusyError(message, float(found.headers.get("Retry-After", 1)))
        raise UserError(message)


def _id(finder: FinderInfo | str) -> str:
    return finder if isinstance(finder, str) else finder.id


def _stage(stage: np.ndarray) -> list[float]:
    """Return the six numbers of the matrix of a stage, row by row."""
    if np.shape(stage) != (2, 3):
        raise UserError(f"stage: has the shape {np.shape(stage)}; give a matrix of 2 x 3, as of fit_stage_matrix")
    return [float(each) for each in np.ravel(stage)]


def _address(url: str) -> str:
    """Return the address of a server without a slash at its end.

    Raises:
        UserError: If it is not an address.
    """
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url}: is not an address of a server; write http:// before it, as in {URL}")
    return url.rstrip("/")


def _finder(values: Mapping[str, Any]) -> FinderInfo:
    lists = {name: tuple(values[name]) for name in ("classes", "min_scores")}
    return FinderInfo(**{**values, **lists})


def _clicks(clicks: Clicks) -> list[list[Any]]:
    """Return clicks as lists.

    Raises:
        UserError: If they have another form.
    """
    try:
        return [[float(y), float(x), *name] for y, x, *name in clicks]
    except (TypeError, ValueError):
        raise UserError("clicks: is not a list of (y, x) or (y, x, class); write [(442, 72)] for one click") from None


def _content(image: Image) -> bytes:
    """Return the bytes of an array or a file.

    Raises:
        UserError: If it is neither, or cannot be read.
    """
    if isinstance(image, np.ndarray):
        return _npy(image)
    try:
        return Path(image).read_bytes()
    except TypeError:
        raise UserError(f"a {type(image).__name__} is not an image; give a NumPy array or a path") from None
    except OSError as error:
        raise UserError(f"{image}: cannot be read ({error.strerror}); check the path") from error


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    try:
        np.save(buffer, array, allow_pickle=False)
    except ValueError as error:
        raise UserError("the array holds Python objects; convert it to numbers") from error
    return buffer.getvalue()
