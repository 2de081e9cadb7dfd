"""Write the figures of docs/truth.md: `python docs/make_truth_page.py`.

They are read from docs/data: `python -m benchmarks.label_truth` writes real_truth.json with --real and sim_truth.json
with --sets, benchmarks.signal_truth real_signals.json, benchmarks.piper_placing piper_placing.json,
benchmarks.transfer transfer.json. What stands between the page's
markers is made anew; the rest is written by hand.
"""

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reference_pages import table

from benchmarks.trial import among_first
from eval.metrics.score import mean_of, score

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "truth.md"
DATA = ROOT / "docs" / "data"
FILES = ("real_truth", "sim_truth", "real_signals", "piper_placing", "transfer")
COMMAND = "python docs/make_truth_page.py"
WORST_SHARE = 1 / 3  # of the review queue
ONE = 1  # episode: a bootstrap over it says nothing

# What the sets show, for those who do not know them
WORDS = {
    "cr5_banana": "hand-guided arm, wrist camera, gripper recorded 1.3 s late",
    "gr1_pick_place": "humanoid with hands, simulated",
    "piper_pen": "one arm, loses a pen at the end",
    "robo_dopamine": "steps that the source brings",
    "roboc_franka_buttons": "presses three buttons with a fist",
    "so101_bimanual_cloth": "two arms fold a cloth, no task text",
}
SIMULATED = ("sim_short", "sim_long")
# Columns of the table of simulated runs, by the figure's name
CLEAN, TROUBLED = "clean: MAE less clock's", "troubled: MAE less clock's"
SIM_COLUMNS = {
    CLEAN: "finished runs: error less the clock's",
    TROUBLED: "runs in trouble: error less the clock's",
    "failed: end error": "failed runs: last frame off by",
    "F1 within 0.5 s": "boundaries within 0.5 s",
    "uniform cuts": "uniform cuts",
    "random cuts": "random cuts",
    "failed runs first in the queue, over chance": "failed runs first in the review queue",
}
# A difference of two figures, what is better where its interval is clear of zero, and whether more is better
CLAIMS = (
    ("f1_near less uniform", "boundaries against uniform cuts", True),
    ("f1_near less random", "boundaries against random cuts", True),
    ("events less random", "grasps and releases against random cuts", True),
    ("mae less clock", "progress against the clock", False),
)
Figure = Mapping[str, Any]
Figures = Mapping[str, Figure]


def stored_figures() -> dict[str, Any]:
    """The files of FILES by their names."""
    return {name: json.loads((DATA / f"{name}.json").read_text()) for name in FILES}


def page(text: str, data: Mapping[str, Any]) -> str:
    """The page with its figures made anew. Raises ValueError where it has not both markers of a part once."""
    parts = {
        "summary": summary_part(data["real_truth"], data["sim_truth"], data["transfer"]),
        "real": real_part(data["real_truth"]),
        "grippers": grippers_part(_real_robots(data), data["piper_placing"]),
        "simulated": simulated_part(data["sim_truth"]),
        "shown": shown_part(data["transfer"]),
    }
    for name, body in parts.items():
        begin, end = f"<!-- {name}: made by `{COMMAND}` -->", f"<!-- end of {name} -->"
        before, after = text.split(begin), text.split(end)
        if len(before) != 2 or len(after) != 2:
            raise ValueError(f"docs/truth.md needs each of the lines {begin} and {end} once")
        text = f"{before[0]}{begin}\n\n{body}\n\n{end}{after[1]}"
    return text


# All in one table


def summary_part(sets: Mapping[str, Any], simulated: Mapping[str, Any], transfer: Mapping[str, Any]) -> str:
    """How far labels are nearer to the truth than looking at nothing: a row for each kind of labels and runs."""
    ours = [s for s in sets.values() if s["labels_by"] == "motion" and s["episodes"] and not s["simulated"]]
    robots = [e for s in ours for e in s["episodes"].values()]
    real = pooled(robots)
    shown = [row for row in transfer["rows"] if row["kind"] == "real" and row["references"] == ONE]
    runs = sum(row["runs"] for row in shown)
    rows = [
        (
            f"motion: real robots ({len(robots)} episodes of {len(ours)} sets)",
            *_summary_cells(_value(real["mae"]) - _value(real["mae_clock"]), _value(real["f1_near"])),
            _short(real["f1_near_uniform"]),
        ),
        (
            f"one labelled run shows the others: hand-labelled sets ({runs} episodes of {len(shown)})",
            *_summary_cells(*(sum(row["runs"] * f(row) for row in shown) / runs for f in (_less_clock, _f1))),
            f"{sum(row['runs'] * row['uniform'] for row in shown) / runs:.2f}",
        ),
    ]
    for row in simulated["rows"]:
        known = "the source says which failed" if row["outcomes"] == "with" else "nobody says which failed"
        for column, kind in ((CLEAN, "finished"), (TROUBLED, "in trouble")):
            figures = row["figures"]
            rows.append(
                (
                    f"motion: simulated runs, {kind}; {known}",
                    _simulated_cell(figures, column),
                    _simulated_cell(figures, "F1 within 0.5 s") if kind == "finished" else "",
                    _short(figures["uniform cuts"]) if kind == "finished" else "",
                )
            )
    head = ("labels", "error of progress less the clock's", "boundaries within 0.5 s (F1)", "uniform cuts")
    return table(head, rows)


def _summary_cells(less_clock: float, f1: float) -> tuple[str, str]:
    return _bold(f"{less_clock:.3f}", less_clock < 0), f"{f1:.2f}"


def _less_clock(row: Mapping[str, Any]) -> float:
    return row["error"] - row["clock"]


def _f1(row: Mapping[str, Any]) -> float:
    return row["f1"]


# Real robots


def real_part(sets: Mapping[str, Any]) -> str:
    """The table, those of real robots first, and what it says."""
    names = [name for name in sets if sets[name]["episodes"]]
    names.sort(key=lambda name: (sets[name]["simulated"], sets[name]["labels_by"] != "motion", name))
    shown = {name: sets[name] for name in names}
    ours = {name: s for name, s in shown.items() if s["labels_by"] == "motion"}
    rows = [
        _real_row(name, sets[name]["labels_by"], len(sets[name]["episodes"]), sets[name]["figures"]) for name in names
    ]
    robots = [e for s in ours.values() if not s["simulated"] for e in s["episodes"].values()]
    if robots:
        rows.append(_real_row("all real robots", "motion", len(robots), pooled(robots)))
    head = ("set", "labels by", "episodes", "boundaries within 0.5 s (F1)", "uniform; random cuts")
    head += ("within 1 s (F1)", "uniform; random cuts", "BF1@5; uniform split", "grasps and releases within 0.5 s")
    head += ("error of progress", "clock", "two people apart", "unnamed steps")
    versions = ", ".join(sorted({s["code_version"] for s in ours.values()}))
    findings = "\n".join(f"- {line}" for line in real_findings(ours))
    return f"Labels by {versions}.\n\n{table(head, rows)}\n\n{findings}"


def pooled(episodes: Sequence[Mapping[str, Any]]) -> Figures:
    """The mean of each figure over episodes of several sets; of BF1@5 the ratio of sums."""
    names = [name for name, value in episodes[0].items() if value is None or isinstance(value, float | int)]
    columns = {name: [math.nan if e[name] is None else float(e[name]) for e in episodes] for name in names}
    means = {name: dict(vars(score(mean_of(column)))) for name, column in columns.items()}
    for suffix in ("", "_uniform"):
        hits, total = sum(columns[f"bf1_hits{suffix}"]), sum(columns[f"bf1_total{suffix}"])
        means[f"bf1{suffix}"] = {"value": hits / total if total else None, "n": len(episodes)}
    return means


def _real_row(name: str, labels_by: str, episodes: int, f: Figures) -> tuple[str, ...]:
    cuts = max(_value(f["f1_near_uniform"]), _value(f["f1_near_random"]))
    events = _text(f["events"])
    return (
        f"`{name}`: {WORDS[name]}" if name in WORDS else name,
        labels_by,
        str(episodes),
        _bold(_text(f["f1_near"]), _value(f["f1_near"]) > cuts),
        _both(f["f1_near_uniform"], f["f1_near_random"]),
        _text(f["f1_far"]),
        _both(f["f1_far_uniform"], f["f1_far_random"]),
        _both(f["bf1"], f["bf1_uniform"]),
        events if events == "–" else f"{events}; {_value(f['events_off_s']):.2f} s off",
        _bold(_text(f["mae"], 3), _value(f["mae"]) < _value(f["mae_clock"])),
        _short(f["mae_clock"], 3),
        _short(f["mae_passes"], 3),
        f"{_value(f['unnamed']):.0%}",
    )


def _value(figure: Figure) -> float:
    return math.nan if figure["value"] is None else float(figure["value"])


def _short(figure: Figure, digits: int = 2) -> str:
    value = _value(figure)
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _both(first: Figure, second: Figure) -> str:
    return f"{_short(first)}; {_short(second)}"


def _text(figure: Figure, digits: int = 2) -> str:
    """Value and interval; over one episode there is none."""
    if figure["n"] <= ONE:
        return _short(figure, digits)
    return f"{_short(figure, digits)} ({figure['low']:.{digits}f} to {figure['high']:.{digits}f})"


def _bold(text: str, is_better: bool) -> str:
    return text if is_better or text == "–" else f"**{text}**"


# What the table of real robots says


def real_findings(sets: Mapping[str, Any]) -> list[str]:
    """Sentences about the sets that motion has labelled."""
    several = {name: s for name, s in sets.items() if len(s["episodes"]) > ONE}
    claims: dict[str, list[str]] = {}  # that hold on the same sets
    for difference, claim, more_is_better in CLAIMS:
        gaps = {name: s["differences"][difference] for name, s in several.items()}
        gaps = {name: gap for name, gap in gaps.items() if gap["n"] > ONE}
        unclear = [name for name, gap in gaps.items() if not (gap["low"] > 0 if more_is_better else gap["high"] < 0)]
        but = f" (not on {', '.join(f'`{name}`' for name in unclear)})" if unclear else ""
        where = f"{len(gaps) - len(unclear)} of the {len(gaps)} sets with more than one episode{but}"
        claims.setdefault(where, []).append(claim)
    better = "Labels by motion are better, and the interval of the difference excludes zero"
    said = [f"{better}, on {where}: {', '.join(found)}." for where, found in claims.items()]
    lines = [textwrap.fill(line, 118, subsequent_indent="  ") for line in said]
    for name, s in sets.items():
        if name not in several:
            share = _value(s["figures"]["f1_near_chance"])
            lines.append(
                f"`{name}` is one episode: no interval; {share:.1%} of random cuts are as good as its boundaries."
            )
    return [*lines, *_with_outcomes(sets), _wrong_labels(sets)]


def _with_outcomes(sets: Mapping[str, Any]) -> list[str]:
    """What changes when it is stated how the runs ended."""
    changes = []
    for s in sets.values():
        stated = s["with_outcomes"]["figures"]
        if stated and stated["mae"]["n"] == s["figures"]["mae"]["n"]:
            changes.append(_value(stated["mae"]) - _value(s["figures"]["mae"]))
    if not changes:
        return []
    ends = f"{min(changes):+.3f} to {max(changes):+.3f}"
    return [f"Telling the annotator how runs ended changes a set's error of progress by {ends}."]


def _wrong_labels(sets: Mapping[str, Any]) -> str:
    """Does the review queue put wrong labels first?"""
    episodes = [e for s in sets.values() for e in s["episodes"].values()]
    wrong = [e["is_wrong"] for e in episodes]
    if not any(wrong):
        return f"Each of the {len(wrong)} labels by motion is better than random cuts and than the clock."
    what = f"{sum(wrong)} of {len(wrong)} labels are no better than random cuts, or than the clock."
    reached = among_first(wrong, [e["review_score"] or 0.0 for e in episodes], WORST_SHARE)
    return f"{what} {reached:.0%} of those are in the worst third of the review queue."


def _real_robots(data: Mapping[str, Any]) -> dict[str, Any]:
    """The events of the sets that are not simulated."""
    events, sets = data["real_signals"]["events"], data["real_truth"]
    return {name: one for name, one in events.items() if not sets.get(name, {}).get("simulated")}


def grippers_part(events: Mapping[str, Any], placings: Mapping[str, int]) -> str:
    """What the grippers show, from which labels are made."""
    names = ("detected", "near_truth", "labelled", "near_detected", "seconds_off")
    total = {name: sum(one["counts"][name] for one in events.values()) for name in names}
    off = total["seconds_off"] / max(1, total["near_detected"])
    sentences = (
        f"Of {total['detected']:.0f} closings and openings detected on real robots, "
        f"{total['near_truth']:.0f} are within 0.5 s of what people saw.",
        f"Of {total['labelled']:.0f} labelled grasps and releases {total['near_detected']:.0f} are detected, "
        f"{off:.2f} s off on average.",
        f"An arm of a seventh set closes its gripper again on its way home: in {placings['right']} of "
        f"{placings['runs']} runs\nthe label has the grape placed where it was let go.",
    )
    return "\n".join(sentences)


# Simulation


def simulated_part(data: Mapping[str, Any]) -> str:
    """One table: each dataset of each set, with and without outcomes in the source."""
    head = ("set", "runs", "outcomes", *SIM_COLUMNS.values())
    rows = []
    for row in data["rows"]:
        dataset = row["dataset"]
        name = f"`{row['set']}`, `{dataset}`" if dataset in SIMULATED else "all"
        told = "in the source" if row["outcomes"] == "with" else "left out"
        rows.append((name, str(row["runs"]), told, *(_simulated_cell(row["figures"], c) for c in SIM_COLUMNS)))
    return f"Labels by {data['code_version']}.\n\n{table(head, rows)}"


def _simulated_cell(figures: Figures, column: str) -> str:
    """A figure with its interval, cuts without; in bold what is no better than the clock, or than such cuts."""
    figure = figures[column]
    if figure["value"] is None:
        return "–"
    if column.startswith("failed runs first"):
        return f"{figure['value']:.1f} x chance"
    if column.endswith("cuts"):
        return _short(figure, 3)
    is_better = {
        "clock's": figure["value"] < 0,
        "0.5 s": figure["value"] > max(_value(figures["uniform cuts"]), _value(figures["random cuts"])),
    }
    text = _short(figure, 3)
    if figure["low"] is not None:
        text = f"{text} ({figure['low']:.3f} to {figure['high']:.3f})"
    return _bold(text, all(better for ending, better in is_better.items() if column.endswith(ending)))


# Runs that are labelled like references


def shown_part(data: Mapping[str, Any]) -> str:
    """The error by the number of references, of each set and kind of runs; then what wrong references do."""
    cells = {(row["dataset"], row["kind"], row["references"]): row for row in data["rows"]}
    counts = sorted({row["references"] for row in data["rows"]})
    head = ("set", "runs", "clock", *(f"error, {n} reference{'s' if n > 1 else ''}" for n in counts))
    head += ("boundaries within 0.5 s, 1 and 3 references", "uniform cuts", "failed attempts found, 3 references")
    rows = [
        _shown_row(dataset, kind, counts, cells)
        for dataset, kind in dict.fromkeys((row["dataset"], row["kind"]) for row in data["rows"])
        if kind != "outcome"
    ]
    outcomes = [row for row in data["rows"] if row["kind"] == "outcome" and row["references"] == 3]
    aucs = "; ".join(f"`{row['dataset']}` {row['auc']:.2f}" for row in outcomes)
    kinds = tuple(dict.fromkeys(row["reference"] for row in data["wrong"]))
    followed = {(row["dataset"], row["reference"]): f"{row['runs that follow it']:.0%}" for row in data["wrong"]}
    wrong = [
        (f"`{dataset}`", *(followed.get((dataset, kind), "–") for kind in kinds))
        for dataset in dict.fromkeys(row["dataset"] for row in data["wrong"])
    ]
    return "\n\n".join(
        (
            f"Labels by {data['code_versions']['transfer']}.",
            table(head, rows),
            f"AUC of the probability of failure, failed against finished runs, with 3 references:\n{aucs}.",
            "How many runs follow one reference that is right, and one that is not:",
            table(("set", *kinds), wrong),
        )
    )


def _shown_row(
    dataset: str, kind: str, counts: Sequence[int], cells: Mapping[tuple[str, str, int], Any]
) -> tuple[str, ...]:
    of = [cells.get((dataset, kind, n)) for n in counts]
    one, three = (cells.get((dataset, kind, n)) for n in (1, 3))
    first = next(row for row in of if row)
    name = f"`{dataset}`" if kind == "real" else f"`{dataset}`, {kind}"
    found = three and three["failed attempts found"]
    return (
        name,
        str(first["runs"]),
        f"{first['clock']:.3f}",
        *("–" if row is None else _bold(f"{row['error']:.3f}", row["error"] < row["clock"]) for row in of),
        "; ".join(map(_f1_cell, (one, three))),
        f"{first['uniform']:.2f}",
        "–" if found is None else f"{found:.0%}",
    )


def _f1_cell(row: Mapping[str, Any] | None) -> str:
    return "–" if row is None else _bold(f"{row['f1']:.2f}", row["f1"] > row["uniform"])


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(), stored_figures()))


if __name__ == "__main__":
    main()
