"""The app in the browser (`stedfm app`), for people without a terminal; the Space runs the same code."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
