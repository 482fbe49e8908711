"""Apply models to files, folders and data sets: tables of embeddings and classes, maps and masks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
