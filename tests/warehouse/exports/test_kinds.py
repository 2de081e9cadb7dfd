"""What holds of every kind: an export is resumed, kept or refused, and equal input gives equal bytes."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from tests.kits.files import files_of
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.export import MANIFEST
from warehouse.exports.options import Selection
from warehouse.lake import Lake

ANY = Selection(allow=("unknown",))
OTHER = Selection(allow=("unknown",), min_confidence=0.01)


@pytest.mark.parametrize("name", EXPORT_KINDS)
def test_an_export_is_kept_replaced_or_refused(made_lake: Lake, tmp_path: Path, name: str) -> None:
    kind = EXPORT_KINDS[name]
    (tmp_path / "out").mkdir()
    out = tmp_path / "out"
    if kind.is_file:
        out /= "export"
    assert not kind.export(made_lake, ANY, out).again
    written = files_of(tmp_path / "out")
    assert kind.export(made_lake, ANY, out).again
    with pytest.raises(UserError, match="holds another export"):
        kind.export(made_lake, OTHER, out)
    assert files_of(tmp_path / "out") == written
    assert not kind.export(made_lake, OTHER, out, overwrite=True).again
    assert files_of(tmp_path / "out") != written
    assert not kind.export(made_lake, ANY, out, overwrite=True).again
    # Rerun writes times and ids of its own
    assert kind.name == "rerun" or files_of(tmp_path / "out") == written
    if not kind.is_file:
        files = [path for path in out.rglob("*.*") if path.name != MANIFEST]
        min(files).unlink()
        with pytest.raises(UserError, match="is missing or has changed"):
            kind.export(made_lake, ANY, out)


@pytest.mark.parametrize("name", EXPORT_KINDS)
def test_what_is_no_export_is_never_replaced(made_lake: Lake, tmp_path: Path, name: str) -> None:
    kind = EXPORT_KINDS[name]
    person = tmp_path / "mine.json"
    person.write_text('{"version": 2, "episodes": {}}')
    table = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"a": [1]}), table)
    written = files_of(tmp_path)
    places = {tmp_path: "is not empty", person: "is a file", table: "is a file"}
    if kind.is_file:
        ours = "is no export of ours"
        places = {tmp_path: "is a folder", person: ours, table: ours}
    for out, reason in places.items():
        for overwrite in (False, True):
            with pytest.raises(UserError, match=reason):
                kind.export(made_lake, ANY, out, overwrite=overwrite)
    assert files_of(tmp_path) == written


@pytest.mark.parametrize("name", EXPORT_KINDS)
@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"label_run": "gone"}, "no episode selected has a label of the run 'gone'"),
        ({"cameras": ("gone",)}, "tiny episode 0 has no camera gone; it has "),
    ],
)
def test_a_label_run_and_a_camera_that_are_not_there_are_refused(
    made_lake: Lake, tmp_path: Path, name: str, choice: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        EXPORT_KINDS[name].export(made_lake, ANY.model_copy(update=choice), tmp_path / "out")
    assert not (tmp_path / "out").exists()
