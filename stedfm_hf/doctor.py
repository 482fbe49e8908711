"""`stedfm doctor`: check the installation and name the command that fixes a problem."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import shutil
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from stedfm_hf.runs.errors import EXIT_DONE, EXIT_ITEMS_FAILED
from stedfm_hf.runs.result import Result
from stedfm_hf.runs.settings import settings, takes_settings

PACKAGE = "stedfm-hf"
LOW_MEMORY_BYTES = 2 * 10**9
LOW_DISK_BYTES = 5 * 10**9
HUB_SECONDS = 5.0
_CPU_INDEX = "--index-url https://download.pytorch.org/whl/cpu"
_REMOVE_TORCHVISION = "pip uninstall torchvision"


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        name: Name of the check.
        status: `ok`, `warn` (works, but not as well as it could) or `fail` (something will not work).
        detail: Result in words.
        fix: Command or step that fixes the problem or adds a missing package, or None.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    fix: str | None = None


@settings
class DoctorSettings:
    """Check this installation, and list how to fix problems."""


@dataclass(frozen=True)
class Diagnosis(Result):
    """Result of `check_installation`.

    Attributes:
        checks: Results of all checks.
    """

    checks: list[Check]

    @property
    def exit_status(self) -> int:
        """1 if something will not work."""
        return EXIT_ITEMS_FAILED if any(check.status == "fail" for check in self.checks) else EXIT_DONE

    def summary(self) -> str:
        """Return a line for each check, and one for its fix."""
        lines: list[str] = []
        for check in self.checks:
            lines.append(f"{check.status:<5} {check.name}: {check.detail}")
            lines += [] if check.fix is None else [f"      -> {check.fix}"]
        return "\n".join(lines)

    def to_json(self) -> list[dict[str, Any]]:
        """Return every check."""
        return [asdict(check) for check in self.checks]


@takes_settings(DoctorSettings)
def check_installation(settings: DoctorSettings) -> Diagnosis:
    """Check this installation; see `diagnose`."""
    return Diagnosis(diagnose())


def diagnose() -> list[Check]:
    """Check versions, devices, memory, disk, the Hub and harmful packages.

    Never raises: a check that raises is reported as failed. The Hub gets a few seconds to respond.

    Example:
        >>> all(check.fix for check in diagnose() if check.status == "fail")
        True
    """
    found: list[Check] = []
    for check in (_python, _packages, _imports, _torchvision, _harmful, _devices, _memory, _disk, _hub, _extras):
        try:
            found.extend(check())
        except Exception as error:  # the user wants to know which check fails
            name = check.__name__.strip("_")
            found.append(
                Check(
                    name, "fail", _first_line(error), "report this as a bug, with the output of `stedfm doctor --json`"
                )
            )
    return found


def _python() -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages() -> Iterator[Check]:
    """Compare every core dependency with the range that the package declares."""
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        yield Check(PACKAGE, "warn", "runs from a source tree without being installed", "pip install -e .")
        for name in ("torch", "transformers", "datasets", "huggingface_hub", "safetensors"):
            yield _compare_with(Requirement(name))
        return
    yield Check(PACKAGE, "ok", version)
    for requirement in map(Requirement, metadata.requires(PACKAGE) or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _compare_with(requirement)


def _compare_with(requirement: Requirement) -> Check:
    """Compare the installed version of a package with its requirement."""
    install = f'pip install "{requirement.name}{requirement.specifier}"'
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Check(requirement.name, "fail", "not installed", install)
    if requirement.specifier.contains(version, prereleases=True):
        return Check(requirement.name, "ok", version)
    return Check(requirement.name, "fail", f"{version}, but {requirement.specifier} is needed", install)


def _imports() -> Iterator[Check]:
    """Import the two packages that fail if binaries do not fit."""
    for name, fix in (
        ("torch", f"pip install --force-reinstall torch (without a GPU: add {_CPU_INDEX})"),
        ("transformers.trainer", f'pip install --upgrade "{PACKAGE}"; and see torchvision below'),
    ):
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken binary may raise anything
            yield Check(f"import {name}", "fail", _first_line(error), fix)
        else:
            yield Check(f"import {name}", "ok", "works")


def _torchvision() -> Iterator[Check]:
    """Check torchvision: a version that does not fit torch breaks transformers, and it is not needed."""
    if importlib.util.find_spec("torchvision") is None:
        yield Check("torchvision", "ok", "not installed (and not needed)")
        return
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # RuntimeError, ImportError and OSError have all been seen
        detail = f"installed, but does not fit this torch ({_first_line(error)}): transformers cannot be imported"
        yield Check("torchvision", "fail", detail, _REMOVE_TORCHVISION)
    else:
        yield Check("torchvision", "ok", "installed and fits (not needed)")


def _harmful() -> Iterator[Check]:
    """Check timm and lightly: both require torchvision; timm without it breaks the `accelerate` command."""
    for name in ("timm", "lightly"):
        if importlib.util.find_spec(name) is None:
            yield Check(name, "ok", "not installed (and not needed)")
        else:
            yield Check(name, "warn", "installed: not needed, and it pulls in torchvision", f"pip uninstall {name}")


def _devices() -> Iterator[Check]:
    """Report the processor, and the GPUs that torch can use; warn if it cannot use an NVIDIA GPU."""
    import torch

    features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = any(features.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    speed = "fast bfloat16" if fast else "no fast bfloat16 (float32 is as fast)"
    yield Check(
        "cpu", "ok", f"{features.get('cpu_name') or platform.processor()}, {torch.get_num_threads()} threads, {speed}"
    )
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            with torch.cuda.device(index):
                half = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bfloat16"
            detail = f"{torch.cuda.get_device_name(index)}, {_gigabytes(free)} of {_gigabytes(total)} free, {half}"
            yield Check(f"cuda:{index}", "ok", detail)
    elif torch.backends.mps.is_available():
        yield Check("mps", "ok", "Apple GPU")
    elif _has_nvidia_gpu():
        fix = "install the torch that fits your driver: https://pytorch.org/get-started/locally"
        yield Check("cuda", "warn", f"there is an NVIDIA GPU, but torch {torch.__version__} cannot use it", fix)
    else:
        yield Check("gpu", "ok", "none: the CPU is used")


def _has_nvidia_gpu() -> bool:
    """Return whether `nvidia-smi` lists a GPU; False if the command is missing or fails."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    try:
        return b"GPU" in subprocess.run([command, "-L"], capture_output=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return False


def _memory() -> Iterator[Check]:
    """Report the free memory, and warn below `LOW_MEMORY_BYTES`."""
    import psutil

    memory = psutil.virtual_memory()
    detail = f"{_gigabytes(memory.available)} of {_gigabytes(memory.total)} free"
    if memory.available < LOW_MEMORY_BYTES:
        yield Check("memory", "warn", detail, "close other programs, or use --batch-size 1")
    else:
        yield Check("memory", "ok", detail)


def _disk() -> Iterator[Check]:
    from huggingface_hub import constants

    from stedfm_hf.runs.download import cache_folder

    yield _folder("Hugging Face cache", Path(constants.HF_HOME), "HF_HOME")
    yield _folder("stedfm cache", cache_folder(), "STEDFM_CACHE")


def _folder(name: str, folder: Path, variable: str) -> Check:
    """Check that a cache folder, or its nearest existing parent, can be written and has space."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    elsewhere = f"set the environment variable {variable} to a writable folder with enough space"
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Check(name, "fail", f"{folder}: cannot be written ({error.strerror})", elsewhere)
    detail = f"{folder}, {_gigabytes(free)} free"
    return Check(name, "warn", detail, elsewhere) if free < LOW_DISK_BYTES else Check(name, "ok", detail)


def _hub() -> Iterator[Check]:
    """Check that the Hub responds within `HUB_SECONDS`; it is not asked while HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        yield Check(
            "hub", "ok", "not checked: HF_HUB_OFFLINE is set, only cached models are used", "unset HF_HUB_OFFLINE"
        )
        return
    address = constants.ENDPOINT
    problem = _within(HUB_SECONDS, lambda: _ask(f"{address}/api/models?limit=1"))
    if problem is None:
        yield Check("hub", "ok", f"{address} responds")
    else:
        fix = "check the connection (HTTPS_PROXY, HF_ENDPOINT); local folders and cached models work without it"
        yield Check("hub", "warn", f"{address} does not respond ({problem})", fix)


def _ask(url: str) -> str | None:
    """Return the problem, or None if the server responds."""
    try:
        with urllib.request.urlopen(url, timeout=HUB_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        return f"HTTP status {error.code}"
    except Exception as error:  # no network error may end the check
        return _first_line(error)


def _within(seconds: float, ask: Callable[[], str | None]) -> str | None:
    """Call a function in a thread that may be abandoned: a name lookup can exceed any timeout of a socket."""
    results: list[str | None] = []
    thread = threading.Thread(target=lambda: results.append(ask()), daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else f"no response within {seconds:g} s"


def _extras() -> Iterator[Check]:
    """List the extras; a missing one is not a problem."""
    try:
        requirements = [Requirement(text) for text in metadata.requires(PACKAGE) or ()]
        extras = metadata.metadata(PACKAGE).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return
    for extra in extras:
        if extra in ("all", "dev", "docs"):
            continue
        needed = [r.name for r in requirements if r.marker and r.marker.evaluate({"extra": extra})]
        missing = [name for name in needed if not _installed(name)]
        if missing:
            detail = f"not installed ({', '.join(missing)})"
            yield Check(f"extra [{extra}]", "ok", detail, f'pip install "{PACKAGE}[{extra}]"')
        else:
            yield Check(f"extra [{extra}]", "ok", "installed")


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _gigabytes(size: int) -> str:
    return f"{size / 10**9:.1f} GB"


def _first_line(error: BaseException) -> str:
    """Return the type and the first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
