"""One command that simulates, trains, embeds, compares and reports, in a few minutes on two cores."""

from stedfm_hf.demo.material import Sizes
from stedfm_hf.demo.run import DemoResult, run_demo

__all__ = ["DemoResult", "Sizes", "run_demo"]
