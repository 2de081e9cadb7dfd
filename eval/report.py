"""The report of an evaluation: scores with intervals, coverage and baselines, plots, and where it is no better."""

import html
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.figures import COLOURS, jpeg_to_rgb, new_figure, render, shorten
from core.files import write_file
from eval.scoring.scored import ALL, Evaluated, compare

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Shown where a benchmark has them
METRICS = (
    "voc",
    "mae",
    "end_error",
    "increment_correlation",
    "mcc@95",
    "voc_margin",
    "score_error",
    "ref_error",
    "na_recall",
    "afrr",
    "bf1@5",
    "segment_f1@25",
    "edit",
    "plan_success",
    "plan_f1",
    "success_accuracy",
    "reverse_voc",
    "cycle_voc",
    "stall_drift",
)
BINS = 10
SHOWN = 4  # episodes beside each other
PICTURE_BYTES = 300_000
GREY = "#bbbbbb"
Stills = Callable[[tuple[str, ...]], Sequence[bytes]]


@dataclass(frozen=True)
class Report:
    """What a report is made of. The first entry of each benchmark is the model, those after it stand beside it.

    `parts`: slices of the main table. `stills(key)`: JPEGs of an episode in order of time, none where there are none.
    """

    model: str
    entries: Sequence[Evaluated]
    parts: Sequence[str] = (ALL,)
    notes: Sequence[str] = ()
    stills: Stills = lambda key: ()

    @property
    def own(self) -> list[Evaluated]:
        """The model's own entries."""
        return [e for e in self.entries if e.model == self.model]

    def rivals(self, own: Evaluated) -> list[Evaluated]:
        return [e for e in self.entries if e.benchmark == own.benchmark and e.model != self.model]


# Tables


def score_rows(entries: Sequence[Evaluated], parts: Sequence[str]) -> list[dict]:
    """One row per slice and entry: metrics with their interval as text, episodes, coverage."""
    present = [m for m in METRICS if any((part, m) in e.scores for e in entries for part in parts)]
    rows = []
    for part in parts:
        for e in entries:
            known = {m: e.scores[part, m] for m in present if (part, m) in e.scores}
            if known:
                row = {"benchmark": e.benchmark, "slice": part, "model": e.model}
                row |= {m: known[m].text() if m in known else "–" for m in present}
                coverage = e.scores.get((part, "coverage"))
                covered = "–" if coverage is None or coverage.n == 0 else f"{coverage.value:.0%}"
                rows.append(row | {"episodes": max(s.n for s in known.values()), "coverage": covered})
    return rows


def difference_rows(report: Report) -> list[dict]:
    """The model less each other entry, paired over episodes, on the metric that leads its benchmark."""
    rows = []
    for own in report.own:
        lead = next((m for m in ("mae", "score_error", "bf1@5", *METRICS) if m in own.scored.measures), None)
        for other in report.rivals(own) if lead else ():
            d = compare(own.scored, other.scored).differences.get(lead or "")
            if d is not None and d.n:
                rows.append(
                    {
                        "benchmark": own.benchmark,
                        "against": other.model,
                        "metric": lead,
                        "difference": f"{d.value:+.3f} ({d.low:+.2f} to {d.high:+.2f})",
                        "p": f"{d.p:.3f}",
                        "episodes": d.n,
                    }
                )
    return rows


def limits(report: Report) -> list[str]:
    """Plain sentences on where the model is no better than what stands beside it, from the scores themselves."""
    found = []
    for own in report.own:
        for metric in ("mae", "score_error"):
            for part in report.parts:
                ours = own.scores.get((part, metric))
                for other in report.rivals(own):
                    theirs = other.scores.get((part, metric))
                    is_upper_bound = other.model == "the label itself"
                    if ours and theirs and ours.n and not is_upper_bound and ours.value >= theirs.value:
                        found.append(
                            f"{own.benchmark}, {part}: no better than {other.model} ({metric} {ours.value:.3f} against "
                            f"{theirs.value:.3f}, {ours.n} episodes)."
                        )
    return found


def worst_episodes(own: Evaluated, count: int = SHOWN) -> list[tuple[int, float]]:
    """(episode, MAE) of those with the largest error over their readable answers."""
    measure = own.scored.measures.get("mae", own.scored.measures.get("score_error_episodes"))
    if measure is None or own.scored.series is None:
        return []
    errors = np.where(measure.counted, measure.parts[:, 0], -1.0)
    order = np.argsort(-errors, kind="stable")[:count]
    return [(int(k), float(errors[k])) for k in order if errors[k] >= 0]


# Plots


def curves_figure(report: Report, own: Evaluated, episodes: Sequence[int]) -> "Figure":
    """Progress over time of some episodes, each below its stills: label, model and what stands beside it."""
    figure, axes = new_figure(3.4 * max(1, len(episodes)), 3.8, 2, max(1, len(episodes)), height_ratios=[1, 2])
    for column, k in enumerate(episodes):
        key = own.scored.episodes[k].key
        stills = report.stills(key)
        axes[0, column].axis("off")
        axes[0, column].set_title(" ".join(key)[-40:], fontsize=8)
        if stills:
            chosen = sorted({*np.linspace(0, len(stills) - 1, SHOWN).round().astype(int).tolist()})
            axes[0, column].imshow(np.concatenate([jpeg_to_rgb(stills[i], 96) for i in chosen], axis=1))
        axis = axes[1, column]
        assert own.scored.series is not None
        time, predicted, target = own.scored.series.of(k)
        axis.plot(time, target, color=COLOURS[0], lw=1.5, label="label")
        truth = next((e.scored for e in report.own if e.benchmark == f"{own.benchmark} (truth)"), None)
        if truth is not None and truth.series is not None and (at := truth.find(key)) is not None:
            axis.plot(time, truth.series.of(at)[2], color="black", lw=1, ls="--", label="truth")
        for other in report.rivals(own):
            at = other.scored.find(key) if other.model == "clock" else None
            if at is not None and other.scored.series is not None:
                elapsed, said, _ = other.scored.series.of(at)
                axis.plot(elapsed, said, color=GREY, lw=1, label="clock")
        axis.plot(time, predicted, ".-", ms=3, color=COLOURS[3], lw=1.5, label=shorten(own.model, 24))
        axis.set(ylim=(-0.03, 1.03), xlabel="share of its time")
    axes[1, 0].set_ylabel("progress")
    axes[1, 0].legend(fontsize=7)
    return figure


def calibration_figure(own: Evaluated) -> "Figure":
    """Mean label in each tenth of the predictions, with its spread, and how many answers lie there."""
    assert own.scored.series is not None
    runs = own.scored.series.runs
    known = ~np.isnan(runs.predicted)
    predicted, target = runs.predicted[known], runs.target[known]
    which = np.minimum((predicted * BINS).astype(int), BINS - 1)
    figure, axes = new_figure(7.0, 2.9, 1, 2, width_ratios=[1, 1])
    axes[0, 0].plot([0, 1], [0, 1], color=GREY, lw=1)
    used = [k for k in range(BINS) if (which == k).any()]
    means = [float(target[which == k].mean()) for k in used]
    spread = [float(target[which == k].std()) for k in used]
    centres = [float(predicted[which == k].mean()) for k in used]
    axes[0, 0].errorbar(centres, means, yerr=spread, fmt="o-", ms=4, lw=1, color=COLOURS[3])
    axes[0, 0].set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="predicted", ylabel="label (mean, spread)")
    axes[0, 1].bar((np.arange(BINS) + 0.5) / BINS, np.bincount(which, minlength=BINS), 0.09, color=COLOURS[0])
    axes[0, 1].set(xlabel="predicted", ylabel="answers")
    return figure


def bars_figure(report: Report, own: Evaluated, kind: str = "dataset") -> "Figure | None":
    """The leading error by dataset for every entry of a benchmark, with intervals; None without such slices."""
    metric = next((m for m in ("mae", "score_error") if m in own.scored.measures), None)
    parts = sorted({part for part, _ in own.scores if part.startswith(f"{kind} ")})
    if metric is None or not parts:
        return None
    entries = [own, *report.rivals(own)]
    figure, axes = new_figure(height=0.8 + 0.22 * len(parts) * len(entries))
    axis, height = axes[0, 0], 0.8 / len(entries)
    rivals = [c for c in COLOURS if c != COLOURS[3]]
    for i, e in enumerate(entries):
        known = [(y, s) for y, part in enumerate(parts) if (s := e.scores.get((part, metric))) and s.n]
        values = np.array([s.value for _, s in known])
        bounds = np.array([[s.value - s.low, s.high - s.value] for _, s in known]).reshape(-1, 2).T
        where = [y + (i - (len(entries) - 1) / 2) * height for y, _ in known]
        colour = COLOURS[3] if e is own else GREY if e.model == "clock" else rivals[i % len(rivals)]
        axis.barh(where, values, height * 0.9, xerr=np.maximum(bounds, 0), color=colour, label=shorten(e.model, 24))
    axis.set_yticks(range(len(parts)), [p.removeprefix(f"{kind} ") for p in parts])
    axis.invert_yaxis()
    axis.set_xlabel(f"{metric} (less is better)")
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def pictures(report: Report) -> dict[str, tuple[str, bytes]]:
    """(caption, picture) by file name, of the first benchmark of the model."""
    own = next((e for e in report.own if e.scored.series is not None), None)
    if own is None or own.scored.series is None or not len(own.scored.series.runs.target):
        return {}
    some = different(own)
    worst = worst_episodes(own)
    drawn = {
        "curves.png": ("Progress over time", curves_figure(report, own, some)),
        "calibration.png": ("Calibration: where it says x, what is the label?", calibration_figure(own)),
        "datasets.png": ("By dataset", bars_figure(report, own)),
        "worst.png": ("The worst episodes", curves_figure(report, own, [k for k, _ in worst]) if worst else None),
    }
    return {
        name: (f"{caption} ({own.benchmark})", render(f, PICTURE_BYTES)) for name, (caption, f) in drawn.items() if f
    }


def different(own: Evaluated, count: int = SHOWN) -> list[int]:
    """Episodes with answers, in turn of each split (or part), and there one of each kind of slices first."""
    assert own.scored.series is not None
    seen: set[tuple[str, ...]] = set()
    first, rest = [], []
    for k in np.flatnonzero(own.scored.series.runs.lengths > 0).tolist():
        kind = own.scored.episodes[k].slices
        (rest if kind in seen else first).append(k)
        seen.add(kind)
    turns: Counter[tuple[str, ...]] = Counter()
    order = []
    for k in first + rest:
        leading = own.scored.episodes[k].slices[:1]
        order.append((turns[leading], len(order), k))
        turns[leading] += 1
    return [k for *_, k in sorted(order)[:count]]


# Pages


def write_report(folder: Path, report: Report) -> Path:
    """report.md, report.html and their pictures in a folder; returns the HTML file."""
    drawn = pictures(report)
    for name, (_, picture) in drawn.items():
        write_file(folder / name, picture)
    captions = {name: caption for name, (caption, _) in drawn.items()}
    write_file(folder / "report.md", markdown(report, captions).encode())
    write_file(folder / "report.html", _html(report, captions).encode())
    return folder / "report.html"


EXPLAINED = (
    "Means over episodes, except score_error and ref_error, which are over answers; in brackets the 95 % bootstrap "
    "interval over episodes. Coverage is the share of answers that could be read; those that could not count as wrong "
    "as can be. The clock knows how long the run will be and the visual distance sees its last picture: both know more "
    "than the model does. docs/evaluation.md says what each metric is."
)
NOWHERE = "In no slice of this table."


def _sections(report: Report) -> list[tuple[str, list[dict]]]:
    """Headed tables, empty ones left out."""
    worst = [
        {"benchmark": e.benchmark, "episode": " ".join(e.scored.episodes[k].key), "error": f"{error:.3f}"}
        for e in report.own[:1]
        for k, error in worst_episodes(e)
    ]
    tables = [
        ("Scores", score_rows(report.entries, report.parts)),
        ("Against what stands beside it, episode by episode", difference_rows(report)),
        ("The worst episodes", worst),
    ]
    return [(title, rows) for title, rows in tables if rows]


def markdown(report: Report, captions: Mapping[str, str]) -> str:
    lines = [f"# Evaluation of {report.model}", "", *report.notes, ""]
    for title, rows in _sections(report):
        columns = list(rows[0])
        lines += [f"## {title}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(str(r[c]).replace("|", "\\|") for c in columns) + " |" for r in rows]
        lines.append("")
    lines += [EXPLAINED, "", "## Where it is no better than what stands beside it", ""]
    lines += [f"- {line}" for line in limits(report) or [NOWHERE]]
    for name, caption in captions.items():
        lines += ["", f"## {caption}", "", f"![{caption}]({name})"]
    return "\n".join(lines) + "\n"


STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:80em;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}.wide{overflow-x:auto}"
    "td,th{padding:.25em .7em;text-align:left;border-bottom:1px solid #ddd;white-space:nowrap}th{border-color:#888}"
    "tr.own td{font-weight:600;background:#faf3f4}img{max-width:100%}h2{margin-top:1.8em}"
)


def _html(report: Report, captions: Mapping[str, str]) -> str:
    safe = html.escape
    body = [f"<h1>Evaluation of {safe(report.model)}</h1>", *(f"<p>{safe(n)}</p>" for n in report.notes)]
    for title, rows in _sections(report):
        head = "".join(f"<th>{safe(c)}</th>" for c in rows[0])
        lines = "".join(
            ("<tr class=own>" if r.get("model") == report.model else "<tr>")
            + "".join(f"<td>{safe(str(v))}</td>" for v in r.values())
            + "</tr>"
            for r in rows
        )
        body.append(f"<h2>{safe(title)}</h2><div class=wide><table><tr>{head}</tr>{lines}</table></div>")
        if title == "Scores":
            body.append(f"<p>{safe(EXPLAINED)}</p>")
    weak = "".join(f"<li>{safe(line)}</li>" for line in limits(report) or [NOWHERE])
    body.append(f"<h2>Where it is no better than what stands beside it</h2><ul>{weak}</ul>")
    body += [f"<h2>{safe(c)}</h2><img src='{safe(name)}' alt='{safe(c)}'>" for name, c in captions.items()]
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{safe(report.model)}</title>"
    return f"{head}<style>{STYLE}</style>{''.join(body)}\n"
