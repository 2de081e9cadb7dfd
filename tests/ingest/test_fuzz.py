"""Datasets spoilt in every way known, those over a limit, and bytes for each parser of ours: none crashes, hangs, fills
the memory, or reaches outside its folder.

Whatever it is given, a parser reads it, or raises the one error that its docstring names: soon, and in little memory.
The parsers' bytes again: PROCCORPUS_FUZZ_SEED.
"""

import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import compress, cycle
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from annotate.imported import FILE_FORMS, ImportedError, read_annotations
from core.paths import Workspace
from eval.server.app import make_app
from eval.server.limits import ServerLimits
from ingest.reasons import DataError
from ingest.source import list_episodes, read_episode
from ingest.sources.files import Source
from ingest.sources.types import SourceError
from tests.kits import spoil
from tests.kits.fuzz_datasets import BASES, EXCESSES, alive, apart, build, write_base, write_excess
from tests.kits.lake_kit import say
from tests.kits.lerobot_writer import source_of, write_json_lines, write_video
from tests.kits.made_corpus import build_of, built
from tests.kits.reward_server_kit import FPS, TASK, Pixels, pictures, png
from tests.kits.spoil import spoilt_bytes, spoilt_columns, spoilt_content, write_outside
from tests.kits.tiny_lerobot import LENGTHS, make_dataset
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.corrections import from_lines, from_tasks, lines_of, to_tasks
from warehouse.exports.options import Selection
from warehouse.lake import Lake
from warehouse.lake.outcomes import read_outcomes
from warehouse.lake.statements import CorrectionError, read_text

pytestmark = pytest.mark.fuzz
PARTS = 2  # of those over a limit, each built in a process whose memory is measured
IS_SHORT = os.environ.get("PROCCORPUS_FUZZ") == "short"  # a tenth of them, as CI has it
STRIDE = (
    10 if IS_SHORT else 1
)  # each base begins at another of the ways, so that all bases together have all of them
COLUMN_STRIDE = 5 if IS_SHORT else 1  # the same of columns, each of which is spoilt in four ways
EXAMPLES = 40 if IS_SHORT else 200  # for each parser
SLOW_S = 20.0  # of CPU that one example may take: a crowded machine is slow, not the parser
OUTSIDE = Path("/outside")  # what no example may lead to

# A check, and what it is given
type Prepared = tuple[Callable[[Any], object], Callable[[random.Random], Any]]


@pytest.mark.parametrize("base", BASES)
def test_mutants(tmp_path, base):
    write_outside(outside_folder := tmp_path / "outside")
    fields = write_base(base, untouched := tmp_path / "mutants/untouched")
    changes_by_mutant: dict[str, dict[str, str]] = {"untouched": {}}
    for number in range([*BASES].index(base) % STRIDE, len(spoil.WAYS), STRIDE):
        root = shutil.copytree(untouched, tmp_path / f"mutants/{base}-{number}")
        changes_by_mutant[root.name] = spoil.mutate(root, outside_folder, base, number)
    outcomes = apart(tmp_path, build, tmp_path / "mutants", [*changes_by_mutant], fields)
    fault_lines = "".join(
        f"\n{name}: {o}\n    {changes_by_mutant[name]}" for name, o in outcomes.items() if o.faults
    )
    assert not fault_lines, fault_lines
    assert outcomes["untouched"].usable == BASES[base], outcomes["untouched"]
    for name, o in outcomes.items():  # what is in files never makes a dataset unknown
        assert o.kind != "refused" or {*spoil.TREE} & changes_by_mutant[name].keys(), (
            name,
            changes_by_mutant[name],
            o,
        )


@pytest.mark.parametrize("part", range(PARTS))
def test_datasets_over_a_limit(tmp_path, part):
    write_outside(tmp_path / "outside")
    names = [*EXCESSES][part::PARTS]
    for name in names:
        write_excess(name, tmp_path / "mutants" / name)
    limits = {name: EXCESSES[name].limits for name in names}
    outcomes = apart(tmp_path, build, tmp_path / "mutants", names, {}, limits)
    unsaid = {
        name: o
        for name, o in outcomes.items()
        if o.faults or EXCESSES[name].words not in " ".join(o.why)
    }
    assert unsaid == {}
    # What was refused is told in one line
    assert [
        o for o in outcomes.values() if o.kind == "refused" and "\n" in "".join(o.why).strip()
    ] == []


def changed(root: Path, examine: Callable[[Path], object]) -> Prepared:
    paths = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix not in (".mp4", ".mkv"))
    files = {path: path.read_bytes() for path in paths}

    def edit(rng: random.Random) -> tuple[Path, bytes]:
        path = rng.choice(paths)
        return path, spoilt_content(path.name, files[path], rng, OUTSIDE)

    def check(change: tuple[Path, bytes]) -> None:
        path, data = change
        path.write_bytes(data)
        try:
            examine(path)
        finally:
            path.write_bytes(files[path])

    return check, edit


def read_all(source: Source) -> None:
    """List a dataset and read its episodes' rows."""
    with suppress(SourceError):
        for record in list_episodes(source).records:
            with suppress(DataError, SourceError):
                read_episode(source, record)


def read_columns(folder: Path, base: str) -> list[str]:
    """What goes wrong where, after each other, all of a column is spoilt, of the first file of each
    kind."""
    is_tried = cycle(k == [*BASES].index(base) % COLUMN_STRIDE for k in range(COLUMN_STRIDE))
    fields = write_base(base, root := folder / "set")
    faults = []
    files = [path for path in sorted(root.rglob("*"), reverse=True) if path.is_file()]
    for path in {re.sub(r"\d+", "#", str(path)): path for path in files}.values():
        whole = path.read_bytes()
        for subject, data in compress(spoilt_columns(path.name, whole), is_tried):
            alive()
            path.write_bytes(data)
            try:
                read_all(source_of(root, **fields))
            except Exception as e:
                faults.append(f"{path.name}: {subject}: {e!r}")
        path.write_bytes(whole)
    return faults


@pytest.mark.parametrize("base", BASES)
def test_columns(tmp_path, base):
    assert apart(tmp_path, read_columns, base) == []


def dataset(base: str, folder: Path) -> Prepared:
    fields = write_base(base, root := folder / "set")
    return changed(root, lambda _: read_all(source_of(root, **fields)))


def files_of_people(folder: Path) -> Prepared:
    """Annotations of others (LeRobot folders, JSON lines, other tools' forms as our exports write
    them), and corrections and outcomes against a corpus, each in a folder of its own."""
    source = make_dataset(folder / "source")
    lake = Lake(built(build_of(source), Workspace(folder / "workspace")).space)
    root = folder / "all"
    looks: dict[str, Callable[[Path], object]] = {
        "lines": lambda path: from_lines(lake, read_text(path), "eve"),
        "tasks": lambda path: from_tasks(lake, read_text(path), "eve"),
        "outcomes": lambda path: read_outcomes(lake, "tiny", path, "eve"),
    }
    for base in ("lerobot_steps", "lerobot_labels"):
        write_base(base, root / base)
    frames = [
        {"frame_id": 500 + k, "episode_index": 0, "sub_task": "reach" if k < 5 else None}
        for k in range(9)
    ]
    for name in ("a", "episode_1"):
        write_json_lines(root / f"json_lines/{name}.jsonl", frames)
    exported = {
        "frame-signals": "a.parquet",
        "annotations-json": "a.json",
        "opensarm": "o",
        "robometer": "r",
    }
    assert exported.keys() == FILE_FORMS.keys()
    for form, name in exported.items():
        (root / form).mkdir()
        EXPORT_KINDS[form].export(lake, Selection(allow=("unknown",)), root / form / name)
    say(
        lake,
        [{"name": "Reach", "start_frame": 0, "end_frame": 24, "kind": "step"}],
        0,
        plan=["Reach"],
        comment="so",
    )
    for kind, text in (
        ("lines", lambda found: "\n".join(map(json.dumps, lines_of(found)))),
        ("tasks", lambda found: json.dumps(to_tasks(lake, found, []))),
    ):
        (root / kind).mkdir()
        (root / kind / "a.jsonl").write_text(text(lake.dicts("SELECT * FROM corrections")))
    outcome = {"episode_index": 0, "success": True, "note": "fell", "by": "ada", "dataset": "tiny"}
    write_json_lines(root / "outcomes/a.jsonl", [outcome])
    (root / "outcomes/a.csv").write_text(
        "episode_index,success,note,by\n1,true,it fell,ada\n2,no,,\n"
    )

    def look(path: Path) -> None:
        kind = path.relative_to(root).parts[0]
        with suppress(CorrectionError, ImportedError, SourceError):
            if kind in looks:
                looks[kind](path)
            elif kind in FILE_FORMS:
                for annotation in FILE_FORMS[kind](root / kind / exported[kind]):
                    with suppress(ImportedError):
                        annotation.label(LENGTHS[0], 10.0, None)
            else:
                assert len(read_annotations(root / kind).sha256) == 64

    return changed(root, look)


def wire(folder: Path) -> Prepared:
    app = make_app(Pixels(), ["test"], None, replace(ServerLimits(), max_sessions=10_000))
    client = TestClient(app, base_url="http://localhost")
    client.__enter__()
    opened = client.post("/v1/sessions", json={"task": TASK, "fps": FPS}).json()["session"]
    session = {
        "task": TASK,
        "cameras": ["a", "b"],
        "fps": 4.0,
        "steps": ["x"],
        "duration_s": 3.0,
        "goal": {"a": ""},
    }
    form = {
        "task": TASK,
        "fps": "4",
        "cameras": "camera",
        "steps": "x",
        "first_frame": "0",
        "timestamps_s": "0",
    }
    contents = png(pictures(1, size=8)[0]), write_video(folder / "a.mp4", range(6)).read_bytes()
    parts = {"/v1/sessions": "", "/v1/frames": "frames", "/v1/videos": "videos"}
    parts[f"/v1/sessions/{opened}/frames"] = "frames"

    def sent(request: httpx.Request) -> None:
        answer = client.send(request)
        assert answer.status_code < 500 or answer.status_code == 503, (
            answer.status_code,
            answer.text,
        )
        assert answer.status_code < 400 or answer.json()["reason"]

    def drawn(rng: random.Random) -> httpx.Request:
        path, part = rng.choice([*parts.items()])
        message = spoil.edited(form if part else session, rng, OUTSIDE)
        request_parts: dict[str, Any] = {"content": json.dumps(message)}
        if part and isinstance(message, dict):
            texts = {
                name.encode(errors="replace").decode(): f"{v}".encode(errors="replace")
                for name, v in message.items()
            }
            names = [ascii(rng.choice(spoil.NAMES)) for _ in range(rng.randrange(4))]
            request_parts = {
                "data": texts,
                "files": [(part, (name, rng.choice(contents))) for name in names],
            }
        whole = client.build_request("POST", path, **request_parts)
        body = rng.choice([whole.read(), whole.read(), spoilt_bytes(whole.read(), rng)])
        kind = {"content-type": whole.headers.get("content-type", "application/json")}
        return client.build_request("POST", path, content=body, headers=kind)

    return sent, drawn


PARSERS: dict[str, Callable[[Path], Prepared]] = {
    **{
        base: partial(dataset, base)
        for base in ("lerobot_steps", "lerobot_labels", "rlds", "table30", "video")
    },
    "files of people": files_of_people,
    "wire": wire,
}


@pytest.mark.parametrize("name", PARSERS)
def test_parsers(tmp_path, name):
    # Fails with the smallest example. The seed is as `make fuzz` gives and prints it
    seed = int(os.environ.get("PROCCORPUS_FUZZ_SEED") or random.SystemRandom().getrandbits(32))
    print(f"{name}: seed {seed}")
    check, draw = PARSERS[name](tmp_path)

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=EXAMPLES, database=None, suppress_health_check=tuple(HealthCheck)
    )
    @given(st.randoms(use_true_random=False).map(draw))
    def timed(example: Any) -> None:
        start_s = time.process_time()
        check(example)
        assert time.process_time() - start_s < SLOW_S, "seconds of CPU"

    timed()
