"""Exported pairs, as those who read them do: Hugging Face's `load_dataset`, TRL's collator, Robometer's fields."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from annotate.preferences import Pair, RunPart
from tests.kits.files import hashes_of
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.export import MANIFEST
from warehouse.exports.options import PreferencesOptions, Selection
from warehouse.exports.preferences import quality_label
from warehouse.lake import Lake

ANY = ("unknown",)
export = EXPORT_KINDS["preferences"].export
OPTIONS = PreferencesOptions(per_run=6, seed=2)


@dataclass(frozen=True)
class Written:
    lake: Lake
    folder: Path
    rows: dict[str, list[dict[str, Any]]]  # by split


@pytest.fixture(scope="module")
def written(made_lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    import datasets

    patch = pytest.MonkeyPatch()
    patch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    folder = tmp_path_factory.mktemp("preferences")
    export(made_lake, Selection(allow=ANY), folder / "out", OPTIONS)
    opened: Any = datasets.load_dataset(str(folder / "out"), cache_dir=str(folder / "cache"))
    yield Written(made_lake, folder / "out", {split: list(opened[split]) for split in opened})
    patch.undo()


def test_equal_seeds_write_equal_bytes_and_others_other_pairs(written: Written, tmp_path: Path) -> None:
    export(written.lake, Selection(allow=ANY), tmp_path / "again", OPTIONS)
    assert hashes_of(tmp_path / "again") == hashes_of(written.folder)
    again = export(written.lake, Selection(allow=ANY), tmp_path / "again", OPTIONS)
    assert again.again
    export(written.lake, Selection(allow=ANY), tmp_path / "other", PreferencesOptions(per_run=6, seed=3))
    one, other = (json.loads((root / MANIFEST).read_text()) for root in (written.folder, tmp_path / "other"))
    hashes = [{f["path"]: f["sha256"] for f in m["files"]} for m in (one, other)]
    assert hashes[0] != hashes[1]
    assert one["samples"] == sum(map(len, written.rows.values()))


def testquality_labels_are_robometer_s() -> None:
    one, other = (RunPart("d", k, (0,), (None,), None) for k in range(2))
    quality, outcome = Pair("quality", one, other, 0.6), Pair("outcome", one, other, 1.0)
    assert quality_label(quality, "chosen", True) == "successful"
    assert quality_label(quality, "rejected", True) == "suboptimal"
    assert quality_label(outcome, "rejected", False) == "failure"
    assert quality_label(quality, "rejected", None) is None
