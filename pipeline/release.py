"""What is made of the corpus beside models: a release, the leaderboard; and what a lake holds of the second half.

What is up to date (same inputs, same code) is not made again.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np

from core.domain.label_run import LabelGate
from core.figures import COLOURS, new_figure, render
from core.metrics import LEADERBOARD, metrics_shown_in
from core.names import DEMO_RELEASE
from eval.report.pages import leaderboard_figure, training_figure
from pipeline.comparison import comparison_version
from pipeline.outcome import StepOutcome
from training.folder import read_card
from warehouse.lake import Lake, content_key
from warehouse.releases.contents import contents
from warehouse.releases.release import (
    Release,
    card_path,
    content_hash,
    create_release,
    find_release,
    get_release,
)

COMPARED = "annotators-%"  # code versions of comparisons of annotators, which are stored beside the evaluations
UNSEEN = "coalesce(seen_episodes, 0) = 0"  # scores that are not on episodes that the model was trained on
LAST_STEPS = 20  # of training, whose mean is shown


def release_step(
    lake: Lake, name: str = DEMO_RELEASE, allow: Collection[str] = (), gate: LabelGate | None = None
) -> StepOutcome:
    """Freeze the corpus under a name; a release of that name with other content is replaced. Raises ReleaseError.

    `allow`: licences that are not open, of datasets that are to be in it all the same. `gate`: how sure labels have to
    be, beside what the samples were built to ask.
    """
    release_contents = contents(lake, allow, gate)
    release = find_release(lake, name)
    is_new = release is None or release.config_hash != content_hash(lake, release_contents)
    if is_new or release is None:
        release = create_release(
            lake, name, allow=allow, replace=True, release_contents=release_contents
        )
    outcome = release_outcome(lake, release, is_new)
    if release_contents.left_out:
        return replace(
            outcome,
            numbers={**outcome.numbers, "left_out": "; ".join(map(str, release_contents.left_out))},
        )
    return outcome


def release_outcome(lake: Lake, release: Release, is_new: bool = False) -> StepOutcome:
    """What there is to show of a release, made now or found; the picture: episodes of each split, as bars."""
    numbers = {
        "release": release.name,
        "snapshot": release.snapshot,
        "shards": len(release.shard_list),
        "samples": sum(shard.samples for shard in release.shard_list),
        "bytes": sum(shard.bytes for shard in release.shard_list),
    }
    counts = dict.fromkeys(sorted(shard.split for shard in release.shard_list), 0)
    for shard in release.shard_list:
        counts[shard.split] += shard.episodes
    figure, axes = new_figure(height=2.0)
    axes[0, 0].barh([*counts], [*counts.values()], color=COLOURS[0])
    axes[0, 0].set_xlabel("episodes")
    files = (card_path(lake.workspace, release.name),)
    return StepOutcome("release", release.config_hash, is_new, numbers, render(figure), files)


# Leaderboard


LEADERBOARD_METRICS = (
    "voc",
    "mae",
    "end_error",
)  # of the table by slices; a row is placed by its mae


def leaderboard_rows(lake: Lake) -> list[dict]:
    """Every model and baseline by benchmark and slice, best MAE first, each by its newest evaluation; no scores on
    episodes that a model was trained on, and no slice of which a benchmark measures none of these."""
    values = ", ".join(
        f"arg_max(value, created_at) FILTER (metric = '{name}') AS {name}"
        for name in LEADERBOARD_METRICS
    )
    return lake.dicts(
        f"SELECT benchmark, slice, model, {values}, "
        "arg_max(n, created_at) FILTER (metric = 'mae') AS episodes FROM leaderboard "
        f"WHERE (slice LIKE 'split %' OR slice LIKE 'failed or stalled, %') AND {UNSEEN} "
        "GROUP BY ALL HAVING voc IS NOT NULL OR mae IS NOT NULL OR end_error IS NOT NULL "
        "ORDER BY benchmark, slice, mae"
    )


def leaderboard_step(lake: Lake) -> StepOutcome:
    """Every evaluated model and baseline side by side, as the lake has it.

    The table: on each benchmark as a whole, with intervals and coverage, as text; newest run first. Scores on episodes
    that a model was trained on are counted, and left out.
    """
    chosen = ", ".join(
        f"max(format('{{:.3f}} ({{:.2f}}–{{:.2f}})', value, low, high)) FILTER (metric = '{m}' AND value IS NOT NULL) "
        f'AS "{m}"'
        for m in metrics_shown_in(LEADERBOARD)
    )
    row_dicts = lake.dicts(
        f"SELECT benchmark, model, {chosen}, max(n) AS episodes, "
        "max(format('{:.0f} %', 100 * value)) FILTER (metric = 'coverage' AND value IS NOT NULL) AS coverage "
        f"FROM leaderboard WHERE slice = 'all' AND {UNSEEN} "
        "GROUP BY benchmark, model, eval_run ORDER BY benchmark, max(created_at) DESC, model"
    )
    table = tuple({k: "–" if v is None else str(v) for k, v in row.items()} for row in row_dicts)
    rows = leaderboard_rows(lake)
    [(num_trained_on,)] = lake.rows(
        f"SELECT count(DISTINCT eval_run) FROM leaderboard WHERE slice = 'all' AND NOT ({UNSEEN})"
    )
    numbers = {"rows": len(rows), "left_out_as_trained_on": num_trained_on}
    version = content_key(*(repr(sorted(row.items())) for row in (*rows, *table)))
    picture = render(leaderboard_figure(rows))
    return StepOutcome("leaderboard", version, True, numbers, picture, table=table)


# Models and their scores, made now or found


def model_outcome(run: str, release: str, folder: Path, is_new: bool = False) -> StepOutcome | None:
    """What there is to show of a trained model, made now or found: `folder` is its checkpoint; None: it is gone."""
    if not (folder / "curve.json").exists():
        return None
    curve = json.loads((folder / "curve.json").read_text())
    numbers = {"training_run": run, "release": release, "steps": len(curve)} | _last_steps(
        curve[-LAST_STEPS:]
    )
    card = read_card(folder)
    success = card.get("success") or {}
    best = card.get("best")
    numbers |= {
        f"success_{name}": success[name]
        for name in ("threshold", "balanced_accuracy")
        if name in success
    }
    if best:
        numbers |= {"best_model": best["model"], "best_mae": best["mae"]}
    return StepOutcome(
        "reward_model", run, is_new, numbers, render(training_figure(curve)), (folder,)
    )


def _last_steps(points: Sequence[dict]) -> dict[str, int | float | str]:
    """Means over the last steps of a training."""
    errors = [point["progress"] for point in points if point["progress"] is not None]
    numbers: dict[str, int | float | str] = {
        "final_loss": float(np.mean([point["loss"] for point in points]))
    }
    return numbers | ({"final_progress_error": float(np.mean(errors))} if errors else {})


def found_evaluation(lake: Lake, eval_run: str, model: str) -> StepOutcome | None:
    """What there is to show of an evaluation whose scores and report are there; else None."""
    pages = report_pages(lake.workspace.root / "evals" / eval_run)
    if not pages[0].exists() or not lake.rows(
        "SELECT 1 FROM eval_runs WHERE eval_run = ?", [eval_run]
    ):
        return None
    return StepOutcome(
        "evaluation", eval_run, False, main_scores(lake, model, eval_run), b"", pages
    )


def report_pages(folder: Path) -> tuple[Path, ...]:
    return folder / "report.html", folder / "curves.png"


def main_scores(lake: Lake, run: str, eval_run: str) -> dict[str, int | float | str]:
    """The model's own headline scores on the release of an evaluation; those on episodes that it was trained on say
    so."""
    rows = lake.rows(
        f"SELECT benchmark, slice, metric, arg_max(value, created_at), arg_max({UNSEEN}, created_at) FROM leaderboard "
        "WHERE model = ? AND release = (SELECT release FROM eval_runs WHERE eval_run = ?) "
        "AND metric IN ('voc', 'mae') AND slice LIKE 'split %' AND value IS NOT NULL GROUP BY ALL ORDER BY ALL",
        [run, eval_run],
    )
    return {
        f"{benchmark}: {part} {metric}{'' if is_unseen else ', trained on'}": round(value, 4)
        for benchmark, part, metric, value, is_unseen in rows
    }


# What is there, for telling Dagster of a workspace that it never saw


@dataclass(frozen=True)
class Held:
    """One thing of the second half that is there. `outcome` reads what there is to show of it; None: files are gone."""

    asset: str
    made_at: datetime
    version: str
    outcome: Callable[[], StepOutcome | None]


def held_outcomes(lake: Lake) -> Iterator[Held]:
    """The newest release, model, evaluation, leaderboard and comparison of annotators, what is upstream first.

    Nothing is made here, and torch is imported only where somebody asks what a model has to show.
    """
    for name, made_at in lake.rows(
        "SELECT name, created_at FROM releases ORDER BY created_at DESC, name LIMIT 1"
    ):
        release = get_release(lake, name)
        yield Held("release", made_at, release.config_hash, partial(release_outcome, lake, release))

    for run, trained_on, made_at, path in lake.rows(
        "SELECT training_run, release, t.created_at, path FROM training_runs t JOIN checkpoints c USING (training_run) "
        "ORDER BY t.created_at DESC, training_run, step DESC LIMIT 1"
    ):
        folder = lake.workspace.root / path
        yield Held("reward_model", made_at, run, partial(model_outcome, run, trained_on, folder))

    # Of a model on held-out episodes, which has a report
    for eval_run, model, made_at in lake.rows(
        "SELECT eval_run, model, created_at FROM eval_runs WHERE benchmark = 'held-out' "
        "AND model IN (SELECT training_run FROM training_runs) ORDER BY created_at DESC, eval_run LIMIT 1"
    ):
        yield Held(
            "evaluation", made_at, eval_run, partial(found_evaluation, lake, eval_run, model)
        )

    [(made_at,)] = lake.rows(
        "SELECT max(created_at) FROM eval_runs WHERE code_version NOT LIKE ?", [COMPARED]
    )
    if made_at is not None:
        outcome = leaderboard_step(lake)
        yield Held("leaderboard", made_at, outcome.version, lambda: outcome)

    yield from _compared(lake)


def _compared(lake: Lake) -> Iterator[Held]:
    """The comparison of annotators."""
    compared = lake.rows(
        "SELECT model, benchmark, config, created_at FROM eval_runs WHERE code_version LIKE ? ORDER BY 1, 2",
        [COMPARED],
    )
    if compared:
        configs = [json.loads(config) for _, _, config, _ in compared]
        version = comparison_version(
            (m, b, c["content"]) for (m, b, *_), c in zip(compared, configs, strict=True)
        )
        numbers = {
            "label_runs": len({config["label_run"] for config in configs if config["label_run"]})
        }
        outcome = StepOutcome("annotator_comparison", version, False, numbers)
        yield Held(
            "annotator_comparison", max(row[3] for row in compared), version, lambda: outcome
        )
