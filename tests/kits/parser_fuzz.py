"""Hypothesis against the parsers that are ours; the same seed tries the same again.

Whatever it is given, a parser reads it, or raises the one error that its docstring names: soon, and in little memory.
"""

import contextlib
import copy
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from annotate.imported import FILE_FORMS, ImportedError, read_annotations
from eval.server.app import make_app
from eval.server.limits import ServerLimits
from ingest.reasons import DataError
from ingest.source import list_episodes, read_episode
from ingest.sources.types import SourceError
from tests.kits import spoil
from tests.kits.fuzz_bases import write_base
from tests.kits.lerobot_writer import source_of, write_video
from tests.kits.made_corpus import make
from tests.kits.reward_server_kit import FPS, TASK, Pixels, pictures, png
from tests.kits.tiny_lerobot import LENGTHS
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.corrections import from_lines
from warehouse.exports.label_studio import from_tasks
from warehouse.exports.options import Selection
from warehouse.lake import Lake
from warehouse.lake.statements import CorrectionError, read_text
from warehouse.outcome_files import read_outcomes

EXAMPLES = 200  # of one round, which has a seed of its own
SLOW_S = 20.0  # of CPU that one example may take: a crowded machine is slow, not the parser
OUTSIDE = Path("/outside")  # what no example may lead to
RANDOMS = st.randoms(use_true_random=False)

type Prepared = tuple[Callable[[Any], None], st.SearchStrategy[Any]]  # a check, and what it is given


def edited(value: Any) -> st.SearchStrategy[Any]:
    """A JSON value with one to three of its places changed."""
    return RANDOMS.map(lambda rng: spoil.edited(copy.deepcopy(value), rng, OUTSIDE))


def spoilt(data: bytes) -> st.SearchStrategy[bytes]:
    return RANDOMS.map(lambda rng: spoil.spoilt_bytes(data, rng))


def json_of(value: Any) -> bytes:
    return json.dumps(value).encode()


def json_lines(values: Any) -> bytes:
    rows = values if isinstance(values, list) else [values]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def changed(root: Path, look: Callable[[set[str]], None]) -> Prepared:
    """One or two files of a folder with other content, and as before after the look; which is told what was changed."""
    paths = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix not in (".mp4", ".mkv"))
    files = {str(p.relative_to(root)): p.read_bytes() for p in paths}

    def edit(rng: random.Random) -> dict[str, bytes]:
        names = {rng.choice(sorted(files)) for _ in range(rng.choice([1, 2]))}
        return {n: spoil.spoilt_content(Path(n).name, files[n], rng, OUTSIDE) for n in sorted(names)}

    def check(changes: Mapping[str, bytes]) -> None:
        try:
            for name, data in changes.items():
                (root / name).write_bytes(data)
            look({name.split("/")[0] for name in changes})
        finally:
            for name in changes:
                (root / name).write_bytes(files[name])

    return check, RANDOMS.map(edit)


# Parsers


def dataset(base: str, folder: Path) -> Prepared:
    """Listing a dataset and reading its episodes' rows."""
    known = write_base(base, root := folder / "set")

    def look(_: set[str]) -> None:
        source = source_of(root, **known.fields)
        with contextlib.suppress(SourceError):
            for record in list_episodes(source).records:
                with contextlib.suppress(DataError, SourceError):
                    read_episode(source, record)

    return changed(root, look)


def imports(folder: Path) -> Prepared:
    """Annotations of others: LeRobot folders, JSON lines."""
    write_base("lerobot_steps", folder / "all/v2")
    write_base("lerobot_labels", folder / "all/v3")
    (folder / "all/lines").mkdir()
    frames = [{"frame_id": 500 + k, "episode_index": 0, "sub_task": "reach" if k < 5 else None} for k in range(9)]
    for name in ("a", "episode_1"):
        (folder / f"all/lines/{name}.jsonl").write_bytes(json_lines(frames))

    def look(parts: set[str]) -> None:
        for part in parts:
            with contextlib.suppress(ImportedError, SourceError):
                assert len(read_annotations(folder / "all" / part).sha256) == 64

    return changed(folder / "all", look)


def file_forms(folder: Path) -> Prepared:
    """Annotations in files of other tools' forms, as our exports write them: read, and made labels of."""
    lake = Lake(make(folder).space, read_only=True)
    (root := folder / "forms").mkdir()
    paths = {"frame-signals": "signals.parquet", "annotations-json": "drawn.json", "opensarm": "o", "robometer": "r"}
    assert paths.keys() == FILE_FORMS.keys()
    for form, name in paths.items():
        EXPORT_KINDS[form].export(lake, Selection(allow=("unknown",)), root / name)
    lake.con.close()

    def look(parts: set[str]) -> None:
        for form, name in paths.items():
            if name in parts:
                with contextlib.suppress(ImportedError):
                    for annotation in FILE_FORMS[form](root / name):
                        with contextlib.suppress(ImportedError):
                            annotation.label(LENGTHS[0], 10.0, None)

    return changed(root, look)


def corrections(folder: Path) -> Prepared:
    """Corrections and outcomes in files, against a corpus."""

    lake = Lake(make(folder).space)
    segments = [{"name": "Reach", "start_frame": 0, "end_frame": 24, "kind": "step", "completed": True, "step": 0}]
    line = {"dataset": "tiny", "episode_index": 0, "segments": segments, "plan": ["Reach"], "author": "ada"} | {
        "created_at": "2026-01-31T12:00:00+00:00", "status": "accepted", "comment": "so", "base_label_run": "x"
    }  # fmt: skip
    value = {"ranges": [{"start": 1, "end": 24}], "timelinelabels": ["Reach"]}
    region = {"id": "a", "type": "timelinelabels", "value": value, "meta": {"step": 0}}
    task = {"data": {"dataset": "tiny", "episode_index": 0, "first_frame": 0, "plan": ["Reach"]}}
    task |= {"annotations": [{"result": [region], "completed_by": {"email": "a@b"}, "meta": {"author": "ada"}}]}
    outcome = {"episode_index": 0, "success": True, "note": "fell", "by": "ada", "dataset": "tiny"}
    csv = b"episode_index,success,note,by\n1,true,it fell,ada\n2,no,,\n"
    path = folder / "outcomes"

    def check(drawn: tuple[str, bytes]) -> None:
        kind, data = drawn
        path.write_bytes(data)
        try:
            if kind == "outcomes":
                read_outcomes(lake, "tiny", path, "eve")
            else:
                reading = from_lines if kind == "lines" else from_tasks
                reading(lake, read_text(path), "eve")
        except CorrectionError:
            return

    def of(kind: str, *found: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[str, bytes]]:
        return st.one_of(*found).map(lambda data: (kind, data))

    lines, tasks = json_lines([line, line | {"status": "rejected"}]), json_of([task])
    return check, st.one_of(
        of("lines", edited([line, line]).map(json_lines), spoilt(lines)),
        of("tasks", edited([task]).map(json_of), spoilt(tasks)),
        of("outcomes", edited([outcome, outcome]).map(json_of), edited([outcome]).map(json_lines), spoilt(csv)),
    )


def wire(folder: Path) -> Prepared:
    """What clients send to the reward server: JSON, forms with pictures and videos, and what is neither."""
    video = write_video(folder / "a.mp4", range(6)).read_bytes()
    picture = png(pictures(1, size=8)[0])
    client = TestClient(
        make_app(Pixels(), ["test"], None, replace(ServerLimits(), max_sessions=10_000)), base_url="http://localhost"
    )
    client.__enter__()
    opened = client.post("/v1/sessions", json={"task": TASK, "fps": FPS}).json()["session"]
    session = {"task": TASK, "cameras": ["a", "b"], "fps": 4.0, "steps": ["x"], "duration_s": 3.0, "goal": {"a": ""}}
    form = {"task": TASK, "fps": "4", "cameras": "camera", "steps": "x", "first_frame": "0", "timestamps_s": "0"}

    def sent(drawn: tuple[str, bytes, str]) -> None:
        path, body, kind = drawn
        answer = client.post(path, content=body, headers={"content-type": kind})
        assert answer.status_code < 500 or answer.status_code == 503, (answer.status_code, answer.text)
        if answer.status_code >= 400:
            assert answer.json()["reason"]

    def multipart(part: str, content: bytes, rng: random.Random) -> bytes:
        fields = spoil.edited(copy.deepcopy(form), rng, OUTSIDE)
        known = fields.items() if isinstance(fields, dict) else ()
        names = [(f'name="{name}"', f"{value}".encode(errors="replace")) for name, value in known]
        for _ in range(rng.randrange(4)):
            data = rng.choice([content, spoil.spoilt_bytes(content, rng)])
            names.append((f'name="{part}"; filename="{rng.choice(spoil.NAMES)}"', data))
        parts = [f"--x\r\nContent-Disposition: form-data; {name}\r\n\r\n".encode(errors="replace") + data
                 for name, data in names]  # fmt: skip
        return b"\r\n".join([*parts, rng.choice([b"--x--\r\n", b"", b"--x\r\n"])])

    forms, paths = "multipart/form-data; boundary=x", ("/v1/sessions", "/v1/frames", "/v1/videos")

    def drawn(rng: random.Random) -> tuple[str, bytes, str]:
        match rng.randrange(4):
            case 0:
                whole = json_of(session)
                body = rng.choice(
                    [json_of(spoil.edited(copy.deepcopy(session), rng, OUTSIDE)), spoil.spoilt_bytes(whole, rng)]
                )
                return paths[0], body, "application/json"
            case 1:
                return rng.choice([f"{paths[0]}/{opened}/frames", paths[1]]), multipart("frames", picture, rng), forms
            case 2:
                return paths[2], multipart("videos", video, rng), forms
        kind = rng.choice([forms, "application/json", "text/plain", forms[:19]])
        return rng.choice(paths), rng.randbytes(rng.randrange(300)), kind

    return sent, RANDOMS.map(drawn)


PARSERS: dict[str, Callable[[Path], Prepared]] = {
    **{base: partial(dataset, base) for base in ("lerobot_steps", "lerobot_labels", "rlds", "table30", "video")},
    **{parser.__name__: parser for parser in (imports, file_forms, corrections, wire)},
}


def run(name: str, folder: Path, seconds: float, seed: int) -> int:
    """Try examples on a parser for so long; how many. Raises what the parser raised, for the smallest such example."""
    check, examples = PARSERS[name](folder)
    end, tried, rng = time.monotonic() + seconds, 0, random.Random(seed)

    def timed(example: Any) -> None:
        nonlocal tried
        if time.monotonic() > end:
            return
        tried += 1
        began = time.process_time()
        check(example)
        taken = time.process_time() - began
        assert taken < SLOW_S, f"{taken:.0f} s of CPU"

    while time.monotonic() < end:
        settings = hypothesis.settings(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            suppress_health_check=tuple(HealthCheck),  # pyright: ignore[reportArgumentType]
        )
        hypothesis.seed(rng.getrandbits(32))(settings(given(examples)(timed)))()
    return tried
