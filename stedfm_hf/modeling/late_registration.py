"""Register STED-FM with transformers when transformers is imported, which takes seconds and is often not needed."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def register_late(formats: str) -> None:
    """Import `registration` now if transformers is imported, or else when it is imported.

    Args:
        formats: Module of further image formats, which pipelines and processors read from then on.
    """
    if "transformers" in sys.modules:
        _register(formats)
    else:
        sys.meta_path.insert(0, _Watch(formats))


def _register(formats: str) -> None:
    try:
        importlib.import_module(".registration", __package__)
        importlib.import_module(".io_registry_stedfm", __package__).register_formats(formats)
    except Exception as error:
        # Part of transformers cannot be imported (a torchvision that does not fit the torch does that). What does not
        # need it still works, `stedfm doctor` above all, which says what is wrong.
        warnings.warn(f"STED-FM is not registered with transformers: {error}; run `stedfm doctor`", stacklevel=2)


class _Watch(MetaPathFinder):
    """Import hook that registers when transformers is imported and no module of this package is partially imported.

    The modules import transformers, and `registration` imports the modules: called in between, it would find partially
    imported ones.
    """

    def __init__(self, formats: str) -> None:
        self.formats, self.running = formats, 0

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Find transformers and the modules of this package with the other finders, and wrap their loaders.

        All other modules are left to the other finders (None).
        """
        if name != "transformers" and not name.startswith(f"{__package__}."):
            return None
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, found), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _WatchedLoader(spec.loader, self)
        return spec

    def after_a_module(self) -> None:
        if self.running == 0 and "transformers" in sys.modules:
            sys.meta_path.remove(self)
            _register(self.formats)


class _WatchedLoader(Loader):
    """Loader that reports the start and end of the execution of a module; the module keeps its loader."""

    def __init__(self, loader: Loader, watch: _Watch) -> None:
        self.loader, self.watch = loader, watch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module with its own loader, and register afterwards if no watched module is still running."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.watch.running += 1
        try:
            self.loader.exec_module(module)
        finally:
            self.watch.running -= 1
        self.watch.after_a_module()
