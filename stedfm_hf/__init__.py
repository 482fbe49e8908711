"""STED-FM, a foundation model for super-resolution STED microscopy, in the Hugging Face ecosystem.

Importing the package registers `stedfm` with the Auto classes of transformers and the pipelines
`stedfm-feature-extraction`, `stedfm-image-classification` and `stedfm-segmentation`. It imports neither transformers
nor torch: that is done by what needs them, and STED-FM is registered at that moment.
"""

import lazy_loader

from .modeling.late_registration import register_late

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

register_late(formats=f"{__name__}.images.formats")
