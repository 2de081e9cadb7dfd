"""Exported pairs, as those who read them do: Hugging Face's `load_dataset`, TRL's collator, Robometer's fields."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotate.preferences import FURTHER_BY, Pair, RunPart
from core.errors import UserError
from core.values import IMAGE_MARK
from tests.kits.files import hashes_of
from training.recipe import TinyConfig
from training.tiny import make_processor, make_tokenizer
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.folder import MANIFEST
from warehouse.exports.options import PreferencesOptions, Selection
from warehouse.exports.preferences import MOST_PICTURES, Moment, quality_label, shown_moments
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


def trajectories(row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return row["chosen_trajectory"], row["rejected_trajectory"]


def test_a_pair_is_of_one_task_and_split_and_the_chosen_is_ahead(written: Written) -> None:
    split_of = dict(written.lake.rows("SELECT episode_index, split FROM splits"))
    run_of = dict(written.lake.rows("SELECT episode_index, label_run FROM active_runs"))
    task_of = dict(written.lake.rows("SELECT episode_index, task FROM episodes"))
    label = {
        (episode, frame): progress
        for episode, frame, progress in written.lake.rows(
            "SELECT episode_index, frame_index, progress FROM active_progress"
        )
    }
    assert sum(map(len, written.rows.values())) > 10
    for split, rows in written.rows.items():
        for row in rows:
            for of_run in trajectories(row):
                episode = of_run["episode_index"]
                assert (split_of[episode], run_of[episode]) == (split, of_run["label_run"])
                assert task_of[episode] == of_run["task"] == row["task"]
                known = [label[episode, frame] for frame in of_run["frame_index"]]
                assert of_run["target_progress"] == pytest.approx(known)
            if row["why"] == "further":
                ahead, behind = (of_run["target_progress"][-1] for of_run in trajectories(row))
                assert ahead - behind == pytest.approx(row["margin"], abs=1e-6)
                assert row["margin"] >= FURTHER_BY - 1e-6


def test_each_picture_is_that_of_its_frame_and_both_runs_show_as_many(written: Written) -> None:
    for row in (row for rows in written.rows.values() for row in rows):
        chosen, rejected = trajectories(row)
        assert len(chosen["image_index"]) == len(rejected["image_index"]) <= MOST_PICTURES
        assert sorted(chosen["image_index"] + rejected["image_index"]) == list(range(len(row["images"])))
        answer = "Run A" if chosen["image_index"][0] == 0 else "Run B"
        assert row["chosen"][0]["content"][0]["text"] == answer
        assert row["rejected"][0]["content"][0]["text"] != answer


def test_neither_run_is_always_the_first(written: Written) -> None:
    first = [row["chosen_trajectory"]["image_index"][0] == 0 for rows in written.rows.values() for row in rows]
    assert 0.2 < np.mean(first) < 0.8


def test_trl_s_collator_takes_the_rows(written: Written) -> None:
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    rows = next(rows for rows in written.rows.values() if len(rows) > 1)[:2]
    texts = [c["text"] for row in rows for c in row["prompt"][0]["content"] if c["text"]]
    tiny = TinyConfig(vocabulary=400, max_px=64)
    processor = make_processor(make_tokenizer([*texts, "Run A", "Run B", IMAGE_MARK], tiny.vocabulary), tiny)
    batch = DataCollatorForVisionPreference(processor)(rows)
    # The chosen answers to both prompts, then the rejected ones; each shows the pictures of both runs
    assert batch["input_ids"].shape[0] == 4
    assert len(batch["image_grid_thw"]) == 2 * sum(len(row["images"]) for row in rows)
    answered = [
        processor.tokenizer.decode(ids[mask.bool()])
        for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
    ]
    for row, chosen, rejected in zip(rows, answered[:2], answered[2:], strict=True):
        assert row["chosen"][0]["content"][0]["text"] in chosen
        assert row["rejected"][0]["content"][0]["text"] in rejected


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


def test_runs_that_cannot_be_compared_are_told(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotate.preferences.FURTHER_BY", 1.1)
    nothing = Selection(allow=ANY, where="split = 'test_id'")
    with pytest.raises(UserError, match="none of the 1 episodes selected can be compared"):
        export(written.lake, nothing, tmp_path / "x", OPTIONS)


def test_of_one_picture_each_the_last_isshown_moments() -> None:
    moments = [Moment(frame, frame / 30, "id", "s", 0) for frame in (0, 10, 20, 30)]
    early, late = (RunPart("d", k, (frame,), (frame / 30,), None) for k, frame in enumerate((0, 30)))
    shown = shown_moments(Pair("further", late, early, 1.0), {("d", 0): moments, ("d", 1): moments})
    assert [m.frame for m in shown["chosen"]] == [30]
    assert [m.frame for m in shown["rejected"]] == [0]


def testquality_labels_are_robometer_s() -> None:
    one, other = (RunPart("d", k, (0,), (None,), None) for k in range(2))
    quality, outcome = Pair("quality", one, other, 0.6), Pair("outcome", one, other, 1.0)
    assert quality_label(quality, "chosen", True) == "successful"
    assert quality_label(quality, "rejected", True) == "suboptimal"
    assert quality_label(outcome, "rejected", False) == "failure"
    assert quality_label(quality, "rejected", None) is None
