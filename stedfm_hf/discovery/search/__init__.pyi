from .searching import SearchResult, search

__all__ = ["SearchResult", "search"]
