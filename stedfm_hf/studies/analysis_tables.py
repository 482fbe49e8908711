"""Tables of an analysis."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stedfm_hf.runs.files import atomic_path
from stedfm_hf.studies.analysis import Analysis


def write_tables(folder: Path, analysis: Analysis) -> None:
    """Write the tables of an analysis as Parquet.

    Args:
        folder: Folder to write to.
        analysis: The analysis.
    """
    for name, frame in tables_of(analysis).items():
        with atomic_path(folder / f"{name}.parquet") as temporary:
            table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
            pq.write_table(table, temporary, compression="zstd")


def tables_of(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """Return the tables of an analysis by name; those that a task does not have are left out.

    Args:
        analysis: The analysis.
    """
    scores = analysis.scores
    rows = [
        {
            "participant": participant,
            "group": group,
            "score": scores.values[row, column],
            "low": scores.low[row, column],
            "high": scores.high[row, column],
        }
        for row, participant in enumerate(scores.participants)
        for column, group in enumerate(scores.groups)
    ]
    found = {
        "scores": pd.DataFrame(rows, columns=["participant", "group", "score", "low", "high"]),
        "participants": analysis.kept.participants,
    }
    if analysis.confusion:
        found["confusion"] = pd.DataFrame(
            [
                {"group": group, "truth": truth, "answer": answer, "answers": int(counts.loc[truth, answer])}
                for group, counts in analysis.confusion.items()
                for truth in counts.index
                for answer in counts.columns
            ]
        )
    if not analysis.detection.empty:
        found["detection"] = analysis.detection
    if (fitted := analysis.strengths) is not None:
        group = {each.id: each.group for each in analysis.study.stimuli}
        found["strengths"] = pd.DataFrame(
            {
                "stimulus": fitted.items,
                "group": [group[each] for each in fitted.items],
                "strength": fitted.strength,
                "low": fitted.low,
                "high": fitted.high,
                "wins": fitted.wins.astype(int),
                "comparisons": fitted.comparisons.astype(int),
            }
        ).sort_values("strength", ascending=False)
        found["rankings"] = pd.DataFrame(
            [
                {"participant": name, "rank": rank, "stimulus": stimulus, "group": group[stimulus]}
                for name, order in analysis.rankings.items()
                for rank, stimulus in enumerate(order, 1)
            ],
            columns=["participant", "rank", "stimulus", "group"],
        )
    return found
