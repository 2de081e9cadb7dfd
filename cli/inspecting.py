"""Looking at a dataset before any build."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from annotate.signal_report import lag_columns, rests_on_enough, signal_columns
from cli.options import (
    AS_JSON,
    DONE,
    FAILED,
    DataFormatOption,
    Result,
    RevisionOption,
    Space,
    check_source,
    command,
    counted,
    note,
    painted,
    say,
    say_next,
)
from cli.output import looking_at, pairs_text, show, width_here
from core.paths import Workspace
from core.values import grouped, shown
from ingest.episode import part_form
from ingest.signals.gripper import signal_from_row
from ingest.sources.types import address_below
from pipeline.inspection import in_short, inspect_source
from pipeline.inspection_report import finding_groups, write_report, writer_of

PICTURED = 8  # runs in a report
MAX_TASKS = 5  # of a dataset, in a table for people
# So many parts of a source are named: of one use, left out, used for nothing
MAX_NAMED, MAX_KNOWN, MAX_UNKNOWN = 8, 4, 20
# Uses of parts that are listed first, in this order
USES = ("camera", "state", "action", "time", "instruction", "steps", "outcome")
ORDER = ("unknown", "used", "known")


@command("inspect")
def inspect(
    space: Space,
    path: Annotated[
        str, Argument(help="A folder, a video file, or an address such as hf://owner/name.")
    ],
    full: Annotated[
        bool, Option(help="Decode all episodes, not only a sample; list all parts.")
    ] = False,
    revision: RevisionOption = None,
    data_format: DataFormatOption = None,
    report: Annotated[
        Path | None,
        Option(help="Also write a report: a file that ends in .html or .jsonl."),
    ] = None,
) -> Result:
    """Show what a dataset holds, what is wrong with it, and how to repair it. Decodes a sample.

    Exits 1 on bad findings. Oddities that people accepted in the workspace (say acceptance) are
    counted, and not told again. For a folder with several datasets: prints one line on each, from
    its metadata.
    """
    check_source(path, revision)
    if report is not None:
        writer_of(report)
    is_page = report is not None and report.suffix == ".html"
    accepted = _accepted(space)
    with looking_at(path):
        result = inspect_source(
            path,
            revision,
            format=data_format,
            full=full,
            num_pictured=PICTURED * is_page,
            accepted=accepted,
        )
    if report is not None:
        write_report(report, result)
        note(f"report: {report}")
    is_unusable = any(f["severity"] == "unusable" for f in result["findings"])
    code = FAILED if is_unusable else DONE
    if AS_JSON.get():
        facts = {name: value for name, value in result.items() if name != "pictured"}
        return Result(facts, code=code)
    if "datasets" in result:
        _show_datasets(result)
    else:
        _show_dataset(result, full)
    return Result(code=code)


def _accepted(space: Workspace) -> dict[str, Any]:
    """By source what people accepted of datasets that the workspace holds; without one nothing."""
    if not space.exists():
        return {}
    # What reads a lake takes as long to import as a small dataset to inspect
    from warehouse.lake.acceptances import accepted_by_source

    return accepted_by_source(space)


def _show_datasets(result: dict[str, Any]) -> None:
    """The datasets of a folder, a line each, and how to go on."""
    rows = result["datasets"]
    say(f"{result['path']} holds {len(rows)} datasets (looked at: {result['looked_at']}).")
    names = ("folder", "format", "episodes", "usable_so_far")
    lines = []
    for row in rows:
        lines.append({name: row[name] for name in names} | {"what is wrong": in_short(row)})
    show(lines)
    if result["beside"]:
        say(f"In none of them: {len(result['beside'])} files, such as {result['beside'][0]}.")
    first_address = shlex.quote(address_below(result["path"], rows[0]["folder"]))
    all_of_them = f"build --source {shlex.quote(result['path'])}"
    say_next(
        {"one of them in full": f"inspect {first_address}", "each under its own name": all_of_them}
    )


def _show_dataset(result: dict[str, Any], full: bool) -> None:
    """What it is in a line, how much of it is usable, its facts, lists as tables, what is wrong,
    and how to go on."""
    parts = filter(
        None, (result["format"], result["robot"], counted(result["episodes"], "episode"))
    )
    say("   ".join((painted(result["path"], "bold"), *parts)))
    say(_verdict(result))
    say(f"\n{pairs_text(_facts(result), width_here())}\n")
    show(result["camera_details"], empty="No cameras.")
    say("")
    # A finding says where a gripper was looked for
    none = "No gripper and no hand" + (
        "." if result["has_rows"] else ": no rows of state or action are read."
    )
    show([signal_columns(signal_from_row(row)) for row in result["signals"]], empty=none)
    say("")
    lags = [lag_columns(row) for row in result["signal_lags"] if rests_on_enough(row)]
    show(
        lags,
        empty="Too few episodes were decoded to tell how far signals are behind the pictures.",
    )
    say("")
    _show_parts(result["parts"], full)
    _show_findings(result)
    say("")
    if result["usable_so_far"]:
        say_next({"build it": f"build --source {shlex.quote(result['path'])}"})
    else:
        say("Next: mend what makes it unusable, and inspect it again.")


def _show_findings(result: dict[str, Any]) -> None:
    """What is wrong and what helps, how far was looked, and what people accepted."""
    for finding in finding_groups(result["findings"]):
        say(_finding_text(finding))
    if not result["findings"]:
        say(painted("No findings." if not result["accepted"] else "No further findings.", "green"))
    if result["decoded_episodes"] < result["usable_so_far"]:
        share = f"{result['decoded_episodes']} of {result['usable_so_far']} runs"
        say(f"Checks looked inside {share}; --full looks inside all.")
    for finding in finding_groups(result["accepted"]):
        words = f"{finding['accepted_by']}: {finding['count']} x {finding['check']}"
        say(f"Accepted by {words} ({finding['accepted_why']}).")


def _show_parts(parts: Sequence[dict[str, Any]], full: bool) -> None:
    """What the source holds: all of it as a table; in short what is used, by its use, and what is
    used for nothing."""
    if full:
        names = ("status", "use", "kind", "name", "why", "num_times")
        rows = []
        for part in sorted(parts, key=lambda part: (ORDER.index(part["status"]), part["use"])):
            form = part_form(part["shape"], part["dtype"])
            rows.append({name: part[name] for name in names} | {"form": form})
        show(rows, empty="No parts.")
        say("")
        return
    by_use = grouped((part["use"] or part["status"], part) for part in parts)
    known_parts = by_use.pop("known", [])
    unknown_parts = by_use.pop("unknown", [])
    ordered = sorted(by_use, key=lambda use: ((*USES, use).index(use), use))
    lines = {use: _some([*map(_named, by_use[use])]) for use in ordered}
    if known_parts:
        lines["left out"] = f"{_some([p['name'] for p in known_parts], MAX_KNOWN)}; why: --full"
    if unknown_parts:
        unknown = [f"{p['kind']} {_named(p)}: {p['why']}" for p in unknown_parts]
        lines["not used"] = _some(unknown, MAX_UNKNOWN, "\n")
    if lines:
        say(f"{pairs_text(lines, width_here())}\n")


def _named(part: dict[str, Any]) -> str:
    """A part's name, with its shape and type where they are known."""
    form = part_form(part["shape"], part["dtype"])
    if form:
        return f"{part['name']} ({form})"
    return part["name"]


def _some(texts: Sequence[str], limit: int = MAX_NAMED, between: str = ", ") -> str:
    remaining = [f"{len(texts) - limit} more"] if len(texts) > limit else []
    return between.join([*texts[:limit], *remaining])


def _verdict(result: dict[str, Any]) -> str:
    """How many episodes are usable; the findings say why others are not."""
    usable = result["usable_so_far"]
    episodes = result["episodes"]
    colours = ("red", "yellow", "green")
    colour = colours[min(usable, 1) + (0 < usable == episodes)]
    head = painted(f"{usable} of {counted(episodes, 'episode')} usable", colour)
    return f"{head}, as far as was looked."


def _facts(result: dict[str, Any]) -> dict[str, str]:
    """The facts of a dataset that are no list, in words and with units; what is not known is left
    out."""
    fps = result["fps"]
    rows = result["rows"]
    tasks = result["tasks"]
    length = steps = ""
    if result["shortest"] is not None:
        ends = sorted({result["shortest"], result["longest"]})
        length = f"{ends[0]} to {ends[-1]} frames"
        if len(ends) == 1:
            length = counted(ends[0], "frame")
        if fps:
            seconds = " to ".join(f"{end / fps:.1f}" for end in ends)
            length += f" ({seconds} s at {fps:g} frames/s)"
        length += f"; {counted(rows, 'row')} in all"
    if result["steps_known"]:
        steps = f"{counted(result['steps_known'], 'episode')} bring steps of their own: {result['steps_from']}"
    facts = {
        "commit": result["revision"],
        "length": length,
        "tasks": "; ".join(tasks[:MAX_TASKS]) + (" ..." if len(tasks) > MAX_TASKS else ""),
        "outcomes": _outcomes(result),
        "steps": steps,
        "looked at": f"{counted(result['decoded_frames'], 'frame')} decoded; {result['looked_at']}",
    }
    return {name: value for name, value in facts.items() if value}


def _outcomes(result: dict[str, Any]) -> str:
    """How many outcomes are known, what says so, and what could say it and was never set."""
    num_known = result["success_known"]
    episodes = result["usable_so_far"]
    share = f"{num_known} of {episodes} known"
    if num_known < episodes:
        share += f", labels take the other {episodes - num_known} as complete unless motion shows otherwise"
    parts = [
        f"{row['source']}: {row['succeeded']} succeeded, {row['failed']} failed"
        for row in result["outcomes"]
    ]
    if result["never_set"]:
        parts.append(f"never set in any row: {', '.join(result['never_set'])}")
    return "; ".join((share, *parts))


def _finding_text(finding: dict[str, Any]) -> str:
    """One kind of finding: a sign, how often, what, where it is first; in a second line what to do."""
    sign = "✗" if finding["severity"] == "unusable" else "!"
    camera = f"camera {finding['camera']}: " if finding["camera"] else ""
    episode = finding["episode_index"]
    first_episode = "" if episode is None else f"episode {episode}"
    location = ", ".join(filter(None, (first_episode, finding["file"])))
    label = "first: " if finding["count"] > 1 else ""
    first = f" ({label}{location})" if location else ""
    times = f"{finding['count']} x " if finding["count"] > 1 else ""
    sentence = f"{times}{finding['check']}   {camera}{shown(finding['detail'] or '')}{first}"
    if finding["check"] == "part_not_used":
        sentence = f"{times}{finding['check']}   see above what is used for nothing{first}"
    return pairs_text({sign: f"{sentence}\n→ {finding['remedy']}"}, width_here())
