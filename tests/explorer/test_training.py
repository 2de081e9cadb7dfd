"""Training runs on their page: what is drawn, what differs, what is refused."""

from datetime import datetime
from pathlib import Path

from core.paths import Workspace
from core.tables import TABLES
from explorer.pages.training import SCORES_SQL, differences
from tests.kits.lake_kit import opened
from warehouse.lake.lists import LISTS


def test_configurations_are_compared_setting_by_setting():
    first = '{"a": {"b": 1, "c": [1, 2]}, "same": null}'
    second = '{"a": {"b": 1.5, "c": [1, 2]}, "same": null, "new": "x"}'
    assert differences([first, second]) == ([("a.b", ["1", "1.5"]), ("new", [None, '"x"'])], 2)
    assert differences([first]) == ([], 3)
    assert differences([]) == ([], 0)


def test_what_has_no_value_is_no_former_value(tmp_path: Path) -> None:
    """The newest score is undefined; the last answer cannot be read."""
    run = {"model": "m", "benchmark": "b", "config": "{}", "code_version": "eval-1"}
    score = {"slice": "all", "metric": "voc", "n": 2, "coverage": 1}
    answer = {"eval_run": "new", "dataset": "d", "episode_index": 0, "target": 0.5}
    rows = {
        "eval_runs": [
            run | {"eval_run": "old", "created_at": datetime(2026, 1, 1)},
            run | {"eval_run": "new", "created_at": datetime(2026, 1, 2)},
        ],
        "eval_scores": [
            score | {"eval_run": "old", "value": 0.5, "low": 0.5, "high": 0.5},
            score | {"eval_run": "new"},
        ],
        "eval_predictions": [
            answer | {"frame_index": 4, "prediction": 0.75},
            answer | {"frame_index": 8},
        ],
    }
    with opened(Workspace(tmp_path)) as lake:
        lake.upsert("scores", **{name: TABLES[name].rows(of) for name, of in rows.items()})
        [newest] = lake.dicts(SCORES_SQL, [["m"]])
        [behind] = lake.dicts(LISTS["scored_episodes"].sql)
    assert [newest[name] for name in ("eval_run", "value", "low", "high")] == ["new"] + [None] * 3
    assert [behind[name] for name in ("readable", "last", "last_target")] == [1, None, 0.5]
