"""Annotators compared, for people: scores stored, a table with one column per label run, and a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.figures import COLOURS, new_figure, render, shorten
from pipeline.evaluation import TRUTH
from pipeline.outcome import Outcome
from warehouse.lake import Lake, content_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from eval.annotators import AnnotatorComparison

MAX_PANELS = 3


def comparison_step(lake: Lake, **options: Any) -> "tuple[list[AnnotatorComparison], Outcome]":
    """Compare (options as eval.annotators.compare has them) and store. Raises ComparisonError, TruthError."""
    from eval.annotators import compare, store

    found = compare(lake, TRUTH if TRUTH.exists() else None, **options)
    changed = store(lake, found)
    version = content_key(*(f"{c.model} {c.benchmark} {c.content}" for c in found))
    numbers = {"comparisons": len(found), "changed": changed, "label_runs": len({c.label_run for c in found})}
    picture = render(comparison_figure(found), drawing=True) if found else b""
    table = tuple(comparison_table(found))
    return found, Outcome("annotator_comparison", version, changed > 0, numbers, picture, table=table)


def short_name(c: "AnnotatorComparison") -> str:
    return f"{c.annotator} {shorten(c.label_run, 17)}"


def comparison_table(comparisons: "Sequence[AnnotatorComparison]") -> list[dict[str, str]]:
    """One row per dataset, other side and metric, one column per label run; text with intervals."""
    names = list(dict.fromkeys(short_name(c) for c in comparisons))
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for c in comparisons:
        for metric, text in _metric_texts(c).items():
            rows.setdefault((c.dataset, c.against, metric), dict.fromkeys(names, ""))[short_name(c)] = text
    return [{"dataset": d, "against": a, "metric": m} | cells for (d, a, m), cells in rows.items()]


def _metric_texts(c: "AnnotatorComparison") -> dict[str, str]:
    """One run's cells of the table by metric; accuracies also of successes and failures apart."""
    metrics = [m for part, m in c.scores if part == "all"]
    texts = {"coverage": f"{c.coverage['all']:.0%}"}
    if "segment_iou" in metrics:
        texts["episodes"] = str(c.scores["all", "segment_iou"].n)
    for metric in metrics:
        texts[metric] = c.scores["all", metric].text()
        if not metric.endswith("accuracy"):
            continue
        # Accuracy hides failures where most runs succeed
        for part in ("successes", "failures"):
            if (part, metric) in c.scores:
                texts[f"{metric}, {part}"] = c.scores[part, metric].text()
    return texts


def comparison_figure(comparisons: "Sequence[AnnotatorComparison]") -> "Figure":
    """Every metric of 0..1 with its interval, a panel per dataset (all of them first), a colour per label run."""
    groups: dict[tuple[str, str], list[AnnotatorComparison]] = {}
    for c in comparisons:
        groups.setdefault((c.dataset, c.against), []).append(c)

    def size(group: tuple[str, str]) -> int:
        return max(c.scores["all", "published_bf1@5"].n for c in groups[group])

    # All datasets together first, then those with the most episodes
    panels = sorted(groups, key=lambda group: (group[0] != "all", -size(group)))[:MAX_PANELS]
    metrics = [m for part, m in comparisons[0].scores if part == "all" and not m.endswith("num_segments")]
    runs = list(dict.fromkeys(short_name(c) for c in comparisons))
    figure, axes = new_figure(2.0 + 1.9 * len(panels), 0.8 + 0.26 * len(metrics), 1, len(panels), sharey=True)
    for axis, group in zip(axes[0], panels, strict=True):
        for c in groups[group]:
            _draw_scores(axis, c, metrics, runs.index(short_name(c)), len(runs))
        axis.set(xlim=(-0.03, 1.03), title=f"{group[0]} against {group[1]}")
        axis.title.set_fontsize(8)
        axis.set_xticks([0, 0.5, 1])
        axis.grid(axis="x", color="#e5e5e5")
    axes[0, 0].set_yticks(range(len(metrics)), metrics, fontsize=8)
    axes[0, 0].invert_yaxis()

    # One legend for all panels: marks that stand nowhere else
    marks = [axes[0, 0].plot([], [], "o", color=COLOURS[i % len(COLOURS)], ms=4)[0] for i in range(len(runs))]
    figure.legend(marks, runs, loc="outside lower center", ncols=3, fontsize=7)
    return figure


def _draw_scores(axis: Any, c: "AnnotatorComparison", metrics: Sequence[str], nth: int, num_runs: int) -> None:
    """The scores of the nth label run, its marks side by side with those of the others in each metric's row."""
    colour = COLOURS[nth % len(COLOURS)]
    for row, metric in enumerate(metrics):
        s = c.scores.get(("all", metric))
        if s is None or s.n == 0:
            continue
        y = row + 0.6 * ((nth + 0.5) / num_runs - 0.5)
        axis.plot([s.low, s.high], [y, y], color=colour, lw=1.5)
        axis.plot(s.value, y, "o", color=colour, ms=4)
