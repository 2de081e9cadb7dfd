"""The report of an evaluation: a table with the baselines, curves over stills, and what the scores do not show."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eval.episodes import HeldOut
from eval.evaluate import TROUBLED, Evaluated, label_of, truth_of
from warehouse.figures import COLOURS, jpeg_to_rgb, new_figure, render, shorten
from warehouse.workspace import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = ("voc", "mae", "end_error", "increment_correlation")
REPORT_BYTES = 400_000


def score_rows(results: Sequence[Evaluated], parts: Sequence[str]) -> list[dict]:
    """One row per benchmark, slice and scorer: metrics with their interval as text, n and coverage."""
    rows = []
    for part in parts:
        for r in results:
            if (part, METRICS[0]) not in r.scores:
                continue
            row = {"benchmark": r.benchmark, "slice": part, "model": r.model}
            row |= {m: r.scores[part, m].text() for m in METRICS}
            rows.append(row | {"episodes": r.scores[part, "mae"].n, "coverage": f"{r.coverage[part]:.0%}"})
    return rows


def main_slices(results: Sequence[Evaluated]) -> list[str]:
    """The slices that a summary shows: the splits, and the runs that went wrong in each."""
    names = {part for r in results for part, _ in r.scores}
    return sorted(n for n in names if n.startswith("split ")) + sorted(
        n for n in names if n.startswith(f"{TROUBLED}, ")
    )


def limits(model: str, results: Sequence[Evaluated]) -> list[str]:
    """Plain sentences on where the model is no better than a baseline, from the scores themselves."""
    found = []
    for benchmark in sorted({r.benchmark for r in results}):
        by_name = {r.model: r for r in results if r.benchmark == benchmark}
        for part in main_slices(list(by_name.values())):
            for rival in ("clock", "best constant", "visual distance"):
                ours, theirs = by_name[model].scores.get((part, "mae")), by_name[rival].scores.get((part, "mae"))
                if ours and theirs and ours.value >= theirs.value:
                    found.append(
                        f"{benchmark}, {part}: no better than the {rival} (MAE {ours.value:.3f} against "
                        f"{theirs.value:.3f}, {ours.n} episodes)."
                    )
    return found


def curves(episodes: Sequence[HeldOut], results: Sequence[Evaluated], model: str, count: int = 4) -> "Figure":
    """Progress over time of a few episodes, each below its stills: label, truth, model and clock."""
    by_name = {r.model: r for r in results if r.benchmark == results[0].benchmark}
    chosen = _interesting(episodes, count)
    figure, axes = new_figure(3.4 * len(chosen), 3.8, 2, len(chosen), height_ratios=[1, 2])
    for column, e in enumerate(chosen):
        stills = [
            e.samples[i].pictures[-1] for i in sorted({*np.linspace(0, len(e.samples) - 1, 4).round().astype(int)})
        ]
        axes[0, column].imshow(np.concatenate([jpeg_to_rgb(s, 96) for s in stills], axis=1))
        axes[0, column].axis("off")
        axes[0, column].set_title(f"{e.dataset} {e.episode_index} ({e.policy or e.split})", fontsize=8)
        axis, key = axes[1, column], (e.dataset, e.episode_index)
        axis.plot(e.frame_index, e.label, color=COLOURS[0], lw=1.5, label="label")
        if e.truth is not None:
            axis.plot(e.frame_index, e.truth, color="black", lw=1, ls="--", label="truth")
        axis.plot(e.frame_index, by_name[model].predictions[key], color=COLOURS[3], lw=2, label=shorten(model, 24))
        axis.plot(e.frame_index, by_name["clock"].predictions[key], color="#bbbbbb", lw=1, label="clock")
        axis.set(ylim=(-0.03, 1.03), xlabel="frame")
    axes[1, 0].set_ylabel("progress")
    axes[1, 0].legend(fontsize=7)
    return figure


def _interesting(episodes: Sequence[HeldOut], count: int) -> list[HeldOut]:
    """Episodes of different kinds: one of each outcome and policy first."""
    seen: set[tuple] = set()
    first, rest = [], []
    for e in sorted(episodes, key=lambda e: (e.split, e.episode_index)):
        kind = (e.dataset, e.policy, e.success)
        (rest if kind in seen else first).append(e)
        seen.add(kind)
    return (first + rest)[:count]


def markdown(model: str, results: Sequence[Evaluated], notes: Sequence[str]) -> str:
    rows = score_rows(results, main_slices(results))
    columns = list(rows[0]) if rows else []
    lines = [f"# Evaluation of {model}", "", *notes, "", "![curves](curves.png)", ""]
    lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(r[c]) for c in columns) + " |" for r in rows]
    lines += [
        "",
        "Means over episodes; in brackets the 95 % bootstrap interval over episodes. The clock knows how long the run",
        "will be and the visual distance sees its last picture: both know more than the model does.",
        "",
        "## Where it is no better than a baseline",
        "",
        *[f"- {line}" for line in limits(model, results) or ["In no slice of this table."]],
    ]
    return "\n".join(lines) + "\n"


def write_report(
    folder: Path, model: str, episodes: Sequence[HeldOut], results: Sequence[Evaluated], notes: Sequence[str]
) -> Path:
    """report.md, report.html and curves.png in a folder; returns the HTML file."""
    text = markdown(model, results, notes)
    write_file(folder / "curves.png", render(curves(episodes, results, model), REPORT_BYTES))
    write_file(folder / "report.md", text.encode())
    write_file(folder / "report.html", _html(model, results, notes).encode())
    return folder / "report.html"


def _html(model: str, results: Sequence[Evaluated], notes: Sequence[str]) -> str:
    rows = score_rows(results, main_slices(results))
    head = "".join(f"<th>{html.escape(c)}</th>" for c in (rows[0] if rows else []))
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in r.values()) + "</tr>" for r in rows)
    weak = "".join(f"<li>{html.escape(line)}</li>" for line in limits(model, results) or ["In no slice of this table."])
    style = "body{font:15px sans-serif;margin:2em auto;max-width:75em}td,th{padding:.2em .7em}img{width:100%}"
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(model)}</title><style>{style}</style>"
        f"<h1>Evaluation of {html.escape(model)}</h1>{''.join(f'<p>{html.escape(n)}</p>' for n in notes)}"
        f"<img src=curves.png alt='progress curves'><table><tr>{head}</tr>{body}</table>"
        f"<h2>Where it is no better than a baseline</h2><ul>{weak}</ul>"
    )


__all__ = ["curves", "label_of", "markdown", "score_rows", "truth_of", "write_report"]
