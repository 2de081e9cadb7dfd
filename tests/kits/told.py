"""All that listing and reading say of a dataset, as lines; what they are to say lies in tests/data/told/.

After a change that is meant, this writes it anew, to be looked at in git's diff; tests of what differs fail that once:
    GOLDEN=anew .venv/bin/python -m pytest tests/ingest
"""

import difflib
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa

from core.paths import ROOT
from ingest.episode import EpisodeRecord, names_of
from ingest.media.frames import VideoError
from ingest.reasons import DataError
from ingest.signals.survey import survey
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from ingest.sources.types import SourceError
from tests.kits.lerobot_writer import read_number

GOLDEN = ROOT / "tests/data/told"
OF_LIBRARIES = re.compile(
    r" (read|JSON|AVI|open file) \(.*?\)+(?=$|[;,:])|: (Expecting|Unterminated|Extra|Invalid) [^;]*"
)

PARTS: defaultdict[str, list[str]] = defaultdict(list)  # tests that `golden` made, by module

type New = Callable[[], Path]
type Told = Iterator[tuple[str, Source]]


def golden(cases: Callable[[New], Told]) -> Callable[[Path], None]:
    """A test of datasets that a generator writes, by what each shows: it is given what makes a new folder."""

    def test(tmp_path: Path) -> None:
        folders = (tmp_path / str(k) for k in count())

        def new() -> Path:
            (folder := next(folders)).mkdir()
            return folder

        found: dict[str, list[str]] = {}
        for title, source in cases(new):
            assert title not in found
            found[title] = told(source)
        check(cases.__module__.rpartition("test_")[2], cases.__name__, found, PARTS[cases.__module__])

    PARTS[cases.__module__].append(cases.__name__)
    test.__doc__, test.__module__ = cases.__doc__, cases.__module__
    return test


def check(file: str, part: str, found: dict[str, list[str]], parts: Collection[str]) -> None:
    """Assert that what is said under each title is what a file has for a part of it; `parts`: all that it may have."""
    path = GOLDEN / f"{file}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    if os.environ.get("GOLDEN") == "anew":
        kept = {other: known[other] for other in known if other in parts}
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(json.dumps(kept | {part: found}, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    told_before = known.get(part, {})
    assert found, "no dataset is looked at"
    assert known.keys() <= {*parts}, f"{path.name} has parts that no test is for"
    assert told_before.keys() == found.keys(), f"{path.name} has other titles"
    for title, now in found.items():
        diff = difflib.unified_diff(told_before[title], now, "known", "found", lineterm="")
        assert told_before[title] == now, "\n".join([title, *diff])


def told(source: Source, *, pictures: bool = True, grippers: bool = True) -> list[str]:
    """The dataset, each finding, each episode with its rows and pictures, and the grippers; or why not."""
    try:
        listing = list_episodes(source)
    except SourceError as e:
        return [_plain(str(e), source)]
    found = [f"{listing.format}, {listing.fps} fps, {listing.robot}, {', '.join(listing.cameras)}"]
    found[0] += "" if listing.numbered else ", not numbered"
    found[0] += f", never set: {', '.join(listing.never_set)}" if listing.never_set else ""
    for f in listing.findings:
        found.append(f"{f.severity} {f.reason} {f.episode_index} {f.camera} {f.file}: {f.detail}")
    for record in listing.records:
        found += [f"{record.episode_index} {line}" for line in (_listed(record), *_read(source, record, pictures))]
    for signal in survey(source, listing.records, listing.robot).signals if grippers else ():
        polarity = f"{signal.polarity} from {signal.closed:g} to {signal.open:g} by {signal.located_by}"
        found.append(f"{signal.title}: {signal.column} {list(signal.dimensions)} x {list(signal.weights)}, {polarity}")
    return [_plain(line, source) for line in found]


def _listed(r: EpisodeRecord) -> str:
    said = f"{r.source_id}: {r.num_rows} rows of {r.data_uri}, {r.fps:g} fps, {r.cameras}, {list(r.tasks) or r.task}"
    said += "" if r.tasks[:1] in ((), (r.task,)) else f", not {r.task}"
    said += "" if r.success is None else f", {r.success} by {r.success_source}"
    said += "" if r.group in ("", r.source_id, f"episode {r.episode_index}") else f", of {r.group}"
    said += f", steps by {r.steps_from} of {list(r.plan)}" if r.steps_from else ""
    for step in r.steps:
        more = [f"{k}={v}" for k, v in list(step.__dict__.items())[3:] if v is not None]
        said += "; " + " ".join([step.name, f"{step.start_frame}-{step.end_frame}", *more])
    return said


def _read(source: Source, record: EpisodeRecord, pictures: bool) -> Iterator[str]:
    try:
        episode = read_episode(source, record)
    except (DataError, SourceError) as e:
        yield f"{getattr(e, 'reason', '')}: {e}"
        return
    yield from _rows("state", episode.states, episode.names_by)
    yield from _rows("action", episode.actions)
    if (times := episode.timestamps_s) is not None:
        yield f"times {times[0]:.4g} {times[1:2]} to {times[-1]:.4g}" if len(times) else "times"
    for camera in record.cameras if pictures else ():
        frames, numbers = episode.frames(camera), []
        try:
            numbers = [(k, round(time_s, 4), read_number(picture.luma())) for k, time_s, picture in frames]
        except (DataError, VideoError) as e:
            yield f"{camera}: {e.reason}: {e}"
            continue
        assert [k for k, _, _ in numbers] == list(range(len(numbers)))
        shown = [f"{n >> 12}.{n >> 6 & 63}.{n & 63}" for _, _, n in numbers]
        if [n - k for k, _, n in numbers] == [n for _, _, n in numbers[:1]] * len(numbers):
            shown = [*shown[:1], "and on"]
        yield f"{camera}: {len(numbers)} pictures until {numbers[-1][1] if numbers else 0:g} s: {' '.join(shown)}"


def _rows(what: str, rows: pa.Table | None, by: str = "name") -> Iterator[str]:
    """The first row, the last one and the sum of all."""
    if rows is not None:
        names = f" {', '.join(names_of(rows))}" if names_of(rows) else ""
        values = np.column_stack([c.to_numpy() for c in rows.columns]) if rows.num_columns else np.zeros((0, 0))
        ends = " to ".join(str(np.round(values[k].astype(float), 4).tolist()) for k in (0, -1) if len(values))
        total = float(np.nansum(values.astype(float)))
        yield f"{what} by {by}{names}: {'x'.join(map(str, values.shape))}, {ends}, sum {total:.6g}"


def _plain(line: str, source: Source) -> str:
    return OF_LIBRARIES.sub(lambda m: f" {m[1]}" if m[1] else "", line.replace(source.config.source, ""))
