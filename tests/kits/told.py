"""All that listing and reading say of a dataset, as lines; what is right lies in tests/data/told/.

After a change that is meant, this writes it anew, to be looked at in git's diff; tests of what
differs fail that once: GOLDEN=anew .venv/bin/python -m pytest tests/ingest
"""

import difflib
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa

from core.paths import ROOT
from ingest.episode import EpisodeRecord, VideoError, names_of
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


def golden(cases: Callable[[New], Told], pictures: bool = True) -> Callable[[Path], None]:
    """A test of datasets that a generator writes, by what each shows: it is given what makes a new
    folder."""

    def test(tmp_path: Path) -> None:
        folders = (tmp_path / str(k) for k in count())

        def new() -> Path:
            (folder := next(folders)).mkdir()
            return folder

        texts_by_title: dict[str, list[str]] = {}
        for title, source in cases(new):
            assert title not in texts_by_title
            texts_by_title[title] = told(source, pictures=pictures)
        check(
            cases.__module__.rpartition("test_")[2],
            cases.__name__,
            texts_by_title,
            PARTS[cases.__module__],
        )

    PARTS[cases.__module__].append(cases.__name__)
    test.__doc__ = cases.__doc__
    test.__module__ = cases.__module__
    return test


golden_rows = partial(golden, pictures=False)


def check(
    file: str, part: str, texts_by_title: dict[str, list[str]], parts: Collection[str]
) -> None:
    """Assert that what is said under each title is what a file has for a part of it; `parts`: all
    that it may have."""
    path = GOLDEN / f"{file}.json"
    known_texts = json.loads(path.read_text()) if path.exists() else {}
    if os.environ.get("GOLDEN") == "anew":
        kept_texts = {
            other_part: known_texts[other_part] for other_part in known_texts if other_part in parts
        }
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(
            json.dumps(
                kept_texts | {part: texts_by_title}, indent=1, ensure_ascii=False, sort_keys=True
            )
            + "\n"
        )
    told_before = known_texts.get(part, {})
    assert texts_by_title, "no dataset is looked at"
    assert known_texts.keys() <= {*parts}, f"{path.name} has parts that no test is for"
    assert told_before.keys() == texts_by_title.keys(), f"{path.name} has other titles"
    for title, texts in texts_by_title.items():
        diff = difflib.unified_diff(told_before[title], texts, "known", "found", lineterm="")
        assert told_before[title] == texts, "\n".join([title, *diff])


def told(source: Source, *, pictures: bool = True, grippers: bool = True) -> list[str]:
    """The dataset, each finding, each episode with its rows and pictures, and the grippers; or why
    not."""
    try:
        listing = list_episodes(source)
    except SourceError as e:
        return [_plain(str(e), source)]
    texts = [f"{listing.format}, {listing.fps} fps, {listing.robot}, {', '.join(listing.cameras)}"]
    texts[0] += "" if listing.numbered else ", not numbered"
    texts[0] += f", never set: {', '.join(listing.never_set)}" if listing.never_set else ""
    for f in listing.findings:
        texts.append(f"{f.severity} {f.reason} {f.episode_index} {f.camera} {f.file}: {f.detail}")
    for record in listing.records:
        texts += [
            f"{record.episode_index} {line}"
            for line in (_listed(record), *_read(source, record, pictures))
        ]
    for signal in survey(source, listing.records, listing.robot).signals if grippers else ():
        polarity = (
            f"{signal.polarity} from {signal.closed:g} to {signal.open:g} by {signal.located_by}"
        )
        texts.append(
            f"{signal.title}: {signal.column} {list(signal.dimensions)} x {list(signal.weights)}, {polarity}"
        )
    return [_plain(line, source) for line in texts]


def _listed(r: EpisodeRecord) -> str:
    line_text = (
        f"{r.source_id}: {r.num_rows} rows of {r.data_uri}, {r.fps:g} fps, {r.cameras}, "
        f"{list(r.tasks) or r.task}"
    )
    line_text += "" if r.tasks[:1] in ((), (r.task,)) else f", not {r.task}"
    line_text += "" if r.success is None else f", {r.success} by {r.success_source}"
    line_text += (
        "" if r.group in ("", r.source_id, f"episode {r.episode_index}") else f", of {r.group}"
    )
    line_text += f", steps by {r.steps_from} of {list(r.plan)}" if r.steps_from else ""
    for step in r.steps:
        step_fields = [f"{k}={v}" for k, v in list(step.__dict__.items())[3:] if v is not None]
        line_text += "; " + " ".join(
            [step.name, f"{step.start_frame}-{step.end_frame}", *step_fields]
        )
    return line_text


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
        frames = episode.frames(camera)
        numbers = []
        try:
            numbers = [
                (k, round(time_s, 4), read_number(picture.luma())) for k, time_s, picture in frames
            ]
        except (DataError, VideoError) as e:
            yield f"{camera}: {e.reason}: {e}"
            continue
        assert [k for k, _, _ in numbers] == list(range(len(numbers)))
        numerals = [f"{n >> 12}.{n >> 6 & 63}.{n & 63}" for _, _, n in numbers]
        if [n - k for k, _, n in numbers] == [n for _, _, n in numbers[:1]] * len(numbers):
            numerals = [*numerals[:1], "and on"]
        yield f"{camera}: {len(numbers)} pictures until {numbers[-1][1] if numbers else 0:g} s: {' '.join(numerals)}"


def _rows(subject: str, rows: pa.Table | None, key_column: str = "name") -> Iterator[str]:
    """The first row, the last one and the sum of all."""
    if rows is not None:
        names = f" {', '.join(names_of(rows))}" if names_of(rows) else ""
        if rows.num_columns:
            values = np.column_stack([c.to_numpy() for c in rows.columns])
        else:
            values = np.zeros((0, 0))
        ends = " to ".join(
            str(np.round(values[k].astype(float), 4).tolist()) for k in (0, -1) if len(values)
        )
        total = float(np.nansum(values.astype(float)))
        yield f"{subject} by {key_column}{names}: {'x'.join(map(str, values.shape))}, {ends}, sum {total:.6g}"


def _plain(line: str, source: Source) -> str:
    return OF_LIBRARIES.sub(
        lambda m: f" {m[1]}" if m[1] else "", line.replace(source.config.source, "")
    )
