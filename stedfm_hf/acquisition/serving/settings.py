"""Settings of `serve`."""

from __future__ import annotations

from pathlib import Path

from stedfm_hf.exports.backends import check_backend
from stedfm_hf.runs import UserError, options
from stedfm_hf.runs.settings import option, settings


@settings
class ServeSettings:
    """Serve finders of structures to the program of a microscope.

    A client sends annotated images and gets a finder. Then it sends fields, and gets score maps or the regions to
    image next. Finders are kept on disk. Programs on this computer need no token; another address needs one.
    """

    model: str | Path | None = options.model()
    state: str | Path = option(
        Path("finders"), affects_result=False, metavar="DIR", help="Folder of the finders of all clients."
    )
    share: str | Path | None = option(
        None,
        affects_result=False,
        metavar="DIR",
        help="Folder from which the server reads images by their path, for clients on this computer.",
    )
    tokens: str | Path | None = option(
        None,
        affects_result=False,
        metavar="FILE",
        help="Text file with the token of one client in each line; or set STEDFM_TOKENS (several: separated by "
        "commas).",
    )
    host: str = options.host("any but this computer's needs tokens")
    port: int = options.port(8321)
    max_mb: float = option(
        64.0,
        affects_result=False,
        minimum=0.001,
        group=options.SERVER,
        help="Size of the largest request, in MB (10^6 bytes).",
    )
    max_megapixels: float = options.max_megapixels()
    max_seconds: float = options.max_seconds()
    max_waiting: int = options.max_waiting(8)
    max_per_client: int = option(
        4,
        affects_result=False,
        minimum=1,
        group=options.SERVER,
        help="Number of requests of one client at the same time.",
    )
    max_finders: int = option(
        32, affects_result=False, minimum=1, group=options.SERVER, help="Number of finders of one client."
    )
    max_images: int = option(
        32, affects_result=False, minimum=1, group=options.SERVER, help="Number of annotated images of one finder."
    )
    tile_size: str | int | None = options.tile_size()
    tile_overlap: int | None = options.tile_overlap()
    batch_size: int = options.batch_size(8)
    precision: str = options.precision(backends=True)
    device: str = options.device()
    backend: str = options.backend()

    def check(self) -> None:
        """Refuse a backend that cannot run, and a shared folder that does not exist."""
        check_backend(self.backend, self.precision, self.device)
        if self.share is not None and not Path(self.share).is_dir():
            raise UserError(f"--share {self.share}: no such folder; check the path")
