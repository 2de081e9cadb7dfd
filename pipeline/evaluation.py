"""The step `evaluation`: a trained model and the baselines on the held-out episodes of its release, with a report.

What imports torch is imported inside the function: Dagster loads this module with its definitions.
"""

from pathlib import Path

from core.figures import render
from core.paths import ROOT
from pipeline.outcome import Outcome
from warehouse.lake import Lake
from warehouse.releases import Release

TRUTH = ROOT / "samples" / "truth"
HELD_OUT = ("test_id", "test_ood")


def evaluation_step(lake: Lake, release: Release, run: str, *, always: bool = False) -> Outcome:
    """Score a trained model and the baselines on the held-out episodes of its release; writes the report."""
    from eval.held_out.episodes import held_out
    from eval.held_out.evaluate import (
        BATCH,
        eval_run_id,
        evaluate_all,
        main_slices,
        report_folder,
        store,
    )
    from eval.held_out.outcomes import VALIDATION
    from eval.report import Report, curves_figure, different, score_rows, write_report
    from eval.runners.start import RunnerConfig, local_runner
    from training.card import add_scores
    from training.finished import trained
    from training.folder import read_card

    main_run = eval_run_id(run, "held-out", release.config_hash)
    folder = report_folder(lake, main_run)
    found = None if always else found_evaluation(lake, main_run, run)
    if found:
        return found
    checkpoint = trained(lake, run)
    if checkpoint is None:
        raise FileNotFoundError(f"the model {run} is not trained: materialise reward_model, or proccorpus train")
    model_card = read_card(checkpoint)
    runner = local_runner(RunnerConfig(run, batch_size=BATCH), checkpoint)
    truth = TRUTH if TRUTH.exists() else None
    episodes = held_out(lake, release, HELD_OUT, truth)
    # Thresholds are chosen on other episodes than scores are read from
    validation = held_out(lake, release, (VALIDATION,))
    results = evaluate_all(run, runner, episodes, validation)
    store(lake, release.name, release.config_hash, results, episodes, runner.settings)
    notes = [
        f"Release {release.name}, snapshot {release.snapshot}; held-out episodes that training never saw "
        f"({len(episodes)}); {model_card['parameters']:,} parameters.",
    ]
    if model_card["recipe"]["model"].get("tiny") or model_card["recipe"]["model"].get("laptop"):
        notes.append(
            "A model this small has learnt from nothing but this corpus: it knows these scenes from "
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
    return Outcome("evaluation", main_run, True, numbers, picture, _pages(folder))


def found_evaluation(lake: Lake, eval_run: str, model: str) -> Outcome | None:
    """What there is to show of an evaluation whose scores and report are there; else None."""
    from eval.held_out.evaluate import report_folder

    folder = report_folder(lake, eval_run)
    if not _pages(folder)[0].exists() or not lake.rows("SELECT 1 FROM eval_runs WHERE eval_run = ?", [eval_run]):
        return None
    return Outcome("evaluation", eval_run, False, _main_scores(lake, model), b"", _pages(folder))


def _pages(folder: Path) -> tuple[Path, ...]:
    return folder / "report.html", folder / "curves.png"


def _main_scores(lake: Lake, run: str) -> dict[str, int | float | str]:
    """The model's own headline scores."""
    rows = lake.rows(
        "SELECT benchmark, slice, metric, value FROM leaderboard WHERE model = ? AND metric IN ('voc', 'mae') "
        "AND slice LIKE 'split %' AND value IS NOT NULL ORDER BY ALL",
        [run],
    )
    return {f"{benchmark}: {part} {metric}": round(value, 4) for benchmark, part, metric, value in rows}
