"""Exported pairs, as those who read them do: Hugging Face's `load_dataset`, TRL's collator, Robometer's fields."""

import json
from pathlib import Path
from typing import Any

import pytest

from annotate.preferences import Pair, RunPart
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.export import MANIFEST
from warehouse.exports.options import Selection
from warehouse.exports.sample_kinds import quality_label
from warehouse.lake import Lake

ANY = ("unknown",)
export = EXPORT_KINDS["preferences"].export


def test_other_seeds_draw_other_pairs(
    made_lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    options = EXPORT_KINDS["preferences"].options
    for name, seed in (("one", 2), ("other", 3)):
        out = tmp_path / name
        export(made_lake, Selection(allow=ANY), out, options(per_run=6, seed=seed))
    first_manifest, other_manifest = (
        json.loads((tmp_path / name / MANIFEST).read_text()) for name in ("one", "other")
    )
    hashes = []
    for manifest in (first_manifest, other_manifest):
        hashes.append({file["path"]: file["sha256"] for file in manifest["files"]})
    assert hashes[0] != hashes[1]
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    opened: Any = datasets.load_dataset(str(tmp_path / "one"), cache_dir=str(tmp_path / "cache"))
    assert first_manifest["samples"] == sum(map(len, opened.values()))


def testquality_labels_are_robometer_s() -> None:
    first_part, other_part = (RunPart("d", k, (0,), (None,), None) for k in range(2))
    quality = Pair("quality", first_part, other_part, 0.6)
    outcome = Pair("outcome", first_part, other_part, 1.0)
    assert quality_label(quality, "chosen", True) == "successful"
    assert quality_label(quality, "rejected", True) == "suboptimal"
    assert quality_label(outcome, "rejected", False) == "failure"
    assert quality_label(quality, "rejected", None) is None
