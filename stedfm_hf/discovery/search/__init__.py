"""Search of an index: queries, ranking, and results for images and for places in images."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
