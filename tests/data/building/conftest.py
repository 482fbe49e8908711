from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.data.assembled import empty_sheets


@pytest.fixture(autouse=True)
def _empty_sheets() -> Iterator[None]:
    with empty_sheets():
        yield
