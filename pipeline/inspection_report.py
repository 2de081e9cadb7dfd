"""What `inspect` found, as a file: a page that a person forwards, or what a CI server reads.

By the file's ending: `.html` (one page, its pictures within), `.jsonl` (a finding a line). There is no grade: a
report says what is wrong, where, and what it does to labels.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import write_file
from core.values import grouped
from core.version import VERSION
from ingest.reasons import REASONS

FORMER = (".md", ".sarif", ".junit.xml")  # endings of reports that earlier versions wrote
MOST_LISTED = 30  # episodes of one check in a line
LEVELS = {"unusable": "ERROR", "warning": "WARNING", "accepted": "INFO"}  # of rdjsonl
UNUSABLE = "Nothing is labelled of it: it is left out."
Row = dict[str, Any]
Writer = Callable[[Row], bytes]


def write_report(path: Path, result: Row) -> None:
    """Write a result of `inspect_source` (pipeline.inspection) in the form that the file's ending names."""
    write_file(path, writer_of(path)(result))


def writer_of(path: Path) -> Writer:
    """Raises UserError: no form has this ending."""
    for ending, writer in WRITERS.items():
        if path.name.lower().endswith(ending):
            return writer
    if path.name.lower().endswith(FORMER):
        raise UserError(
            f"--report {path}: only a page (*.html) and a finding a line (*.jsonl) are written by now"
        )
    raise UserError(f"--report {path}: a report ends in {', '.join(WRITERS)}")


def effect(finding: Mapping[str, Any]) -> str:
    """What a finding does to labels, in a sentence."""
    if finding["severity"] == "unusable":
        return UNUSABLE
    return REASONS[finding["reason"]].effect


def place(finding: Mapping[str, Any]) -> str:
    """Where it is: dataset's folder, episode, camera, file; as far as the finding is about one."""
    episode = finding["episode_index"]
    folder = finding.get("folder")
    parts = [
        folder,
        None if episode is None else f"episode {episode}",
        finding["camera"],
        finding["file"],
    ]
    return ", ".join(filter(None, parts)) or "the source as a whole"


def groups(findings: Sequence[Row]) -> list[Row]:
    """Findings by check, those first that make something unusable: how many, where, what it means and does, remedy."""
    findings_by_kind = grouped(((f["severity"] != "unusable", f["reason"]), f) for f in findings)
    return [
        {
            "check": check,
            "severity": of_check[0]["severity"],
            "findings": of_check,
            "episodes": _episodes(of_check),
            "meaning": REASONS[check].meaning,
            "effect": effect(of_check[0]),
            "remedy": REASONS[check].remedy,
        }
        for (_, check), of_check in sorted(findings_by_kind.items(), key=lambda item: item[0][0])
    ]


def _episodes(findings: Sequence[Row]) -> str:
    """Example: "episodes 3, 4, 8"."""
    numbers = sorted({f["episode_index"] for f in findings if f["episode_index"] is not None})
    if not numbers:
        return "the source as a whole"
    remaining = f" and {len(numbers) - MOST_LISTED} more" if len(numbers) > MOST_LISTED else ""
    return f"episode{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:MOST_LISTED]))}{remaining}"


def summary(result: Row) -> list[str]:
    """What was looked at, a sentence each."""
    if "datasets" in result:
        usable, episodes = (
            sum(row[name] for row in result["datasets"]) for name in ("usable_so_far", "episodes")
        )
        subject = f"{len(result['datasets'])} datasets"
    else:
        usable = result["usable_so_far"]
        episodes = result["episodes"]
        subject = ", ".join(
            filter(None, (result["format"], result["robot"], f"{result['rows']} rows"))
        )
    return [subject, f"{usable} of {episodes} episodes usable", f"looked at: {result['looked_at']}"]


def html(result: Row) -> bytes:
    """One page without any other file: no script, pictures within."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    page = templates.get_template("inspection_report.html")
    texts = {
        "groups": groups(result["findings"]),
        "summary": summary(result),
        "place": place,
        "version": VERSION,
    }
    return page.render(
        result, **texts, accepted=groups(result["accepted"]), pictured=result.get("pictured", [])
    ).encode()


def json_lines(result: Row) -> bytes:
    """A finding a line, in the fields of reviewdog's format `rdjsonl`; `original_output` has all of it, as JSON.

    Those that people accepted are there, of severity INFO.
    """
    findings = [*result["findings"], *result["accepted"]]
    lines = [json.dumps(_diagnostic(f, result), ensure_ascii=False) for f in findings]
    return "".join(f"{line}\n" for line in lines).encode()


def _diagnostic(finding: Row, result: Row) -> Row:
    location_path = "/".join(filter(None, (finding.get("folder"), finding["file"])))
    sentence = finding["detail"] or REASONS[finding["reason"]].meaning
    stretches = _stretches(finding, result.get("checks", []))
    whole = finding | {"effect": effect(finding), "stretches": stretches}
    return {
        "message": f"{place(finding)}: {sentence}",
        "location": {"path": location_path or result["path"]},
        "severity": LEVELS["accepted" if "accepted_by" in finding else finding["severity"]],
        "source": {"name": "proccorpus inspect"},
        "code": {"value": finding["reason"]},
        "original_output": json.dumps(whole, ensure_ascii=False),
    }


def _stretches(finding: Row, checks: Sequence[Row]) -> list[Row]:
    """The stretches that a finding is about."""
    key = finding["reason"], finding["episode_index"], finding["camera"] or ""
    names = ("start_frame", "end_frame", "start_s", "end_s", "measured", "usual", "unit")
    of_finding = [c for c in checks if (c["check_name"], c["episode_index"], c["camera"]) == key]
    return [{name: check[name] for name in names} for check in of_finding]


WRITERS: Mapping[str, Writer] = {".html": html, ".jsonl": json_lines}
