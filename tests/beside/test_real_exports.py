"""Exports of whole real datasets, opened by LeRobot."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from core.paths import Workspace
from pipeline.config import source_build
from tests.kits.lerobot_writer import v2_data
from tests.kits.made_corpus import built
from tests.kits.real_data import BESIDE
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.options import Selection
from warehouse.exports.verify_lerobot import verify
from warehouse.lake import Lake


@pytest.mark.slow
def test_rows_of_measured_rates_are_stamped(tmp_path):
    """so101's rows come 18.43 to 18.57 times a second; its videos play at 20."""
    root = BESIDE / "data/so101_bimanual_cloth"
    kind = EXPORT_KINDS["lerobot"]
    lake = Lake(
        built(source_build(root, "so101", None, None), Workspace(tmp_path / "workspace")).space,
        read_only=True,
    )
    chosen = Selection(allow=("unknown",))
    options = EXPORT_KINDS["lerobot"].options(fps=20.0)
    with pytest.raises(UserError, match="stamp all rows at one, such as --fps 19"):
        kind.export(lake, chosen, tmp_path / "out")
    export_result = kind.export(lake, chosen, tmp_path / "out", options)
    assert any(
        note.startswith("rows are stamped at 20 frames per second, though 18.431")
        for note in export_result.notes
    )
    # Its own file plays at 20, so that pictures are copied
    verified = verify(lake, chosen, tmp_path / "out", options)
    assert (verified.problems, verified.frames, verified.most_off) == ((), 916, 0.0)
    tables = [
        pq.ParquetFile(path).read() for path in sorted((tmp_path / "out/data").rglob("*.parquet"))
    ]
    source = [pq.ParquetFile(v2_data(root, episode)).read() for episode in (0, 10, 23, 24)]
    for name in ("observation.state", "action"):
        exported = np.concatenate([table[name].to_pylist() for table in tables])
        assert np.array_equal(
            exported, np.concatenate([table[name].to_pylist() for table in source])
        )
