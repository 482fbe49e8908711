"""Counts and times of the requests of a server."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from typing import Any

import numpy as np

KEPT = 1000
"""Number of the last requests of a route whose times are kept."""


class Metrics:
    """Counts by route and status, and times of the last requests of each route.

    Example:
        >>> metrics = Metrics()
        >>> metrics.add("POST /score", 200, 0.25)
        >>> metrics.to_json()["POST /score"]
        {'status': {'200': 1}, 'seconds': {'p50': 0.25, 'p99': 0.25, 'max': 0.25}}
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._seconds: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))

    def add(self, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: Method and path of the route.
            status: Status of its response.
            seconds: Time from the first byte of the request to the last byte of the response.
        """
        with self._lock:
            self._counts[route][str(status)] += 1
            self._seconds[route].append(seconds)

    def to_json(self) -> dict[str, Any]:
        """Return the counts by status, and the median, 99th percentile and maximum of the times, by route."""
        with self._lock:
            return {
                route: {
                    "status": dict(sorted(counts.items())),
                    "seconds": {
                        name: round(float(np.quantile(self._seconds[route], level)), 6)
                        for name, level in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
                    },
                }
                for route, counts in sorted(self._counts.items())
            }
