"""Tabs of the app: each is one module with one function, which adds the tab to the page."""

from collections.abc import Callable

from stedfm_hf.app.page import Page
from stedfm_hf.app.tabs.classify import add_classify
from stedfm_hf.app.tabs.compare import add_compare
from stedfm_hf.app.tabs.explain import add_explain
from stedfm_hf.app.tabs.find import add_find
from stedfm_hf.app.tabs.generate import add_generate
from stedfm_hf.app.tabs.groups import add_groups
from stedfm_hf.app.tabs.reconstruct import add_reconstruct
from stedfm_hf.app.tabs.segment import add_segment
from stedfm_hf.app.tabs.similar import add_similar

TABS: dict[str, Callable[[Page], None]] = {
    "Reconstruct": add_reconstruct,
    "Find similar": add_similar,
    "Find structures": add_find,
    "Classify": add_classify,
    "Segment": add_segment,
    "Explain": add_explain,
    "Compare two images": add_compare,
    "Groups": add_groups,
    "Generate": add_generate,
}
"""Function of each tab, by its title, in the order of the page."""
