"""The second half of the graph, on a workspace: release, reward model, evaluation, leaderboard. Knows no Dagster.

Each step says what it made; what is up to date (same inputs, same code) is not made again.
"""

import base64
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.figures import COLOURS, new_figure, picture_kind, render
from core.paths import ROOT
from warehouse.lake import Lake, content_key
from warehouse.releases import Release, card_path, content_hash, create_release, find_release, get_release
from warehouse.releases.contents import contents

if TYPE_CHECKING:
    from training.recipe import Recipe
    from training.train import Point

TRUTH = ROOT / "samples" / "truth"
DEMO_RELEASE = "demo"
DEMO_RECIPE = "tiny_cpu"
HELD_OUT = ("test_id", "test_ood")


@dataclass(frozen=True)
class Outcome:
    """What one step made or found; `version` changes exactly when what it stands for does."""

    asset: str
    version: str
    made: bool
    numbers: Mapping[str, int | float | str] = field(default_factory=dict)
    picture: bytes = b""
    files: tuple[Path, ...] = ()
    table: tuple[Mapping[str, str], ...] = ()


def picture_markdown(image: bytes, title: str) -> str:
    """A picture within Markdown, as Dagster shows it."""
    return f"![{title}](data:image/{picture_kind(image)};base64,{base64.b64encode(image).decode()})"


def outcome_facts(outcome: Outcome) -> dict[str, tuple[str, bool | int | float | str]]:
    """What a materialisation shows, as (kind of Dagster's metadata, value): numbers, a table, a picture, files."""
    kinds = {int: "int", float: "float"}
    facts: dict[str, tuple[str, bool | int | float | str]] = {
        k: (kinds.get(type(v), "text"), v) for k, v in outcome.numbers.items()
    }
    facts["made_now"] = ("bool", outcome.made)
    if outcome.picture:
        facts["picture"] = ("md", picture_markdown(outcome.picture, outcome.asset))
    if outcome.table:
        head = [f"| {' | '.join(outcome.table[0])} |", "|" + "---|" * len(outcome.table[0])]
        lines = [f"| {' | '.join(row.values())} |" for row in outcome.table]
        facts["table"] = ("md", "\n".join(head + lines))
    for path in outcome.files:
        facts[f"file {path.name}"] = ("path", str(path))
    return facts


def release_step(lake: Lake, name: str = DEMO_RELEASE, allow: Collection[str] = ()) -> Outcome:
    """Freeze the corpus under a name; a release of that name with other content is replaced. Raises ReleaseError.

    `allow`: licences that are not open, of datasets that are to be in it all the same.
    """
    held = contents(lake, allow)
    known = find_release(lake, name)
    made = known is None or known.config_hash != content_hash(lake, held)
    release = create_release(lake, name, allow=allow, replace=True, held=held) if made or known is None else known
    numbers = {
        "release": name,
        "snapshot": release.snapshot,
        "shards": len(release.shard_list),
        "samples": sum(s.samples for s in release.shard_list),
        "bytes": sum(s.bytes for s in release.shard_list),
    }
    if held.left_out:
        numbers["left_out"] = "; ".join(map(str, held.left_out))
    picture = _split_picture(lake)
    return Outcome("release", release.config_hash, made, numbers, picture, (card_path(lake.workspace, name),))


def _split_picture(lake: Lake) -> bytes:
    rows = lake.rows("SELECT split, count(*) FROM splits GROUP BY 1 ORDER BY 1")
    figure, axes = new_figure(height=2.0)
    axes[0, 0].barh([r[0] for r in rows], [r[1] for r in rows], color=COLOURS[0])
    axes[0, 0].set_xlabel("episodes")
    return render(figure)


def reward_model_step(
    lake: Lake,
    release: Release,
    recipe: "Recipe",
    *,
    always: bool = False,
    on_step: Callable[["Point"], None] = lambda point: None,
    resume: bool = False,
) -> Outcome:
    """Train the recipe on a release unless that very model exists (`always` trains all the same, `resume` goes on)."""
    from training.points import recorded
    from training.train import train, trained, training_run_id

    run = training_run_id(recipe, release)
    folder = None if always else trained(lake, run)
    made = folder is None
    if folder is None:
        with recorded(lake, run, on_step) as step:
            folder = train(lake, release, recipe, step, resume).checkpoint
        if os.environ.get("RANK", "0") == "0":  # of torchrun's processes
            calibration_step(lake, release, folder)
    curve = load_curve(folder)
    numbers: dict[str, int | float | str] = {
        "training_run": run,
        "release": release.name,
        "steps": len(curve),
        "final_loss": float(np.mean([p["loss"] for p in curve[-20:]])),
    }
    if errors := [p["progress"] for p in curve[-20:] if p["progress"] is not None]:
        numbers["final_progress_error"] = float(np.mean(errors))
    numbers |= _success_numbers(folder)
    return Outcome("reward_model", run, made, numbers, render(curve_figure(curve)), (folder,))


def calibration_step(lake: Lake, release: Release, folder: Path, *, words: bool = False) -> dict[str, Any]:
    """Calibrate from which output on a run counts as done, on a release's validation episodes, into the model's card.

    Returns what the card now says; nothing where there is nothing to calibrate by. A model without a head answers each
    moment in words, which is slow, and is calibrated with `words` only. Raises ModelError or ShardError.
    """
    from eval.held_out.episodes import held_out
    from eval.reward.calibration import SPLIT, calibrated
    from eval.reward.model import open_model
    from eval.reward.window import LAST_PICTURE, Window
    from training.card import add_success
    from training.model import read_card

    card = read_card(folder)
    episodes = held_out(lake, release, (SPLIT,)) if release.paths(lake.workspace, SPLIT) else []
    if not episodes or (card.get("head", True) is None and not words):
        return {}
    scorer = open_model(folder, window=None if Window.of_card(card) else LAST_PICTURE)
    success = calibrated(scorer, card["max_px"], episodes, release.name)
    if success is None:
        return {}
    add_success(folder, success.as_json())
    return success.as_json()


def _success_numbers(folder: Path) -> dict[str, float]:
    from training.model import read_card

    success = read_card(folder).get("success") or {}
    return {f"success_{k}": success[k] for k in ("threshold", "balanced_accuracy") if k in success}


def newest_model(lake: Lake) -> str | None:
    """The training run that ended last and whose checkpoint is there."""
    from training.train import trained

    rows = lake.rows("SELECT training_run FROM training_runs ORDER BY created_at DESC, 1")
    return next((run for (run,) in rows if trained(lake, run)), None)


def scoring_steps(lake: Lake, name: str) -> list[Outcome]:
    """The second half without training: release, the newest model's scores on it where there is one, leaderboard."""
    made, model = release_step(lake, name), newest_model(lake)
    scored = [evaluation_step(lake, get_release(lake, name), model)] if model else []
    return [made, *scored, leaderboard_step(lake)]


def load_curve(folder: Path) -> list[dict[str, Any]]:
    import json

    return json.loads((folder / "curve.json").read_text())


def curve_figure(curve: list[dict[str, Any]]):
    """Training loss and batch progress error over steps, smoothed over 10."""
    figure, axes = new_figure()
    for name, colour in (("loss", COLOURS[0]), ("progress", COLOURS[3])):
        values = np.array([p[name] for p in curve if p[name] is not None])
        if not len(values):
            continue
        width = min(10, len(values))
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes[0, 0].plot(np.arange(len(smooth)) + width - 1, smooth, color=colour, label=name)
    axes[0, 0].set(xlabel="step", yscale="log", ylabel="loss")
    axes[0, 0].legend(fontsize=8)
    return figure


def evaluation_step(lake: Lake, release: Release, run: str, *, always: bool = False) -> Outcome:
    """Score a trained model and the baselines on the held-out episodes of its release; writes the report."""
    from eval.held_out.episodes import held_out
    from eval.held_out.evaluate import CODE_VERSION, eval_run_id, evaluate_all, main_slices, report_folder, store
    from eval.report import Report, curves_figure, different, score_rows, write_report
    from training.card import add_scores
    from training.model import load_model
    from training.train import trained

    main_run = eval_run_id(run, "held-out", release.config_hash)
    version = content_key(run, release.config_hash, CODE_VERSION)
    folder = report_folder(lake, main_run)
    page = folder / "report.html"
    if not always and page.exists() and lake.rows("SELECT 1 FROM eval_runs WHERE eval_run = ?", [main_run]):
        return Outcome("evaluation", version, False, _main_scores(lake, run), b"", (page, folder / "curves.png"))
    checkpoint = trained(lake, run)
    if checkpoint is None:
        raise FileNotFoundError(f"the model {run} is not trained: materialise reward_model, or proccorpus train")
    model, processor, model_card = load_model(checkpoint)
    truth = TRUTH if TRUTH.exists() else None
    episodes = held_out(lake, release, HELD_OUT, truth)
    results = evaluate_all(run, model, processor, model_card["max_px"], episodes)
    store(lake, release.name, release.config_hash, results, episodes)
    notes = [
        f"Release {release.name}, snapshot {release.snapshot}; held-out episodes that training never saw "
        f"({len(episodes)}); {model_card['parameters']:,} parameters.",
    ]
    if model_card["recipe"]["model"]["tiny"]:
        notes.append(
            "A model this small, from random weights, has seen nothing but this corpus: it knows these scenes from "
            "this camera. It cannot follow a new instruction, judge another robot, or explain itself in words."
        )
    stills: dict[tuple[str, ...], list[bytes]] = {
        (e.dataset, str(e.episode_index)): [s.pictures[-1] for s in e.samples] for e in episodes
    }
    report = Report(run, results, main_slices(results), notes, lambda key: stills.get(key, ()))
    write_report(folder, report)
    rows = score_rows(report.entries, report.parts)
    scores = _main_scores(lake, run)
    add_scores(checkpoint, f"held-out episodes of release {release.name}", scores)
    numbers = scores | {"rows": len(rows)}
    picture = render(curves_figure(report, results[0], different(results[0], 3)))
    return Outcome("evaluation", version, True, numbers, picture, (page, folder / "curves.png"))


def _main_scores(lake: Lake, run: str) -> dict[str, int | float | str]:
    """The model's own headline scores."""
    rows = lake.rows(
        "SELECT benchmark, slice, metric, value FROM leaderboard WHERE model = ? AND metric IN ('voc', 'mae') "
        "AND slice LIKE 'split %' AND value IS NOT NULL ORDER BY ALL",
        [run],
    )
    return {f"{benchmark}: {part} {metric}": round(value, 4) for benchmark, part, metric, value in rows}


def leaderboard_rows(lake: Lake) -> list[dict]:
    """Every model and baseline by benchmark and slice, best MAE first."""
    return lake.dicts(
        "SELECT benchmark, slice, model, max(value) FILTER (metric = 'voc') AS voc, "
        "max(value) FILTER (metric = 'mae') AS mae, max(value) FILTER (metric = 'end_error') AS end_error, "
        "max(n) FILTER (metric = 'mae') AS episodes FROM leaderboard "
        "WHERE slice LIKE 'split %' OR slice LIKE 'failed or stalled, %' GROUP BY ALL ORDER BY benchmark, slice, mae"
    )


HEADLINES = ("voc", "mae", "score_error", "ref_error", "na_recall", "reverse_voc", "cycle_voc", "stall_drift")


def benchmark_rows(lake: Lake) -> list[dict[str, str]]:
    """Every model and baseline on each benchmark as a whole, with intervals and coverage, as text; newest run first."""
    chosen = ", ".join(
        f"max(format('{{:.3f}} ({{:.2f}}–{{:.2f}})', value, low, high)) FILTER (metric = '{m}' AND value IS NOT NULL) "
        f'AS "{m}"'
        for m in HEADLINES
    )
    rows = lake.dicts(
        f"SELECT benchmark, model, {chosen}, max(n) AS episodes, "
        "max(format('{:.0f} %', 100 * value)) FILTER (metric = 'coverage' AND value IS NOT NULL) AS coverage "
        "FROM leaderboard WHERE slice = 'all' "
        "GROUP BY benchmark, model, eval_run ORDER BY benchmark, max(created_at) DESC, model"
    )
    return [{k: "–" if v is None else str(v) for k, v in row.items()} for row in rows]


def leaderboard_step(lake: Lake) -> Outcome:
    """The leaderboard as the lake has it."""
    rows, table = leaderboard_rows(lake), benchmark_rows(lake)
    version = content_key(*(repr(sorted(r.items())) for r in (*rows, *table)))
    parts = [r for r in rows if r["slice"] == "split test_id" and r["mae"] is not None]
    picture = b""
    if parts:
        figure, axes = new_figure(height=0.7 + 0.28 * len(parts))
        names = [f"{r['model'][:30]} | {r['benchmark']}" for r in parts][::-1]
        axes[0, 0].barh(names, [r["mae"] for r in parts][::-1], color=COLOURS[0])
        axes[0, 0].set_xlabel("mean absolute error on test_id (less is better)")
        picture = render(figure)
    return Outcome("leaderboard", version, True, {"rows": len(rows)}, picture, table=tuple(table))


def closing_steps(
    lake: Lake, name: str, recipe: "Recipe", on_step: Callable[["Point"], None] = lambda point: None
) -> list[Outcome]:
    """The whole second half, in order."""
    release_made = release_step(lake, name)
    release = get_release(lake, name)
    model = reward_model_step(lake, release, recipe, on_step=on_step)
    return [release_made, model, evaluation_step(lake, release, model.version), leaderboard_step(lake)]
