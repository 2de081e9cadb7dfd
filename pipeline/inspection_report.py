"""What `inspect` found, as a file: a page that a person forwards, or what a CI server reads.

By the file's ending: `.html` (one page, its pictures within), `.jsonl` (a finding a line). There is no grade: a
report says what is wrong, where, and what it does to labels.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from annotate.pictures import encode_jpeg
from core.errors import UserError
from core.files import write_file
from core.values import grouped
from core.version import VERSION
from ingest.episode import EpisodeData, EpisodeRecord, Picture
from ingest.reasons import REASONS, DataError
from ingest.source import read_episode
from ingest.sources.files import Source

MOST_LISTED = 30  # episodes of one check in a line
EFFECTS = {"unusable": "Nothing is labelled of it: it is left out."}  # on labels, by severity
MAX_STRETCHES = 3  # of a run that are shown, the longest
PICTURE_PX = 320  # of the longer side
LEVELS = {"unusable": "ERROR", "warning": "WARNING", "accepted": "INFO"}  # of rdjsonl
Row = dict[str, Any]
Writer = Callable[[Row], bytes]


def write_report(path: Path, result: Row) -> None:
    """Write a result of `inspect_source` (pipeline.inspection) in the form that the file's ending names."""
    write_file(path, writer_of(path)(result))


def writer_of(path: Path) -> Writer:
    """Raises UserError: no form has this ending."""
    writers = [write for end, write in WRITERS.items() if path.name.lower().endswith(end)]
    if writers:
        return writers[0]
    raise UserError(f"--report {path}: a report ends in {', '.join(WRITERS)}")


def finding_groups(findings: Sequence[Row]) -> list[Row]:
    """Findings of one code, camera and word of acceptance as one, those first that make something unusable: the first
    of them, how many and in which episodes, what the code means, and what it does to labels."""
    kinds = grouped(
        ((f["severity"] != "unusable", f["reason"], f["camera"], f.get("accepted_why")), f)
        for f in findings
    )
    return [_group(kinds[kind]) for kind in sorted(kinds, key=lambda kind: kind[0])]


def _group(findings: Sequence[Row]) -> Row:
    first = findings[0]
    reason = REASONS[first["reason"]]
    return first | {
        "check": first["reason"],
        "count": len(findings),
        "findings": findings,
        "episodes": _episodes(findings),
        "meaning": reason.meaning,
        "effect": EFFECTS.get(first["severity"], reason.effect),
    }


def _episodes(findings: Sequence[Row]) -> str:
    """Example: "episodes 3, 4, 8"."""
    numbers = sorted({f["episode_index"] for f in findings} - {None})
    if not numbers:
        return "the source as a whole"
    remaining = f" and {len(numbers) - MOST_LISTED} more" if len(numbers) > MOST_LISTED else ""
    return f"episode{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:MOST_LISTED]))}{remaining}"


def place(finding: Row) -> str:
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
        "groups": finding_groups(result["findings"]),
        "summary": summary(result),
        "place": place,
        "version": VERSION,
    }
    accepted = finding_groups(result["accepted"])
    pictured = result.get("pictured", [])
    return page.render(result, **texts, accepted=accepted, pictured=pictured).encode()


def json_lines(result: Row) -> bytes:
    """A finding a line, in the fields of reviewdog's format `rdjsonl`; `original_output` has all of it, as JSON.

    Those that people accepted are there, of severity INFO.
    """
    findings = [*result["findings"], *result["accepted"]]
    lines = [json.dumps(_diagnostic(f, result), ensure_ascii=False) for f in findings]
    return "".join(f"{line}\n" for line in lines).encode()


def _diagnostic(finding: Row, result: Row) -> Row:
    location_path = "/".join(filter(None, (finding.get("folder"), finding["file"])))
    [group] = finding_groups([finding])
    sentence = finding["detail"] or group["meaning"]
    whole = finding | {"effect": group["effect"]}
    return {
        "message": f"{place(finding)}: {sentence}",
        "location": {"path": location_path or result["path"]},
        "severity": LEVELS["accepted" if "accepted_by" in finding else finding["severity"]],
        "source": {"name": "proccorpus inspect"},
        "code": {"value": finding["reason"]},
        "original_output": json.dumps(whole, ensure_ascii=False),
    }


def pictured_runs(
    source: Source,
    records: Sequence[EpisodeRecord],
    checks: Sequence[Row],
    accepted: Sequence[Row],
    max_runs: int,
) -> list[Row]:
    """The `max_runs` worst runs: those in which most checks found what none before shows, then for longest.

    accepted: findings that are not shown. checks: rows of run_checks, with fps, start_s, end_s and duration_s.
    Of each run `episode_index`, `duration_s`, and its `stretches`: the rows with `pictures` (camera, when,
    frame_index, at_s, jpeg as base64, width, height) and `problem`, why there are none.
    """
    quiet = {(finding["reason"], finding["episode_index"]) for finding in accepted}
    by_run = grouped(
        (check["episode_index"], check)
        for check in checks
        if (check["check_name"], check["episode_index"]) not in quiet
    )
    by_number = {record.episode_index: record for record in records}
    return [
        _pictured(source, by_number[episode], by_run[episode])
        for episode in _worst(by_run, max_runs)
    ]


def _worst(by_run: Mapping[int, Sequence[Row]], max_runs: int) -> list[int]:
    """Runs in the order in which a person wants to see them: each has as much as may be that none before it has."""
    chosen: list[int] = []
    covered_checks: set[str] = set()

    def rank(episode: int) -> tuple[int, bool, float, int]:
        checks = by_run[episode]
        names = {check["check_name"] for check in checks}
        share = sum(map(_seconds, checks)) / checks[0]["duration_s"]
        return (
            len(names - covered_checks),
            any(check["camera"] for check in checks),
            share,
            -episode,
        )

    while len(chosen) < min(max_runs, len(by_run)):
        episode = max(by_run.keys() - set(chosen), key=rank)
        chosen.append(episode)
        covered_checks |= {check["check_name"] for check in by_run[episode]}
    return chosen


def _seconds(check: Row) -> float:
    return check["end_s"] - check["start_s"]


def _pictured(source: Source, record: EpisodeRecord, checks: Sequence[Row]) -> Row:
    longest = sorted(checks, key=_seconds, reverse=True)[:MAX_STRETCHES]
    episode = read_episode(source, record)
    stretches = sorted(longest, key=lambda check: check["start_frame"])
    return {
        "episode_index": record.episode_index,
        "duration_s": checks[0]["duration_s"],
        "stretches": [check | _pictures(episode, check) for check in stretches],
    }


def _pictures(episode: EpisodeData, check: Row) -> Row:
    """Just before the stretch, where there is a before, and in its middle; by its camera, or the first one."""
    camera = check["camera"] or episode.record.cameras[0]
    middle = (check["start_frame"] + check["end_frame"]) // 2
    captions = {check["start_frame"] - 1: "just before", middle: "in the middle"}
    captions.pop(-1, None)
    try:
        frames = {
            frame: _encoded(frame, picture)
            for frame, picture in episode.decoded(camera, captions)
            if frame in captions
        }
    except DataError as e:
        return {"pictures": [], "problem": f"no picture of it can be shown: {e}"}
    pictures = [
        {"camera": camera, "when": captions[frame], "at_s": frame / check["fps"]} | frames[frame]
        for frame in sorted(frames)
    ]
    return {"pictures": pictures, "problem": ""}


def _encoded(frame_index: int, picture: Picture) -> Row:
    jpeg, width, height = encode_jpeg(picture.rgb(), PICTURE_PX)
    text = b64encode(jpeg).decode()
    return {"frame_index": frame_index, "jpeg": text, "width": width, "height": height}


WRITERS: Mapping[str, Writer] = {".html": html, ".jsonl": json_lines}
