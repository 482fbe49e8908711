from .attention import AGGREGATES, attention_maps, attention_rows, attentions, reference_maps
from .explanation import explain
from .matching import Correspondence, correspondence
from .patch_clusters import cluster_margins
from .patch_pca import PatchPca, foreground_patches, rescale_components
from .relevance import LogitMaps, check_exact, logit_maps, patch_logits
from .result import ExplainResult
from .similarity import compare_tokens, token_similarity
from .zero_shot import mass_mask, zero_shot_mask

__all__ = [
    "AGGREGATES",
    "Correspondence",
    "ExplainResult",
    "LogitMaps",
    "PatchPca",
    "attention_maps",
    "attention_rows",
    "attentions",
    "check_exact",
    "cluster_margins",
    "compare_tokens",
    "correspondence",
    "explain",
    "foreground_patches",
    "logit_maps",
    "mass_mask",
    "patch_logits",
    "reference_maps",
    "rescale_components",
    "token_similarity",
    "zero_shot_mask",
]
