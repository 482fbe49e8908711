from .building import IndexResult, index
from .opened import Index, open_index

__all__ = ["Index", "IndexResult", "index", "open_index"]
