"""Images from files and folders: their formats, the walk over inputs, and what is in a file."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
