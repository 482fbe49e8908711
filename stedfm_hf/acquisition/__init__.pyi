from .examples import Examples
from .finder_files import StoredFinder, load_finder
from .finders import Finder
from .finding import find
from .fitting import FinderResult, fit_finder
from .regions import Region, find_regions
from .result import FindResult
from .score_maps import score_map
from .stage import Stage, fit_stage_matrix

__all__ = [
    "Examples",
    "FindResult",
    "Finder",
    "FinderResult",
    "Region",
    "Stage",
    "StoredFinder",
    "find",
    "find_regions",
    "fit_finder",
    "fit_stage_matrix",
    "load_finder",
    "score_map",
]
