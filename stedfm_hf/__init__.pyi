from .images import SeriesInfo as SeriesInfo
from .images import StedImage as StedImage
from .images import list_series as list_series
from .images import read_image as read_image
from .modeling.channels import adapt_channels as adapt_channels
from .modeling.configuration_stedfm import StedFmConfig as StedFmConfig
from .modeling.generation_pipeline_stedfm import StedFmGenerationPipeline as StedFmGenerationPipeline
from .modeling.image_processing_stedfm import StedFmImageProcessor as StedFmImageProcessor
from .modeling.modeling_stedfm import StedFmBackbone as StedFmBackbone
from .modeling.modeling_stedfm import StedFmForImageClassification as StedFmForImageClassification
from .modeling.modeling_stedfm import StedFmModel as StedFmModel
from .modeling.modeling_stedfm_mae import StedFmForPreTraining as StedFmForPreTraining
from .modeling.modeling_stedfm_segmentation import StedFmForSemanticSegmentation as StedFmForSemanticSegmentation
from .modeling.unet_stedfm import StedFmUNet as StedFmUNet

__version__: str
