"""What a model looks at: logit maps, attention maps, principal components of patches, and similar patches."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
