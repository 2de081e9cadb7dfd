"""Builds that are hurt at a moment that a seed chooses, and what has to hold after each."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from annotate.model_client.responses import FILE, decode
from core.paths import ROOT
from tests.kits.cli_kit import (
    PROGRAM,
    Result,
    environment,
    proccorpus,
    without_progress,
    write_configs,
)
from tests.kits.files import hashes_of
from tests.kits.patience import PATIENCE_S
from warehouse.lake.doctor import ERROR

INJECTED = ROOT / "tests" / "faults" / "injected"
SETTINGS = """
frames = {{keyframe_interval_s = 0.5}}
vlm = {{model = "stand-in", endpoints = ["{url}"], reason_interval_s = 1.5, max_attempts = 2, max_concurrency = 2}}
"""

# A program that is killed at a commit: the moments before and behind each, of the lake and of what people said. Each
# line of its input is a moment and a workspace; it is forked, since the start costs more than most commands
KILLED = """
import os, sys, duckdb
import proccorpus, cli.main, cli.console, cli.operating, cli.registry, cli.saying, pipeline.build, warehouse.lake.lake
for line in sys.stdin:
    moment, _, workspace = line.rstrip().partition(" ")
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
for descriptor in (0, 1):
    os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
sys.argv += ["--workspace", workspace]
commits = []
def strike():
    commits.append(len(commits))
    if len(commits) == int(moment):
        os.kill(os.getpid(), 9)
def execute(con, sql, *values, execute=duckdb.DuckDBPyConnection.execute):
    if sql != "COMMIT":
        return execute(con, sql, *values)
    strike()
    execute(con, sql)
    strike()
duckdb.DuckDBPyConnection.execute = execute
sys.setprofile(lambda _, event, call: event[:2] == "c_" and call.__name__ == "commit" and strike())
try:
    proccorpus.main()
except SystemExit as e:
    sys.stdout.flush()
    os._exit(e.code or 0)  # a fork's libraries would take down threads that it does not have
"""


@dataclass
class Tally:
    """What the terminal shows at the end: by fault the moments tried and what came of them."""

    lines: dict[str, Counter] = field(default_factory=dict)
    moments: Counter = field(default_factory=Counter)

    def add(self, fault: str, **counts: int) -> None:
        self.lines.setdefault(fault, Counter()).update(counts)


@dataclass(frozen=True)
class Corpus:
    """Four episodes of each: `long` by the annotator motion, `short` by a model."""

    config: Path

    @classmethod
    def make(cls, folder: Path, url: str) -> "Corpus":
        entries = {
            name: f"source: {ROOT / 'samples' / f'sim_{name}'}\nchunk_size: 2\nannotator: {annotator}\n"
            for name, annotator in (("long", "motion"), ("short", "vlm"))
        }
        return cls(write_configs(folder, entries, SETTINGS.format(url=url)))

    def command(self, workspace: Path, workers: int = 2) -> list[str]:
        words = [
            PROGRAM,
            "build",
            "--config",
            self.config,
            "--episodes",
            "0-3",
            "--workers",
            workers,
        ]
        return [*map(str, words), "--workspace", str(workspace)]

    def build(
        self, workspace: Path, workers: int = 2, **env: str
    ) -> "subprocess.CompletedProcess[str]":
        """To its end."""
        return subprocess.run(
            self.command(workspace, workers),
            env=environment(OMP_NUM_THREADS="1", **env), capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip

    @contextmanager
    def building(
        self, workspace: Path, workers: int = 2, **env: str
    ) -> "Iterator[subprocess.Popen[str]]":
        """In a session of its own; what is left of it at the end is killed."""
        process = subprocess.Popen(
            self.command(workspace, workers), env=environment(OMP_NUM_THREADS="1", **env), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            kill_session(process.pid)
            process.communicate()


@dataclass(frozen=True)
class Whole:
    """What an uninterrupted build comes to."""

    digest: dict[str, str]
    shards: dict[str, str]

    @classmethod
    def of(cls, workspace: Path) -> "Whole":
        # By a process of its own: this one may not hold files of a disk that is to be unmounted
        words = ("show", "digest", "--format", "json")
        rows = proccorpus(*words, cwd=ROOT, workspace=workspace).json
        digest = {row["table"]: row["hash"] for row in rows}
        return cls(digest, hashes_of(workspace / "shards", "*.*"))

    def differences(self, workspace: Path) -> list[str]:
        """Tables and listed shards that are not as they should be."""
        other_whole = Whole.of(workspace)
        differing = [
            name for name, digest in self.digest.items() if other_whole.digest.get(name) != digest
        ]
        return differing + [
            name for name, sha256 in self.shards.items() if other_whole.shards.get(name) != sha256
        ]


def living(session: int) -> list[int]:
    """Processes of a session that have not ended (Linux; a zombie has)."""
    session_pids = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, process_session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(process_session) == session and state not in "ZX":
            session_pids.append(int(path.parent.name))
    return session_pids


@contextmanager
def killing(*words: object) -> Iterator[Callable[[int, Path], bool]]:
    """Is a command killed before (odd moments) or behind (even ones) one of its commits, in a
    workspace?"""
    quiet = (
        "-W",
        "ignore::DeprecationWarning",
    )  # of threads that its packages begin, and that no fork needs
    program = [sys.executable, *quiet, "-c", KILLED, *map(str, words)]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as starting:
        assert starting.stdin
        assert starting.stdout
        requests, codes = starting.stdin, starting.stdout

        def is_killed(moment: int, workspace: Path) -> bool:
            print(moment, workspace, file=requests, flush=True)
            return int(codes.readline()) == -signal.SIGKILL

        yield is_killed
        requests.close()


def kill_session(session: int) -> None:
    for pid in living(session):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    wait_for(lambda: not living(session), "all processes of the session have ended")


def wait_for(
    condition: Callable[[], object],
    subject: str = "what was waited for",
    limit_s: float = PATIENCE_S,
) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"not within {limit_s} s: {subject}"
        time.sleep(0.02)


def doctor(workspace: Path, *options: str) -> Result:
    return proccorpus("doctor", "--format", "json", *options, cwd=ROOT, workspace=workspace)


def errors(workspace: Path, *, hashes: bool = False) -> list[dict[str, str]]:
    """What `proccorpus doctor` calls an error, such as a listed file that is missing. Where a first
    build ended before its first commit, there is no workspace yet, and the doctor says just that.
    """
    result = doctor(workspace, *["--hashes"] * hashes)
    if result.err.startswith("error: no workspace at"):
        return []
    return [finding for finding in result.json["findings"] if finding["severity"] == ERROR]


def unfinished(workspace: Path) -> list[dict[str, str]]:
    """What a build that ended well has left to do: nothing."""
    findings = doctor(workspace).json["findings"]
    return [finding for finding in findings if finding["what"] == "stale partitions"]


def assert_same_end(workspace: Path, whole: Whole) -> None:
    assert unfinished(workspace) == []
    assert errors(workspace, hashes=True) == []
    assert whole.differences(workspace) == []


def assert_recovers(
    corpus: Corpus, workspace: Path, whole: Whole, repeats: "Repeats", tally: Tally, fault: str
) -> None:
    """One more build ends as an uninterrupted one, and asks nothing that was answered."""
    result = corpus.build(workspace)
    assert (result.returncode, without_progress(result.stderr)) == (0, ""), result.stderr[-3000:]
    assert_same_and_once(workspace, whole, repeats, tally, fault)


def assert_same_and_once(
    workspace: Path, whole: Whole, repeats: "Repeats", tally: Tally, fault: str
) -> None:
    """As assert_same_end, and no answered call was sent again."""
    num_repeated = repeats.count(workspace)
    tally.add(fault, differences=len(whole.differences(workspace)), repeated=num_repeated)
    assert num_repeated == 0
    assert_same_end(workspace, whole)


def answered(workspace: Path) -> set[str]:
    """Keys of the calls whose replies are stored whole, read without the store."""
    rows = in_replies(workspace, "replies", "SELECT key, data FROM replies")
    return {
        decode(key, data) and key for key, data in rows
    }  # raises where a crash left half a reply


def in_replies(workspace: Path, table: str, query: str) -> list[tuple]:
    """Rows of the file of replies and costs."""
    path = workspace / "responses" / FILE
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=PATIENCE_S)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
            return []
        return db.execute(query).fetchall()


def sent(workspace: Path) -> list[tuple[int, str]]:
    """(number, key) of the calls that were ever sent, in order."""
    return in_replies(workspace, "attempts", "SELECT id, call_key FROM attempts ORDER BY id")


@dataclass
class Repeats:
    """Calls that were sent although their answer was stored at an earlier kill."""

    known: list[tuple[int, set[str]]] = field(default_factory=list)

    def note(self, workspace: Path) -> None:
        calls = sent(workspace)
        self.known.append((calls[-1][0] if calls else 0, answered(workspace)))

    def count(self, workspace: Path) -> int:
        calls = sent(workspace)
        repeated_calls = {
            number
            for (last, keys), (number, key) in product(self.known, calls)
            if number > last and key in keys
        }
        return len(repeated_calls)


@dataclass
class ModelServer:
    """The stand-in of a model in a process of its own, always on one port."""

    log: Path
    options: Sequence[str] = ()
    url: str = ""
    port: int = 0
    process: "subprocess.Popen[str] | None" = None

    def start(self) -> None:
        stand_in = [sys.executable, "-m", "tests.kits.vlm_standin"]
        command = [*stand_in, "--port", self.port, "--log", self.log, *self.options]
        self.process = subprocess.Popen(
            [str(c) for c in command], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.removesuffix("/v1").rpartition(":")[2])

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def events(self, kind: str) -> list[str]:
        """Hashes of the request bodies, in order."""
        if self.log.exists():
            lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        else:
            lines = []
        return [line["sha256"] for line in lines if line["event"] == kind]


@contextmanager
def serving_model(folder: Path, *options: str) -> Iterator[ModelServer]:
    server = ModelServer(folder / "requests.jsonl", options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@dataclass
class Moment:
    """A point of a build by a seed: before or soon after the n-th operation on some files."""

    kind: str
    number: int
    delay_s: float
    kill: str

    @classmethod
    def choose(cls, rng: random.Random, kill: str) -> "Moment":
        if kill == "torn":
            return cls("open", rng.randint(1, 60), 0.0, kill)
        kind = rng.choice(("any", "rename", "rename", "open", "lock", "lock", "delete"))
        max_count = {"any": 150, "rename": 60, "open": 60, "lock": 20, "delete": 12}[kind]
        delay_s = rng.choice((0.0, 0.0, rng.uniform(0, 0.05), rng.uniform(0, 0.5)))
        return cls(kind, rng.randint(1, max_count), delay_s, kill)

    def environment(self, workspace: Path, mark: Path) -> dict[str, str]:
        mark.unlink(missing_ok=True)
        plan = {"root": str(workspace), "mark": str(mark), **self.__dict__}
        return {"FAULT": json.dumps(plan), "PYTHONPATH": f"{INJECTED}:{ROOT}"}
