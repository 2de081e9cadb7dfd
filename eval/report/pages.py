"""The report of an evaluation: rows of its tables, sentences on its limits, the episodes and figures that it shows
(progress over time, calibration, errors by dataset, training, the leaderboard), and its pages."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from core.figures import COLOURS, Figure, jpeg_to_rgb, new_figure, render, shorten
from core.files import write_file
from core.metrics import REPORT, is_lower_better, leading_metrics, metrics_shown_in
from core.values import shown, spread
from eval.metrics.score import NO_SCORE
from eval.probes import UNDER, VIDEO
from eval.scored import ALL, ScoredBenchmark, model_comparison

ERRORS = tuple(filter(is_lower_better, leading_metrics()[:4]))  # of those that lead a benchmark
UPPER_BOUND = "the label itself"  # an entry that no model has to beat
SHOWN = 4  # episodes beside each other
Stills = Callable[[tuple[str, ...]], Sequence[bytes]]


@dataclass(frozen=True)
class Report:
    """What a report is made of. The first entry of each benchmark is the model, those after it stand beside it.

    `parts`: slices of the main table. `stills(key)`: pictures of an episode in order of time, empty where none are;
    `examples`: of what was shown, by its name.
    """

    model: str
    entries: Sequence[ScoredBenchmark]
    parts: Sequence[str] = (ALL,)
    notes: Sequence[str] = ()
    stills: Stills = lambda key: ()
    examples: Mapping[str, Sequence[bytes]] = field(default_factory=dict)

    @property
    def own(self) -> list[ScoredBenchmark]:
        """The model's own entries."""
        return [e for e in self.entries if e.model == self.model]

    def rivals(self, entry: ScoredBenchmark) -> list[ScoredBenchmark]:
        """The other entries of the same benchmark."""
        return [e for e in self.entries if e.benchmark == entry.benchmark and e.model != self.model]


def score_rows(entries: Sequence[ScoredBenchmark], parts: Sequence[str]) -> list[dict]:
    """One row per slice and entry: metrics with their interval as text, episodes, coverage."""
    scored = chain.from_iterable(e.scores for e in entries)
    scored_metrics = {metric for part, metric in scored if part in parts}
    # One set of columns for all slices: the metrics that any entry has in any of them
    columns = [metric for metric in metrics_shown_in(REPORT) if metric in scored_metrics]
    return list(
        filter(None, (_score_row(entry, part, columns) for part, entry in product(parts, entries)))
    )


def _score_row(entry: ScoredBenchmark, part: str, columns: Sequence[str]) -> dict | None:
    """None where an entry has none of the metrics in a slice."""
    scores = [entry.scores.get((part, metric)) for metric in columns]
    episodes = [s.n for s in scores if s is not None]
    texts = ("–" if s is None else s.text() for s in scores)
    coverage = entry.scores.get((part, "coverage"), NO_SCORE)
    row = {
        "benchmark": entry.benchmark,
        "slice": part,
        "model": entry.model,
        **dict(zip(columns, texts, strict=True)),
        "episodes": max(episodes, default=0),
        "coverage": f"{coverage.value:.0%}" if coverage.n else "–",
    }
    if episodes:
        return row
    return None


def difference_rows(report: Report) -> Iterator[dict]:
    """The model less each other entry, paired over episodes, on the metric that leads its
    benchmark."""
    for entry in report.own:
        metric = next((m for m in leading_metrics() if m in entry.measures), "")
        for rival in report.rivals(entry):
            d = model_comparison(entry, rival).differences.get(metric)
            # Without an episode in common that both have the metric of there is nothing to compare
            if d is not None and d.n:
                yield {
                    "benchmark": entry.benchmark,
                    "against": rival.model,
                    "metric": metric,
                    "difference": f"{d.value:+.3f} ({d.low:+.2f} to {d.high:+.2f})",
                    "p": f"{d.p:.3f}",
                    "episodes": d.n,
                }


def weak_points(report: Report) -> Iterator[str]:
    """Plain sentences on where the model is no better than what stands beside it, from the scores
    themselves."""
    for entry, metric, part in product(report.own, ERRORS, report.parts):
        ours = entry.scores.get((part, metric), NO_SCORE)
        for rival in report.rivals(entry):
            theirs = rival.scores.get((part, metric), NO_SCORE)
            if ours.n and theirs.n and rival.model != UPPER_BOUND and ours.value >= theirs.value:
                yield (
                    f"{entry.benchmark}, {part}: no better than {rival.model} ({metric} {ours.value:.3f} against "
                    f"{theirs.value:.3f}, {ours.n} episodes)."
                )


def worst_episodes(entry: ScoredBenchmark) -> list[tuple[int, float]]:
    """(episode, MAE) of those with the largest error over their readable answers."""
    measure = entry.measures.get("mae", entry.measures.get("score_error_episodes"))
    if measure is None or entry.series is None:
        return []
    # Episodes without a readable answer have no error: -1 puts them last
    errors = np.where(measure.counted, measure.parts[:, 0], -1.0)
    order = np.argsort(-errors, kind="stable")[:SHOWN]
    return [(int(k), float(errors[k])) for k in order if errors[k] >= 0]


def varied_episodes(entry: ScoredBenchmark, count: int = SHOWN) -> list[int]:
    """Episodes with answers, in turn of each split (or part), and there one of each kind of slices
    first."""
    assert entry.series is not None
    with_answers = np.flatnonzero(entry.series.lengths > 0).tolist()
    slices = {k: entry.episodes[k].slices for k in with_answers}

    # The first episode of each kind of slices comes before all others
    seen_slices: set[tuple[str, ...]] = set()
    first = []
    later = []
    for k in with_answers:
        (later if slices[k] in seen_slices else first).append(k)
        seen_slices.add(slices[k])

    # Splits take turns: all first episodes of a split, then all second ones, and so on
    turns: Counter[tuple[str, ...]] = Counter()
    in_turn = []
    for place, k in enumerate(first + later):
        split = slices[k][:1]
        in_turn.append((turns[split], place, k))
        turns[split] += 1
    return [k for _, _, k in sorted(in_turn)[:count]]


# Figures

BINS = 10  # of predictions, 0..1
STILL_PX = 96  # height of a picture
NAME_LENGTH = 24  # of a model in a legend
GREY = "#bbbbbb"
OWN = COLOURS[3]  # the model's colour in every figure
SMOOTHED_OVER = 10  # steps of training
DARK_CELL = 0.6  # from which on a cell of a matrix has white letters
CELL_NAME = 44  # of a task beside a matrix


def curves_figure(report: Report, entry: ScoredBenchmark, episodes: Sequence[int]) -> Figure:
    """Progress over time of some episodes, each below its stills: label, model and what stands
    beside it."""
    columns = max(1, len(episodes))
    figure, axes = new_figure(3.4 * columns, 3.8, 2, columns, height_ratios=[1, 2])
    for column, episode in enumerate(episodes):
        key = entry.episodes[episode].key
        _draw_stills(axes[0, column], report, key)
        _draw_curves(axes[1, column], report, entry, episode, key)
    axes[1, 0].set_ylabel("progress")
    axes[1, 0].legend(fontsize=7)
    return figure


def _draw_stills(axis: Any, report: Report, key: tuple[str, ...]) -> None:
    stills = report.stills(key)
    axis.axis("off")
    axis.set_title(" ".join(key)[-40:], fontsize=8)
    if stills:
        # Evenly spread over the episode; of a short one fewer
        pictures = [jpeg_to_rgb(still, STILL_PX) for still in spread(stills, SHOWN)]
        axis.imshow(np.concatenate(pictures, axis=1))


def _draw_curves(
    axis: Any, report: Report, entry: ScoredBenchmark, episode: int, key: tuple[str, ...]
) -> None:
    assert entry.series is not None
    time, predicted, target = entry.series.curve(episode)
    axis.plot(time, target, color=COLOURS[0], lw=1.5, label="label")

    # Ground truth is what the model's entry of the benchmark's second half is scored against
    against_truth = [e for e in report.own if e.benchmark == f"{entry.benchmark} (truth)"]
    for _, _, truth in _series_of(against_truth, key):
        axis.plot(time, truth, color="black", lw=1, ls="--", label="truth")
    clocks = [rival for rival in report.rivals(entry) if rival.model == "clock"]
    for clock_time, by_clock, _ in _series_of(clocks, key):
        axis.plot(clock_time, by_clock, color=GREY, lw=1, label="clock")
    axis.plot(
        time, predicted, ".-", ms=3, color=OWN, lw=1.5, label=shorten(entry.model, NAME_LENGTH)
    )
    axis.set(ylim=(-0.03, 1.03), xlabel="share of its time")


def _series_of(
    entries: Sequence[ScoredBenchmark], key: tuple[str, ...]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for entry in entries:
        place = entry.find(key)
        if entry.series is not None and place is not None:
            yield entry.series.curve(place)


def calibration_figure(entry: ScoredBenchmark) -> Figure:
    """Mean label in each tenth of the predictions, with its spread, and how many answers lie there."""
    assert entry.series is not None
    runs = entry.series
    readable = ~np.isnan(runs.predicted)
    predicted = runs.predicted[readable]
    target = runs.target[readable]
    bin_of = np.minimum((predicted * BINS).astype(int), BINS - 1)
    figure, axes = new_figure(7.0, 2.9, 1, 2, width_ratios=[1, 1])

    # A calibrated model lies on the diagonal; bins without an answer have no mean
    axes[0, 0].plot([0, 1], [0, 1], color=GREY, lw=1)
    members = [bin_of == k for k in np.unique(bin_of)]
    means = [float(target[in_bin].mean()) for in_bin in members]
    deviations = [float(target[in_bin].std()) for in_bin in members]
    centres = [float(predicted[in_bin].mean()) for in_bin in members]
    axes[0, 0].errorbar(centres, means, yerr=deviations, fmt="o-", ms=4, lw=1, color=OWN)
    axes[0, 0].set(
        xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="predicted", ylabel="label (mean, spread)"
    )
    axes[0, 1].bar(
        (np.arange(BINS) + 0.5) / BINS, np.bincount(bin_of, minlength=BINS), 0.09, color=COLOURS[0]
    )
    axes[0, 1].set(xlabel="predicted", ylabel="answers")
    return figure


def bars_figure(
    report: Report, model_entry: ScoredBenchmark, kind: str = "dataset"
) -> Figure | None:
    """The leading error by dataset for every entry of a benchmark, with intervals; None without
    such slices."""
    metric = next((m for m in ERRORS if m in model_entry.measures), None)
    parts = sorted(
        {
            part
            for part, _ in model_entry.scores
            if part.startswith(f"{kind} ") and ", split " not in part
        }
    )
    if metric is None or not parts:
        return None

    # In each slice the entries' bars lie below one another around its tick
    entries = [model_entry, *report.rivals(model_entry)]
    figure, axes = new_figure(height=0.8 + 0.22 * len(parts) * len(entries))
    axis = axes[0, 0]
    height = 0.8 / len(entries)
    for i, entry in enumerate(entries):
        offset = (i - (len(entries) - 1) / 2) * height
        _draw_bars(axis, entry, parts, metric, offset, height, _entry_colour(entry, model_entry, i))
    axis.set_yticks(range(len(parts)), [p.removeprefix(f"{kind} ") for p in parts])
    axis.invert_yaxis()
    axis.set_xlabel(f"{metric} (less is better)")
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _entry_colour(entry: ScoredBenchmark, model_entry: ScoredBenchmark, number: int) -> str:
    rivals = [c for c in COLOURS if c != OWN]
    if entry is model_entry:
        return OWN
    if entry.model == "clock":
        return GREY
    return rivals[number % len(rivals)]


def _draw_bars(
    axis: Any,
    entry: ScoredBenchmark,
    parts: Sequence[str],
    metric: str,
    offset: float,
    height: float,
    colour: str,
) -> None:
    scores = (entry.scores.get((part, metric), NO_SCORE) for part in parts)
    bars = {y + offset: score for y, score in enumerate(scores) if score.n}
    values = np.array([score.value for score in bars.values()])
    bounds = [[score.value - score.low, score.high - score.value] for score in bars.values()]
    errors = np.maximum(np.array(bounds).reshape(-1, 2).T, 0)
    label = shorten(entry.model, NAME_LENGTH)
    axis.barh([*bars], values, height * 0.9, xerr=errors, color=colour, label=label)


def confusion_figure(entry: ScoredBenchmark) -> Figure | None:
    """Mean last answers to the finished runs of each task (rows) under each instruction (columns);
    None without any."""
    cells = confusion_cells(entry)
    if not cells:
        return None
    videos, instructions = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    # Where an instruction has a run of its own it lies on the diagonal
    columns = sorted(instructions, key=lambda name: [*videos, name].index(name))
    values = [cells.get(cell, np.nan) for cell in product(videos, columns)]
    matrix = np.reshape(values, (len(videos), len(columns)))
    figure, axes = new_figure(4.6 + 0.42 * len(columns), 3.4 + 0.34 * len(videos))
    axis = axes[0, 0]
    image = axis.imshow(matrix, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(matrix):
        colour = "white" if value > DARK_CELL else "black"
        text = "" if np.isnan(value) else f"{value:.2f}"
        axis.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    axis.set_xticks(
        range(len(columns)),
        [shorten(c, CELL_NAME) for c in columns],
        rotation=60,
        ha="right",
        fontsize=7,
    )
    axis.set_yticks(range(len(videos)), [shorten(v, CELL_NAME) for v in videos], fontsize=7)
    axis.set(xlabel="instruction", ylabel="task of the video")
    figure.colorbar(image, ax=axis, label="progress at the end", shrink=0.8)
    return figure


def confusion_cells(entry: ScoredBenchmark) -> dict[tuple[str, str], float]:
    """The matrix among the scores of an evaluation, by (task of the video, instruction)."""
    return {
        (part.removeprefix(VIDEO), metric.removeprefix(UNDER)): score.value
        for (part, metric), score in entry.scores.items()
        if part.startswith(VIDEO) and metric.startswith(UNDER)
    }


def examples_figure(examples: Mapping[str, Sequence[bytes]]) -> Figure:
    """What a model was shown: a row of pictures for each kind."""
    figure, axes = new_figure(6.0, 1.15 * len(examples), len(examples), 1)
    for axis, (name, pictures) in zip(axes[:, 0], examples.items(), strict=True):
        axis.imshow(np.concatenate([jpeg_to_rgb(p, 2 * STILL_PX) for p in pictures], axis=1))
        axis.set_title(name, fontsize=8, loc="left")
        axis.axis("off")
    return figure


def training_figure(curve: Sequence[Mapping[str, Any]]) -> Figure:
    """Training loss and batch progress error over steps, smoothed; `curve`: the points of a
    checkpoint's curve.json."""
    figure, axes = new_figure()
    for name, colour in (("loss", COLOURS[0]), ("progress", COLOURS[3])):
        values = np.array([point[name] for point in curve if point[name] is not None])
        if not len(values):
            continue
        width = min(SMOOTHED_OVER, len(values))
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes[0, 0].plot(np.arange(len(smooth)) + width - 1, smooth, color=colour, label=name)
    # A loss of GRPO may be 0 or less at each step
    has_log = any((line.get_ydata() > 0).any() for line in axes[0, 0].get_lines())
    axes[0, 0].set(xlabel="step", yscale="log" if has_log else "linear", ylabel="loss")
    axes[0, 0].legend(fontsize=8)
    return figure


def leaderboard_figure(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """MAE of every model and baseline on test_id, from rows of the leaderboard; None where none has one."""
    on_test_id = [r for r in rows if r["slice"] == "split test_id" and r["mae"] is not None]
    if not on_test_id:
        return None
    figure, axes = new_figure(height=0.7 + 0.28 * len(on_test_id))
    names = [f"{r['model'][:30]} | {r['benchmark']}" for r in on_test_id]
    axes[0, 0].barh(names[::-1], [r["mae"] for r in on_test_id][::-1], color=COLOURS[0])
    axes[0, 0].set_xlabel("mean absolute error on test_id (less is better)")
    return figure


# Pages: Markdown and HTML, and the pictures beside them

PICTURE_BYTES = 300_000
EXPLAINED = (
    "Means over episodes, except score_error and ref_error, which are over answers; in brackets the 95 % bootstrap "
    "interval over episodes. Coverage is the share of answers that could be read; those that could not count as wrong "
    "as can be. The clock knows how long the run will be and the visual distance sees its last picture: both know more "
    "than the model does; the running clock and the reference clock do not. docs/evaluation.md says what metrics are."
)
NOWHERE = "In no slice of this table."
WEAK_TITLE = "Where it is no better than what stands beside it"
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=select_autoescape(("html.jinja",)),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def write_report(folder: Path, report: Report) -> Path:
    """report.md, report.html and their pictures in a folder; returns the HTML file."""
    captioned = captioned_pictures(report)
    for name, (_, picture) in captioned.items():
        write_file(folder / name, picture)
    context = {
        "report": report,
        "sections": _headed_tables(report),
        "explained": EXPLAINED,
        "weak_title": WEAK_TITLE,
        "weak": list(weak_points(report)) or [NOWHERE],
        "captions": {name: caption for name, (caption, _) in captioned.items()},
    }
    for name in ("report.md", "report.html"):
        write_file(
            folder / name, shown(TEMPLATES.get_template(f"{name}.jinja").render(context)).encode()
        )
    return folder / "report.html"


def captioned_pictures(report: Report) -> dict[str, tuple[str, bytes]]:
    """(caption, picture) by file name: the matrix where there is one, else of the model's first
    benchmark."""
    figures: dict[str, tuple[str, Figure | None, str]] = {}
    title = "Instruction x video: progress at the end of finished runs, under each instruction"
    if report.own:
        figures["confusion.png"] = (title, confusion_figure(report.own[0]), report.own[0].benchmark)
    # The model's first entry with progress over time, if that holds any answer
    model_entry = next((entry for entry in report.own if entry.series is not None), None)
    if model_entry and model_entry.series and len(model_entry.series.target):
        figures |= _figures_over_time(report, model_entry)
    if report.examples:
        figures["examples.png"] = (
            "What was shown",
            examples_figure(report.examples),
            report.own[0].benchmark,
        )
    return {
        name: (f"{caption} ({benchmark})", render(figure, PICTURE_BYTES))
        for name, (caption, figure, benchmark) in figures.items()
        if figure is not None
    }


def _figures_over_time(
    report: Report, model_entry: ScoredBenchmark
) -> dict[str, tuple[str, Figure | None, str]]:
    figures: dict[str, tuple[str, Figure | None, str]] = {
        "curves.png": (
            "Progress over time",
            curves_figure(report, model_entry, varied_episodes(model_entry)),
            model_entry.benchmark,
        ),
        "calibration.png": (
            "Calibration: where it says x, what is the label?",
            calibration_figure(model_entry),
            model_entry.benchmark,
        ),
        "datasets.png": ("By dataset", bars_figure(report, model_entry), model_entry.benchmark),
        "parts.png": ("By part", bars_figure(report, model_entry, "part"), model_entry.benchmark),
    }
    worst = [episode for episode, _ in worst_episodes(model_entry)]
    if worst:
        figures["worst.png"] = (
            "The worst episodes",
            curves_figure(report, model_entry, worst),
            model_entry.benchmark,
        )
    return figures


def _headed_tables(report: Report) -> list[tuple[str, list[dict]]]:
    """Headed tables, empty ones left out."""
    worst = []
    for model_entry in report.own[:1]:
        episodes = model_entry.episodes
        worst += [
            {
                "benchmark": model_entry.benchmark,
                "episode": " ".join(episodes[number].key),
                "error": f"{error:.3f}",
            }
            for number, error in worst_episodes(model_entry)
        ]
    tables = [
        ("Scores", score_rows(report.entries, report.parts)),
        ("Against what stands beside it, episode by episode", list(difference_rows(report))),
        ("The worst episodes", worst),
    ]
    return [(title, rows) for title, rows in tables if rows]
