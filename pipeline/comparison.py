"""Annotators compared, for people: scores stored, a short table and what it says in words, all metrics, a picture."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.figures import COLOURS, Figure, new_figure, render, shorten
from core.values import grouped
from eval.annotators.compare import AnnotatorComparison, Comparison, compare, nearness_gain, store
from eval.annotators.scoring import RunsApart
from eval.annotators.truth import SIMULATED
from eval.metrics.score import NO_SCORE, Score
from pipeline.outcome import StepOutcome
from warehouse.lake import Lake, content_key

MAX_PANELS = 3
NOT_SHARES = ("num_segments", "_off_s")  # endings of metrics that are not 0..1
# Columns of the short table by metric; those that no labeller of a dataset has are left out
COLUMNS = {
    "boundary_f1@0.5s": "boundaries within 0.5 s",
    "boundary_f1@1s": "within 1 s",
    "events@0.5s": "grasps, releases within 0.5 s",
    "mae": "error of progress",
    "unnamed": "unnamed steps",
}
JUDGED = {
    "boundary_f1@0.5s": "boundaries within 0.5 s",
    "events@0.5s": "grasps and releases",
    "mae": "progress",
}
NOT_RUNS = {"truth": "the truth", "active label": "the label that counts"}
LOOK_AT_NOTHING = ("uniform cuts", "random cuts", "clock")


def comparison_step(
    lake: Lake, truth: Path | None = None, **options: Any
) -> tuple[Comparison, StepOutcome]:
    """Compare (options as eval.annotators.compare has them) and store; `truth`: a folder, default the samples' own.

    Raises UserError.
    """
    folder = truth or (SIMULATED if SIMULATED.exists() else None)
    comparison = compare(lake, folder, **options)
    labellers = comparison.labellers
    changed = store(lake, labellers)
    version = comparison_version((c.model, c.benchmark, c.content) for c in labellers)
    numbers = {
        "comparisons": sum(bool(c.label_run) for c in labellers),
        "changed": changed,
        "label_runs": len({c.label_run for c in labellers if c.label_run}),
    }
    picture = render(comparison_figure(labellers), drawing=True) if labellers else b""
    table = tuple(short_table(labellers))
    return comparison, StepOutcome(
        "annotator_comparison", version, changed > 0, numbers, picture, table=table
    )


def comparison_version(compared: Iterable[tuple[str, str, str]]) -> str:
    """Of a comparison of (labeller, benchmark, hash of what was compared), in any order."""
    return content_key(*(" ".join(key_parts) for key_parts in sorted(compared)))


def short_name(c: AnnotatorComparison) -> str:
    return f"{c.annotator} {shorten(c.label_run, 17)}".strip()


def reference_words(reference: str) -> str:
    """What labels are compared with, in words."""
    return NOT_RUNS.get(reference, f"label run {reference}")


def groups(
    labellers: Sequence[AnnotatorComparison],
) -> dict[tuple[str, str], list[AnnotatorComparison]]:
    """Labellers by dataset and what they are compared with; label runs before baselines."""
    return grouped(((c.dataset, c.against), c) for c in labellers)


# Tables


def short_table(labellers: Sequence[AnnotatorComparison]) -> list[dict[str, str]]:
    """One row per dataset and labeller, with the columns that say most, if any has a figure; text
    with intervals."""
    columns = {
        metric: title
        for metric, title in COLUMNS.items()
        if any(("all", metric) in c.scores and c.scores["all", metric].n for c in labellers)
    }
    return [_short_row(c, columns) for c in labellers]


def _short_row(c: AnnotatorComparison, columns: Mapping[str, str]) -> dict[str, str]:
    covered = "" if c.coverage == 1 else f" ({c.coverage:.0%})"
    labeller = short_name(c) + (" (counts)" if c.counts else "")
    row = {
        "dataset": c.dataset,
        "against": c.against,
        "labels by": labeller,
        "episodes": f"{c.num_episodes}{covered}",
    }
    for metric, title in columns.items():
        score = c.scores.get(("all", metric), NO_SCORE)
        # A baseline's figure stands without an interval, and a share that is told apart by eye
        plain = f"{score.value:.0%}" if metric == "unnamed" else f"{score.value:.3f}"
        if score.n:
            row[title] = score.text() if c.label_run and metric != "unnamed" else plain
        else:
            row[title] = ""
    return row


def metric_table(labellers: Sequence[AnnotatorComparison]) -> list[dict[str, str]]:
    """One row per dataset, other side and metric, one column per labeller; text with intervals."""
    names = list(dict.fromkeys(short_name(c) for c in labellers))
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for c in labellers:
        for metric, text in _metric_texts(c).items():
            rows.setdefault((c.dataset, c.against, metric), dict.fromkeys(names, ""))[
                short_name(c)
            ] = text
    return [{"dataset": d, "against": a, "metric": m} | cells for (d, a, m), cells in rows.items()]


def _metric_texts(c: AnnotatorComparison) -> dict[str, str]:
    """One labeller's cells of the table by metric; accuracies also of successes and failures apart."""
    texts = {"coverage": f"{c.coverage:.0%}", "episodes": str(c.num_episodes)}
    for metric in [m for part, m in c.scores if part == "all"]:
        texts[metric] = c.scores["all", metric].text()
        # Accuracy hides failures where most runs succeed
        for part in ("successes", "failures") if metric.endswith("accuracy") else ():
            if (part, metric) in c.scores:
                texts[f"{metric}, {part}"] = c.scores[part, metric].text()
    return texts


# In words


def conclusions(labellers: Sequence[AnnotatorComparison]) -> list[str]:
    """Of one dataset against one reference: is each run nearer than what looks at nothing, and
    which run is nearer."""
    runs = sorted((c for c in labellers if c.label_run), key=lambda c: not c.counts)
    baselines = [c for c in labellers if c.annotator in LOOK_AT_NOTHING]
    lines = [line for run in runs for line in _beside(run, baselines)]
    return lines + [line for other_run in runs[1:] for line in _beside(runs[0], [other_run])]


def _beside(run: AnnotatorComparison, other_runs: Sequence[AnnotatorComparison]) -> list[str]:
    """A line per metric: is a run nearer than others, and by how much."""
    lines = []
    for metric, title in JUDGED.items():
        gains = [(other_run, nearness_gain(run, other_run, metric)) for other_run in other_runs]
        parts = [
            _standing(run_gain, short_name(other_run))
            for other_run, run_gain in gains
            if run_gain.n
        ]
        if parts:
            lines.append(f"{short_name(run)}, {title}: {', '.join(parts)}")
    return lines


def _standing(gain: Score, other_name: str) -> str:
    """Nearer or farther where the interval is clear of zero; over one episode there is none."""
    if gain.n < 2:
        return f"not clearly nearer than {other_name}: {gain.value:.3f} (one episode)"
    if gain.low <= 0 <= gain.high:
        return f"not clearly nearer than {other_name}: {gain.value:.3f} ({gain.low:.3f} to {gain.high:.3f})"
    word = "nearer" if gain.value > 0 else "farther"
    low, high = sorted((abs(gain.low), abs(gain.high)))
    return f"{word} than {other_name} by {abs(gain.value):.3f} ({low:.3f} to {high:.3f})"


def farthest(difference: RunsApart) -> str:
    """Where two labels of an episode are farthest apart, and the page that shows it."""
    if not difference.episodes:
        return f"{difference.first} and {difference.second} have no episode in common."
    words = []
    for a in difference.episodes:
        progress = "" if math.isnan(a.progress) else f"progress {a.progress:.3f} apart, "
        words.append(f"{a.episode_index} ({progress}boundaries {a.boundary_f1:.2f})")
    episodes = ", ".join(words)
    episode_address = f"{difference.dataset}/{difference.episodes[0].episode_index}"
    if difference.second in NOT_RUNS:
        sentence = f"Farthest from {reference_words(difference.second)}"
        page = f"/episode/{episode_address}"
    else:
        sentence = f"{difference.first} and {difference.second} are farthest apart"
        page = f"/compare/{episode_address}"
    return f"{sentence} in episodes {episodes}. `proccorpus explore` shows them: {page}"


# A picture


def comparison_figure(comparisons: Sequence[AnnotatorComparison]) -> Figure:
    """Every metric of 0..1 with its interval, a panel per dataset (all of them first), a colour per
    label run."""
    by_reference = groups(comparisons)

    def size(group: tuple[str, str]) -> int:
        return max(c.num_episodes for c in by_reference[group])

    # All datasets together first, then those with the most episodes
    panels = sorted(by_reference, key=lambda group: (group[0] != "all", -size(group)))[:MAX_PANELS]
    metrics = [
        m for part, m in comparisons[0].scores if part == "all" and not m.endswith(NOT_SHARES)
    ]
    runs = list(dict.fromkeys(short_name(c) for c in comparisons))
    figure, axes = new_figure(
        2.0 + 1.9 * len(panels), 0.8 + 0.26 * len(metrics), 1, len(panels), sharey=True
    )
    for axis, group in zip(axes[0], panels, strict=True):
        for c in by_reference[group]:
            # Marks of label runs side by side in each metric's row
            nth = runs.index(short_name(c))
            colour = COLOURS[nth % len(COLOURS)]
            offset = 0.6 * ((nth + 0.5) / len(runs) - 0.5)
            for row, metric in enumerate(metrics):
                score = c.scores.get(("all", metric))
                if score is not None and score.n:
                    axis.plot([score.low, score.high], [row + offset] * 2, color=colour, lw=1.5)
                    axis.plot(score.value, row + offset, "o", color=colour, ms=4)
        axis.set(xlim=(-0.03, 1.03), title=f"{group[0]} against {group[1]}")
        axis.title.set_fontsize(8)
        axis.set_xticks([0, 0.5, 1])
        axis.grid(axis="x", color="#e5e5e5")
    axes[0, 0].set_yticks(range(len(metrics)), metrics, fontsize=8)
    axes[0, 0].invert_yaxis()

    # One legend for all panels: marks that stand nowhere else
    marks = [
        axes[0, 0].plot([], [], "o", color=COLOURS[i % len(COLOURS)], ms=4)[0]
        for i in range(len(runs))
    ]
    figure.legend(marks, runs, loc="outside lower center", ncols=3, fontsize=7)
    return figure
