"""Result of `stedfm find`, and the names of its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stedfm_hf.discovery.index.naming import item_name
from stedfm_hf.runs import counted
from stedfm_hf.runs.result import OutputResult
from stedfm_hf.runs.wording import text_table

if TYPE_CHECKING:
    import pyarrow as pa

TABLE, CSV = "regions.parquet", "regions.csv"
_LISTED = 5


@dataclass(frozen=True)
class FindResult(OutputResult):
    """Result of `find`: the folder with maps, regions and figures.

    Attributes:
        table: Table of the regions.
    """

    table: pa.Table

    def summary(self) -> str:
        """Return the regions with the highest scores, or why there are none, and where the results are."""
        names = ["path", "label", "score", "centre_y_px", "centre_x_px"]
        rows = self.table.sort_by([("score", "descending")]).slice(0, _LISTED).to_pylist()
        cells = [
            [item_name(row), row["label"], f"{row['score']:.3f}", *(f"{row[name]:g}" for name in names[3:])]
            for row in rows
        ]
        first = text_table(names, cells) + "\n" if rows else self._why_none()
        return (
            f"{first}{self.output / TABLE}: {counted(self.table.num_rows, 'region')} in {self.describe_items('file')}"
        )

    def _why_none(self) -> str:
        """Return why the first files have no region."""
        reasons = [(name, item.reason) for name, item in self.manifest.items.items() if item.state == "done"]
        return "".join(f"{name}: {reason}\n" for name, reason in reasons[:_LISTED] if reason)

    def to_json(self) -> dict[str, Any]:
        """Return the regions as rows."""
        return super().to_json() | {"regions": self.table.to_pylist()}
