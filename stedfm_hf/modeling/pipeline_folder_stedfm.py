"""Folder of a pipeline: its index and code, for this package and for `trust_remote_code=True` without it."""

import json
import shutil
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any

COMPONENTS: dict[str, tuple[str, str]] = {
    "unet": ("unet_stedfm", "StedFmUNet"),
    "encoder": ("component_loaders_stedfm", "EncoderLoader"),
    "image_processor": ("component_loaders_stedfm", "ImageProcessorLoader"),
}
"""Module and class of every component but the scheduler; the module is a file in the folder of the component."""

CODE = (
    "generation_pipeline_stedfm.py",
    "conditioning_stedfm.py",
    "pipeline_folder_stedfm.py",
    "sampling_stedfm.py",
)
"""Files of the pipeline itself."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")


def is_in_package() -> bool:
    """Return whether this code is that of an installed package, not that of a folder."""
    return not __name__.startswith("diffusers_modules")


def use_package_classes(index: dict[str, Any], class_name: str, source: Any) -> None:
    """Replace the classes in the content of `model_index.json` by those of this package.

    Args:
        index: Content, which is changed.
        class_name: Name of the class of the pipeline.
        source: Folder, for messages.

    Raises:
        ValueError: If it is another pipeline, or has components of other classes.
    """
    saved = index.get("_class_name")
    name = saved[-1] if isinstance(saved, list) and saved else saved
    if name != class_name:
        raise ValueError(f"{source}: is a {name}, not a {class_name}")
    for part, found in index.items():
        if not (isinstance(found, list) and len(found) == 2 and isinstance(found[1], str)) or part == "_class_name":
            continue
        expected = ("diffusers", found[1]) if part == "scheduler" else COMPONENTS.get(part)
        if tuple(found) != expected:
            raise ValueError(
                f"{source}: model_index.json names {found[0]}.{found[1]} as {part}, which is not a class of this "
                "pipeline; its code is not run"
            )
        if part in COMPONENTS:  # diffusers takes a class from a module that is imported
            index[part] = [import_module(f"{__name__.rpartition('.')[0]}.{found[0]}").__name__, found[1]]
    index["_class_name"] = class_name


def refuse_pickles(folder: Path) -> None:
    """Raise a ValueError if a component in a folder has a pickle."""
    pickles = [path.name for part in COMPONENTS for path in (folder / part).glob("*") if path.suffix in _PICKLES]
    if pickles:
        raise ValueError(f"{folder}: holds pickles ({', '.join(sorted(pickles))}), which can run code; remove them")


def complete_pipeline_folder(folder: Path, class_name: str, components: Collection[str]) -> None:
    """Name the classes in `model_index.json` by their files, and write these files.

    Args:
        folder: Folder of a pipeline, with its components.
        class_name: Name of the class of the pipeline.
        components: Names of the components that the pipeline has.
    """
    code, path = Path(__file__).parent, folder / "model_index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["_class_name"] = [Path(CODE[0]).stem, class_name]
    for part, (module, name) in COMPONENTS.items():
        if part in components:
            index[part] = [module, name]
            if (folder / part).is_dir():
                shutil.copyfile(code / f"{module}.py", folder / part / f"{module}.py")
    _write(path, index)
    for name in CODE:
        shutil.copyfile(code / name, folder / name)
    # The folder of the image processor has the code of all components, see `component_loaders_stedfm`.
    for file in folder.glob("encoder/*.py"):
        shutil.copyfile(file, folder / "image_processor" / file.name)
    for file in (folder / "unet" / "config.json", folder / "scheduler" / "scheduler_config.json"):
        if file.is_file():
            _write(file, json.loads(file.read_text(encoding="utf-8")))


def _write(file: Path, settings: dict[str, Any]) -> None:
    """Write a configuration without the folder from which it was loaded, which is nobody else's business."""
    settings = {name: value for name, value in settings.items() if name != "_name_or_path"}
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


__all__ = ["complete_pipeline_folder", "is_in_package", "refuse_pickles", "use_package_classes"]
