"""Recordings for Rerun, opened with its own reader."""

from pathlib import Path

from tests.kits.tiny_lerobot import CAMERA
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.export import Exported
from warehouse.exports.options import Selection
from warehouse.lake import Lake

ALL = Selection(allow=("unknown",))


def export(
    lake: Lake, out: Path, selection: Selection = ALL, **options: float | int | None
) -> Exported:
    return EXPORT_KINDS["rerun"].export(
        lake, selection, out, EXPORT_KINDS["rerun"].options.model_validate(options)
    )


def rows(path: Path) -> dict[str, int]:
    """Rows of each entity, by way of the index that the file ends with."""
    from rerun.chunk import RrdReader

    row_counts: dict[str, int] = {}
    for chunk in RrdReader(path).store().stream():
        row_counts[chunk.entity_path] = row_counts.get(chunk.entity_path, 0) + chunk.num_rows
    return row_counts


def columns(path: Path, entity: str) -> dict[str, list]:
    from rerun.chunk import RrdReader

    [chunk] = [c for c in RrdReader(path).stream() if c.entity_path == entity]
    return chunk.to_record_batch().to_pydict()


def test_fewer_pictures_or_none(made_lake: Lake, tmp_path: Path):
    one_episode = Selection(datasets=("tiny",), episodes=(0,), allow=("unknown",))
    export(made_lake, tmp_path / "few", one_episode, pictures_per_s=1.25, max_px=32)
    assert columns(tmp_path / "few/tiny/000000.rrd", f"/cameras/{CAMERA}")["frame"] == [
        0,
        4,
        8,
        12,
        16,
        20,
        23,
    ]
    export(made_lake, tmp_path / "none", one_episode, pictures_per_s=0)
    assert f"/cameras/{CAMERA}" not in rows(tmp_path / "none/tiny/000000.rrd")
