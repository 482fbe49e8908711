"""Result of `stedfm explain`, and the names of its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from stedfm_hf.runs import counted
from stedfm_hf.runs.result import OutputResult

TABLE, REPORT = "explanations.parquet", "report.html"


@dataclass(frozen=True)
class ExplainResult(OutputResult):
    """Result of `explain`: the folder with maps and report.

    Attributes:
        table: Table of the explained images.
    """

    table: pa.Table

    def summary(self) -> str:
        """Return the number of explained images, and where the report is."""
        method = self.manifest.settings["method"]
        return (
            f"{self.output}: {counted(self.table.num_rows, 'map')} ({method}) from {self.describe_items('file')}\n"
            f"{self.output / REPORT}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return counts of items and maps, and the report."""
        return super().to_json() | {"maps": self.table.num_rows, "report": str(self.output / REPORT)}
