"""Hypothesis against the parsers that are ours, for as long as one likes; the same seed tries the same again.

    .venv/bin/python -m tests.kits.parser_fuzz rlds --minutes 10 --seed 7

Whatever it is given, a parser reads it, or raises the one error that its docstring names: soon, and in little memory.
"""

import argparse
import contextlib
import copy
import json
import random
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.kits import spoil
from tests.kits.processes import own_peak_mb

EXAMPLES = 200  # of one round, which has a seed of its own
SLOW_S = 20.0  # of CPU that one example may take: a crowded machine is slow, not the parser
ADDRESS_SPACE_BYTES = 6 << 30

Check = Callable[[Any], None]


@dataclass(frozen=True)
class Parser:
    """`prepare` makes, in an empty folder, what examples are tried on; `examples` are given to what it returns."""

    prepare: Callable[[Path], tuple[Check, st.SearchStrategy[Any]]]


OUTSIDE = Path("/outside")  # what no example may lead to
RANDOMS = st.randoms(use_true_random=False)


def edited(value: Any) -> st.SearchStrategy[Any]:
    """A JSON value with one to three of its places changed."""
    return RANDOMS.map(lambda rng: spoil.edited(copy.deepcopy(value), rng, OUTSIDE))


def spoilt(data: bytes) -> st.SearchStrategy[bytes]:
    return RANDOMS.map(lambda rng: spoil.spoilt_bytes(data, rng))


def edited_files(files: Mapping[str, bytes]) -> st.SearchStrategy[dict[str, bytes]]:
    """One or two of some files, with other content."""

    def edit(rng: random.Random) -> dict[str, bytes]:
        names = {rng.choice(sorted(files)) for _ in range(rng.choice([1, 2]))}
        return {n: spoil.spoilt_content(Path(n).name, files[n], rng, OUTSIDE) for n in sorted(names)}

    return RANDOMS.map(edit)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _json_lines(values: Any) -> bytes:
    rows = values if isinstance(values, list) else [values]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


# Parsers


class Files(dict[str, bytes]):
    """Contents by relative path, which no message shows."""

    def __repr__(self) -> str:
        return f"<{len(self)} files>"


def _files(root: Path, *patterns: str) -> Files:
    found = sorted(p for pattern in patterns for p in root.rglob(pattern) if p.is_file())
    return Files({str(p.relative_to(root)): p.read_bytes() for p in found})


class Changing:
    """A folder whose files are changed for one example, and then as before."""

    def __init__(self, root: Path, files: Mapping[str, bytes]) -> None:
        self.root, self.files = root, files

    def __call__(self, changes: Mapping[str, bytes], look: Callable[[], None]) -> None:
        try:
            for name, data in changes.items():
                (self.root / name).write_bytes(data)
            look()
        finally:
            for name in changes:
                (self.root / name).write_bytes(self.files[name])


def tfrecord(folder: Path) -> tuple[Check, st.SearchStrategy[Any]]:
    """TFRecord and the messages in it, with right checksums and wrong ones."""
    from ingest.formats import tfrecord as reader
    from ingest.reasons import DataError
    from tests.kits import rlds_writer as rlds

    good = rlds.example({"a": [b"x", b""], "b/c": [1.5, 2.5], "d": [1, -2, 300], "e": []})
    whole = rlds.record(good) * 2

    def check(data: bytes) -> None:
        try:
            for record in reader.records(data):
                reader.check_message(data, record)
                for values in reader.example(data, record).values():
                    _read_values(data, values)
        except DataError:
            return

    def _read_values(data: bytes, values: Any) -> None:
        if values.kind == "bytes":
            list(reader.byte_spans(data, values))
        else:
            count = reader.float_count(data, values)
            assert len(reader.numbers(data, values)) == count or values.kind == "int"

    content = edited_files({"a.tfrecord": whole}).map(lambda files: files["a.tfrecord"])
    return check, st.one_of(spoilt(good).map(rlds.record), st.binary(max_size=200).map(rlds.record), content)


def _dataset(root: Path, patterns: tuple[str, ...], **fields: Any) -> tuple[Check, st.SearchStrategy[Any]]:
    """Listing a dataset and reading its episodes' rows."""
    from ingest.reasons import DataError
    from ingest.source import list_episodes, read_episode
    from ingest.sources.types import SourceError
    from tests.kits.lerobot_writer import source_of

    files = _files(root, *patterns)
    changing = Changing(root, files)

    def look() -> None:
        source = source_of(root, **fields)
        try:
            records = list_episodes(source).records
        except SourceError:
            return
        for record in records:
            try:
                read_episode(source, record)
            except (DataError, SourceError):
                continue

    return lambda changes: changing(changes, look), edited_files(files)


def rlds(folder: Path) -> tuple[Check, st.SearchStrategy[Any]]:
    """features.json, dataset_info.json and shards of RLDS."""
    from tests.kits.fuzz_bases import rlds_base

    rlds_base(folder / "rlds")
    return _dataset(folder / "rlds", ("*.json", "*.tfrecord*"), fps=5.0)


def lerobot_v2(folder: Path) -> tuple[Check, st.SearchStrategy[Any]]:
    """Metadata and rows of LeRobot v2, with every form of steps."""
    from tests.kits.fuzz_bases import lerobot_steps

    lerobot_steps(folder / "v2")
    return _dataset(folder / "v2", ("*.json", "*.jsonl", "*.parquet"))


def lerobot_v3(folder: Path) -> tuple[Check, st.SearchStrategy[Any]]:
    """Metadata and rows of LeRobot v3."""
    from tests.kits.fuzz_bases import lerobot_labels

    lerobot_labels(folder / "v3")
    return _dataset(folder / "v3", ("*.json", "*.parquet"))


def imports(folder: Path) -> tuple[Check, st.SearchStrategy[Any]]:
    """Annotations of others: an export of ours, LeRobot folders, JSON lines."""
    from annotate.imported import ImportedError, read_annotations
    from ingest.sources.types import SourceError
    from tests.kits.fuzz_bases import lerobot_labels, lerobot_steps

    lerobot_steps(folder / "all/v2")
    lerobot_labels(folder / "all/v3")
    (folder / "all/lines").mkdir()
    frames = [{"frame_id": 500 + k, "episode_index": 0, "sub_task": "reach" if k < 5 else None} for k in range(9)]
    (folder / "all/lines/a.jsonl").write_bytes(_json_lines(frames))
    (folder / "all/lines/episode_1.jsonl").write_bytes(_json_lines(frames))
    root = folder / "all"
    files = _files(root, "*.json", "*.jsonl", "*.parquet")
    changing = Changing(root, files)

    def look(changed: set[str]) -> None:
        for part in changed:
            try:
                told = read_annotations(root / part)
                assert len(told.sha256) == 64
            except (ImportedError, SourceError):
                continue

    def check(changes: Mapping[str, bytes]) -> None:
        changing(changes, lambda: look({name.split("/")[0] for name in changes}))

    return check, edited_files(files)


def file_forms(folder: Path) -> tuple[Check, st.SearchStrategy[Any]]:
    """Annotations in files of other tools' forms, as our exports write them: read, and made labels of."""
    from annotate.imported import FILE_FORMS, ImportedError
    from tests.kits.made_corpus import make
    from tests.kits.tiny_lerobot import LENGTHS
    from warehouse.exports import EXPORT_KINDS
    from warehouse.exports.options import Selection
    from warehouse.lake import Lake

    lake = Lake(make(folder).space, read_only=True)
    root = folder / "forms"
    root.mkdir()
    paths = {"frame-signals": "signals.parquet", "annotations-json": "drawn.json", "opensarm": "o", "robometer": "r"}
    assert paths.keys() == FILE_FORMS.keys()
    for form, name in paths.items():
        EXPORT_KINDS[form].export(lake, Selection(allow=("unknown",)), root / name)
    lake.con.close()
    files = _files(root, "*.json", "*.jsonl", "*.parquet", "*.npy")
    changing = Changing(root, files)

    def look(changed: set[str]) -> None:
        for form, name in paths.items():
            if name in changed:
                try:
                    told = FILE_FORMS[form](root / name)
                except ImportedError:
                    continue
                for annotation in told:
                    with contextlib.suppress(ImportedError):
                        annotation.label(LENGTHS[0], 10.0, None)

    def check(changes: Mapping[str, bytes]) -> None:
        changing(changes, lambda: look({name.split("/")[0] for name in changes}))

    return check, edited_files(files)


def corrections(folder: Path) -> tuple[Check, st.SearchStrategy[Any]]:
    """Corrections and outcomes in files, against a corpus."""
    from tests.kits.made_corpus import make
    from warehouse.exports import corrections as files
    from warehouse.lake import Lake
    from warehouse.lake.statements import CorrectionError, read_text
    from warehouse.outcome_files import read_outcomes

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
                reading = files.from_lines if kind == "lines" else files.from_tasks
                reading(lake, read_text(path), "eve")
        except CorrectionError:
            return

    def of(kind: str, *found: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[str, bytes]]:
        return st.one_of(*found).map(lambda data: (kind, data))

    lines, tasks = _json_lines([line, line | {"status": "rejected"}]), _json([task])
    return check, st.one_of(
        of("lines", edited([line, line]).map(_json_lines), spoilt(lines)),
        of("tasks", edited([task]).map(_json), spoilt(tasks)),
        of("outcomes", edited([outcome, outcome]).map(_json), edited([outcome]).map(_json_lines), spoilt(csv)),
    )


def wire(folder: Path) -> tuple[Check, st.SearchStrategy[Any]]:
    """What clients send to the reward server: JSON, forms with pictures and videos, and what is neither."""
    from dataclasses import replace

    from fastapi.testclient import TestClient

    from eval.server.app import make_app
    from eval.server.limits import ServerLimits
    from tests.kits.lerobot_writer import write_video
    from tests.kits.reward_server_kit import FPS, TASK, Pixels, pictures, png

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

    @st.composite
    def multipart(draw: st.DrawFn, part: str, content: bytes) -> bytes:
        fields = draw(edited(form))
        fields = fields if isinstance(fields, dict) else {}
        body = b""
        for name, value in fields.items():
            body += f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode(errors="replace")
        for _ in range(draw(st.integers(0, 3))):
            data = draw(st.one_of(st.just(content), spoilt(content)))
            head = (
                f'--x\r\nContent-Disposition: form-data; name="{part}"; filename="{draw(st.text(max_size=5))}"\r\n\r\n'
            )
            body += head.encode(errors="replace") + data + b"\r\n"
        return body + draw(st.sampled_from((b"--x--\r\n", b"", b"--x\r\n")))

    forms = "multipart/form-data; boundary=x"
    return sent, st.one_of(
        st.tuples(
            st.just("/v1/sessions"),
            st.one_of(edited(session).map(_json), spoilt(_json(session))),
            st.just("application/json"),
        ),
        st.tuples(
            st.sampled_from((f"/v1/sessions/{opened}/frames", "/v1/frames")),
            multipart("frames", picture),
            st.just(forms),
        ),
        st.tuples(st.just("/v1/videos"), multipart("videos", video), st.just(forms)),
        st.tuples(
            st.sampled_from(("/v1/sessions", "/v1/frames", "/v1/videos")),
            st.binary(max_size=300),
            st.sampled_from((forms, "application/json", "text/plain", forms[:19])),
        ),
    )


PARSERS = {
    p.__name__: Parser(p) for p in (tfrecord, rlds, lerobot_v2, lerobot_v3, imports, file_forms, corrections, wire)
}


def run(name: str, folder: Path, seconds: float, seed: int) -> int:
    """Try examples on a parser for so long; how many. Raises what the parser raised, for the smallest such example."""
    check, examples = PARSERS[name].prepare(folder)
    end, tried = time.monotonic() + seconds, 0

    def timed(example: Any) -> None:
        nonlocal tried
        if time.monotonic() > end:
            return
        tried += 1
        began = time.process_time()
        check(example)
        taken = time.process_time() - began
        assert taken < SLOW_S, f"{taken:.0f} s of CPU"

    for number in _seeds(seed):
        if time.monotonic() > end:
            return tried
        settings = hypothesis.settings(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            suppress_health_check=tuple(HealthCheck),  # pyright: ignore[reportArgumentType]
        )
        try:
            hypothesis.seed(number)(settings(given(examples)(timed)))()
        except BaseException as e:
            e.add_note(f"again: python -m tests.kits.parser_fuzz {name} --seed {seed}, after {tried} examples")
            raise
    raise AssertionError  # seeds have no end


def _seeds(seed: int) -> Iterator[int]:
    rng = random.Random(seed)
    while True:
        yield rng.getrandbits(32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parser", choices=PARSERS)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    asked = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if asked.seed is None else asked.seed
    print(f"{asked.parser}: seed {seed}", flush=True)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        tried = run(asked.parser, Path(folder), 60 * asked.minutes, seed)
    print(f"{asked.parser}: {tried} examples, nothing found; {own_peak_mb()} MB", flush=True)


if __name__ == "__main__":
    sys.exit(main())
