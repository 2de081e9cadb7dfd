"""What a lake holds of the second half, with when it was made: for telling Dagster of a workspace that it never saw.

Nothing is made here, and torch is imported only where somebody asks what a model has to show.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from pipeline.comparison import comparison_version
from pipeline.evaluation import found_evaluation
from pipeline.leaderboard import leaderboard_step
from pipeline.outcome import Outcome
from pipeline.release import release_outcome
from pipeline.reward_model import model_outcome
from warehouse.lake import Lake
from warehouse.releases import get_release

COMPARED = "annotators-%"  # code versions of comparisons of annotators, which are stored beside the evaluations


@dataclass(frozen=True)
class Held:
    """One thing of the second half that is there. `outcome` reads what there is to show of it; None: files are gone."""

    asset: str
    made_at: datetime
    version: str
    outcome: Callable[[], Outcome | None]


def held_outcomes(lake: Lake) -> Iterator[Held]:
    """The newest release, model, evaluation, leaderboard and comparison of annotators, what is upstream first."""
    for find in (_release, _model, _evaluation, _leaderboard, _comparison):
        held = find(lake)
        if held:
            yield held


def _release(lake: Lake) -> Held | None:
    rows = lake.rows("SELECT name, created_at FROM releases ORDER BY created_at DESC, name LIMIT 1")
    if not rows:
        return None
    release = get_release(lake, rows[0][0])
    return Held("release", rows[0][1], release.config_hash, lambda: release_outcome(lake, release))


def _model(lake: Lake) -> Held | None:
    rows = lake.rows(
        "SELECT training_run, release, t.created_at, path FROM training_runs t JOIN checkpoints c USING (training_run) "
        "ORDER BY t.created_at DESC, training_run, step DESC LIMIT 1"
    )
    if not rows:
        return None
    run, release, made_at, path = rows[0]
    folder = lake.workspace.root / path
    return Held(
        "reward_model",
        made_at,
        run,
        lambda: model_outcome(run, release, folder) if (folder / "curve.json").exists() else None,
    )


def _evaluation(lake: Lake) -> Held | None:
    """Of a model on held-out episodes, which has a report."""
    rows = lake.rows(
        "SELECT eval_run, model, created_at FROM eval_runs WHERE benchmark = 'held-out' "
        "AND model IN (SELECT training_run FROM training_runs) ORDER BY created_at DESC, eval_run LIMIT 1"
    )
    if not rows:
        return None
    run, model, made_at = rows[0]
    return Held("evaluation", made_at, run, lambda: found_evaluation(lake, run, model))


def _leaderboard(lake: Lake) -> Held | None:
    rows = lake.rows("SELECT max(created_at) FROM eval_runs WHERE code_version NOT LIKE ?", [COMPARED])
    if rows[0][0] is None:
        return None
    found = leaderboard_step(lake)
    return Held("leaderboard", rows[0][0], found.version, lambda: found)


def _comparison(lake: Lake) -> Held | None:
    rows = lake.rows(
        "SELECT model, benchmark, config, created_at FROM eval_runs WHERE code_version LIKE ? ORDER BY 1, 2", [COMPARED]
    )
    if not rows:
        return None
    configs = [json.loads(config) for _, _, config, _ in rows]
    version = comparison_version((m, b, config["content"]) for (m, b, *_), config in zip(rows, configs, strict=True))
    numbers = {"label_runs": len({config["label_run"] for config in configs if config["label_run"]})}
    outcome = Outcome("annotator_comparison", version, False, numbers)
    return Held("annotator_comparison", max(row[3] for row in rows), version, lambda: outcome)
