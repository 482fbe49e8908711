"""Find structures in overviews: finders, score maps and regions to image next."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
