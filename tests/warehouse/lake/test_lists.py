"""Scores in lists."""

from pathlib import Path

from core.paths import Workspace
from tests.kits.lake_kit import opened, put_rows
from warehouse.lake.lists import LISTS


def test_a_last_answer_that_cannot_be_read_is_no_former_answer(tmp_path: Path) -> None:
    answer = {"eval_run": "new", "dataset": "d", "episode_index": 0, "target": 0.5}
    answers = [
        answer | {"frame_index": 4, "prediction": 0.75},
        answer | {"frame_index": 8},
    ]
    with opened(Workspace(tmp_path)) as lake:
        put_rows(lake, eval_predictions=answers)
        [behind] = lake.dicts(LISTS["scored_episodes"].sql)
    assert [behind[name] for name in ("readable", "last", "last_target")] == [1, None, 0.5]
