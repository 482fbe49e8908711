"""Indexes of embeddings on disk: built by `stedfm index`, searched exactly or approximately."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
