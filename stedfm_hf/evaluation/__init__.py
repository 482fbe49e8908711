"""Comparisons of models with each other and with the simple baselines that every accuracy stands next to."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
