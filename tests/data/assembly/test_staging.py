"""Parts of earlier versions of the package, which knew no planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from stedfm_hf.data.assembly.staging import Part, StagedImage, Staging
from stedfm_hf.data.repository.layout import crops_to_table, staged_schema
from stedfm_hf.data.repository.planes import PLANE_COLUMNS
from stedfm_hf.runs import ItemStatus
from tests.data.assembled import noisy_crop


def part() -> Part:
    return Part((StagedImage("a", "a", "", 2),), {"a": ItemStatus("done")})


def test_a_part_says_whether_it_has_planes(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    plain = [noisy_crop(n, mask=np.eye(8, dtype=np.uint8)) for n in range(2)]
    marked = [plain[0], noisy_crop(1, region=np.eye(8))]
    for number, crops in enumerate((plain, marked)):
        staging.write(number, crops, part())
        assert staging.read_part(number).planes is bool(number)
        assert sum(rows.num_rows for rows in staging.read_rows(number)) == 2


def test_a_part_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    staging, crops = Staging(tmp_path), [noisy_crop(n, mask=np.eye(8, dtype=np.uint8)) for n in range(2)]
    staging.write(0, crops, part())
    path = staging.path(0)
    old = pq.read_table(path).drop_columns(list(PLANE_COLUMNS))
    pq.write_table(old, path)
    (rows,) = staging.read_rows(0)
    assert rows.schema == staged_schema(planes=True) and rows.select(old.schema.names).equals(
        crops_to_table(crops).select(old.schema.names)
    )
    assert rows["mask_planes"].null_count == 2
