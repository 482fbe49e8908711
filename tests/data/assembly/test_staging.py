"""Staging of the parts of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stedfm_hf.data.assembly.staging import StagedImage, Staging, images_of, part_name
from stedfm_hf.data.repository.layout import staged_schema
from stedfm_hf.runs import ItemStatus
from tests.data.assembled import noisy_crop


def test_a_part_records_whether_it_has_planes(tmp_path: Path) -> None:
    staging, image = Staging(tmp_path), StagedImage("a", "a", "", 2)
    plain = [noisy_crop(n, mask=np.eye(8, dtype=np.uint8)) for n in range(2)]
    marked = [plain[0], noisy_crop(1, region=np.eye(8))]
    for number, crops in enumerate((plain, marked)):
        staging.write_crops(part_name(number), crops, [image], {"a": ItemStatus("done")})
        part = staging.read(part_name(number))
        assert part.notes["planes"] is bool(number)
        assert images_of(part) == [image] and part.items == {"a": ItemStatus("done")}
        (rows,) = part.row_groups()
        assert rows.schema == staged_schema(planes=True) and rows.num_rows == 2
