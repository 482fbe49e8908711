from .client import Client, ServerBusyError
from .evaluation.command import evaluate_find
from .evaluation.results import FindEvaluation
from .examples import Examples
from .finder_files import StoredFinder, load_finder
from .finders import Finder
from .finding import find
from .fitting import FinderResult, fit_finder
from .imspector import ImspectorMicroscope
from .loop.evaluating import LoopResult, evaluate_acquisition
from .loop.power import PowerRow, measure_power
from .loop.scenes import Scene, make_scene
from .microscope import Frame, Microscope
from .regions import Region, find_regions
from .result import FindResult
from .score_maps import score_map
from .serving.command import serve
from .serving.messages import FieldScores, FinderInfo, FoundRegion
from .simulated_microscope import Dose, SimulatedMicroscope
from .stage import Stage, fit_stage_matrix

__all__ = [
    "Client",
    "Dose",
    "Examples",
    "FieldScores",
    "FindEvaluation",
    "FindResult",
    "Finder",
    "FinderInfo",
    "FinderResult",
    "FoundRegion",
    "Frame",
    "ImspectorMicroscope",
    "LoopResult",
    "Microscope",
    "PowerRow",
    "Region",
    "Scene",
    "ServerBusyError",
    "SimulatedMicroscope",
    "Stage",
    "StoredFinder",
    "evaluate_acquisition",
    "evaluate_find",
    "find",
    "find_regions",
    "fit_finder",
    "fit_stage_matrix",
    "load_finder",
    "make_scene",
    "measure_power",
    "score_map",
    "serve",
]
