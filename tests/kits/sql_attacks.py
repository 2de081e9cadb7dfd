"""Statements that look for a way out of the SQL sandbox, or that take memory and time, and what comes of them.

All of them, as `sql` asks them and through the explorer's page, with figures; a quarter of an hour:
    .venv/bin/python -m tests.kits.sql_attacks [--seconds 3] [--only ways|bombs|deep]
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from core.errors import SqlError
from core.paths import ROOT, Workspace
from warehouse.sql_process import LakeState, SqlProcess, memory_bytes

SECRETS = ("SECRET-OF-A-FILE", "SECRET-OF-THE-ENVIRONMENT", "root:x:0")
NAME = "MY_SECRET"
WAYS_OUT = Path(__file__).with_name("sql_ways_out.txt")
POLL_S = 0.02
MAX_CHARS = 7_000  # that an address may have, once it is encoded


def ways_out(work: Path) -> list[str]:
    """Statements that read or write what they may not, each on a line of a file; `work` has what they look for."""
    lines = WAYS_OUT.read_text().splitlines()
    return [line.replace("{work}", str(work)).encode("latin-1", "backslashreplace").decode("unicode_escape") for line in
            (escaped(line) for line in lines)]  # fmt: skip


def escaped(line: str) -> str:
    """With backslashes that are not those of an invisible character doubled."""
    return line.replace("\\", "\\\\").replace("\\\\u20", "\\u20")


def bombs() -> list[str]:
    """Statements that take memory or time."""
    return [
        "SELECT repeat('x', 2000000000) a, repeat('y', 2000000000) b",
        "SELECT repeat('x', 10000) FROM range(1000000)",
        "SELECT repeat('x', 1000000) FROM range(4000)",
        "SELECT range(1, 400000000) a",
        "SELECT list_transform(range(1, 200000000), x -> 'abcdefghijklmnopqrstuvwxyz'||x) a",
        "SELECT string_agg(repeat('x',1000), '') FROM range(5000000)",
        "SELECT list(repeat('x',1000)) FROM range(5000000)",
        "SELECT lpad('x', 2000000000, 'y') a, lpad('x', 2000000000, 'z')",
        "SELECT format('{:>2000000000}', 'x'), printf('%2000000000d', 1)",
        "WITH RECURSIVE t AS (SELECT 1 i UNION ALL SELECT i+1 FROM t) SELECT count(*) FROM t",
        "WITH RECURSIVE t AS (SELECT 'x' s UNION ALL SELECT s||s FROM t) SELECT max(length(s)) FROM t",
        "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c",
        "SELECT * FROM range(1000000000000) ORDER BY hash(range)",
        "SELECT regexp_matches(repeat('a',100000)||'b', '(a|a)*c') FROM range(1000)",
        "SELECT list_sort(range(100000000), 'DESC')",
        "SELECT json_extract(repeat('[',10000000)||repeat(']',10000000),'$')",
        "SELECT json_structure(repeat('{\"a\":',1000000)||'1'||repeat('}',1000000))",
        "SELECT bitstring('1', 2000000000)",
        "SELECT factorial(33), bin(1)||repeat('0',1000000000)",
        "SELECT levenshtein(repeat('a',100000), repeat('b',100000))",
        "SELECT histogram(x) FROM range(100000000) t(x)",
        "SELECT map_from_entries(list_zip(range(50000000), range(50000000)))",
        "SELECT " + ",".join(f"repeat('x',100000000) c{i}" for i in range(60)),
        "SELECT * FROM " + " , ".join(f"frames f{i}" for i in range(60)),
        "SELECT " + " OR ".join(f"(a.task LIKE '%{i}%')" for i in range(800)) + " FROM episodes a, episodes b",
        "SELECT replace(repeat('a',100000),'a',repeat('b',100000))",
        "SELECT regexp_replace(repeat('a',100000),'a',repeat('b',100000),'g')",
        "SELECT string_split(repeat('a,',100000000),',')",
        "SELECT translate(repeat('a',1000000000),'a','b')",
        "SELECT url_encode(repeat('%',1000000000))",
        "SELECT to_base64(repeat('a',1000000000)::BLOB)",
        "SELECT hex(repeat('a',1000000000))",
        "SELECT array_agg(x) FROM (SELECT range(10000000) x FROM range(100))",
        "SELECT generate_series(timestamp '0001-01-01', timestamp '9999-01-01', interval 1 second)",
        "SELECT json_object('a', repeat('x',1000000000))",
        "SELECT json_array(repeat('x',1000000000), repeat('x',1000000000))",
    ]


DEPTHS = (500, 1000, 3000, 10_000, 100_000)
ON_JSON = (
    *("json_structure({})", "json_valid({})", "json_pretty({})", "json_merge_patch({0},{0})", "json_contains({0},{0})"),
    *("json_transform({},'\"JSON\"')", "({})::JSON", "({})::JSON::VARIANT", "({})::JSON::VARCHAR[]", "json_type({})"),
    *("from_json({},'[\"JSON\"]')", "json_deserialize_sql(({})::JSON)", "json_group_structure({})", "json_keys({})"),
    *("({})::VARIANT::JSON", "json_extract({},'$**')", "variant_typeof(({})::JSON::VARIANT)"),
)


def deep() -> list[str]:
    """Statements with, or about, things within things."""
    nested = [(f"repeat('[',{n})||repeat(']',{n})", f"repeat('{{\"a\":',{n})||'1'||repeat('}}',{n})") for n in DEPTHS]
    found = [f"SELECT {f.format(text)}" for pair in nested for text in pair for f in ON_JSON]
    for text, depths in (
        ("json_serialize_sql('SELECT '||repeat('(',{0})||'1'||repeat(')',{0}))", (1000, 10_000, 100_000)),
        ("json_serialize_sql('SELECT '||repeat('1+',{0})||'1')", (1000, 10_000, 100_000)),
        ("json_serialize_sql('SELECT '||repeat('NOT ',{0})||'true')", (10_000, 100_000, 1_000_000)),
        ("json_serialize_sql('SELECT 1'||repeat(' UNION ALL SELECT 1',{0}))", (1000, 5000, 20_000)),
        ("regexp_matches('a', repeat('(',{0})||'a'||repeat(')',{0}))", (900, 10_000, 1_000_000)),
        ("regexp_matches('a', repeat('a?',{0}))", (1000, 100_000)),
    ):
        found += ["SELECT " + text.format(n) for n in depths]
    found += ["SELECT ''::STRUCT(a INT)" + "[]" * n for n in (100, 1000, 5000)]
    found += ["SELECT NULL::" + "STRUCT(a " * n + "INT" + ")" * n for n in (100, 500, 1000)]
    found += ["SELECT " + "[" * n + "]" * n for n in (200, 900)]
    found += ["SELECT " + "{'a':" * n + "1" + "}" * n for n in (200, 900)]
    found.append("SELECT list_transform([1], " + "x -> list_transform([1], " * 50 + "x -> x" + ")" * 51)
    found += ["SELECT 1 " + "UNION ALL SELECT 1 " * 300, "SELECT 1 " + "UNION SELECT 1 " * 400]
    found.append("SELECT * FROM " + " NATURAL JOIN ".join(["episodes"] * 40))
    joins = "".join(f" JOIN episodes f{i} ON f{i}.dataset=e.dataset" for i in range(60))
    found.append("SELECT * FROM episodes e" + joins)
    found += ["SELECT " + "||".join(["'x'"] * 1000), "SELECT " + "CASE WHEN true THEN " * 200 + "1" + " END" * 200]
    doubling = [f"c{i} AS (SELECT * FROM c{i - 1} a, c{i - 1} b)" if i else "c0 AS (SELECT 1)" for i in range(25)]
    found.append("WITH " + ",".join(doubling) + " SELECT count(*) FROM c24")
    found.append("SELECT " + "(SELECT " * 200 + "1" + ")" * 200)
    return found


KINDS: dict[str, Callable[[Path], list[str]]] = {
    "ways": ways_out,
    "bombs": lambda work: bombs(),
    "deep": lambda work: deep(),
}


def prepare(work: Path) -> LakeState:
    """What the statements look for: a workspace, a file and a variable; what they write would be in `outside`."""
    from tests.kits.made_corpus import make

    (work / "outside").mkdir()
    (work / "outside/secret.csv").write_text(f"a\n{SECRETS[0]}\n")
    os.environ[NAME] = SECRETS[1]
    return LakeState(str(make(work).space.root))


def state_of(work: Path) -> str:
    """A digest of all files outside the lake's own reach: what was beside the workspace, and what is in it."""
    parts = []
    for path in sorted(work.rglob("*")):
        # SQLite's own files come and go with a reader
        if path.is_file() and not path.name.endswith(("-wal", "-shm")):
            parts.append(f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Memory:
    """The most that any process below this one has held since the last look, in bytes."""

    def __init__(self, top: int) -> None:
        self.top, self.most, self.over = top, 0, False
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not self.over:
            for pid in below(self.top):
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue  # it has ended
                for line in status.splitlines():
                    if line.startswith("VmRSS:"):
                        self.most = max(self.most, int(line.split()[1]) << 10)
            time.sleep(POLL_S)


def below(pid: int) -> list[int]:
    """Processes that a process has started, and those that they did."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            own = [int(word) for word in children.read_text().split()]
        except OSError:
            continue
        found += [p for child in own for p in (child, *below(child))]
    return found


class Tally:
    """What came of the statements of one kind."""

    def __init__(self, what: str) -> None:
        self.what, self.ends, self.through = what, Counter[str](), list[str]()
        self.longest, self.slowest = 0.0, ""

    def add(self, sql: str, end: str, text: str, took_s: float) -> None:
        self.ends[end] += 1
        if took_s > self.longest:
            self.longest, self.slowest = took_s, sql[:60]
        if any(secret in text.replace(sql, "") for secret in SECRETS):
            self.through.append(sql)

    def __str__(self) -> str:
        ends = ", ".join(f"{n} {end}" for end, n in self.ends.most_common())
        return (
            f"{self.what}: {self.ends.total()} statements: {ends}; {len(self.through)} through; "
            f"longest {self.longest:.1f} s ({self.slowest})"
        )


def as_sql_asks(at: LakeState, statements: list[str], what: str, time_s: float, memory: str) -> Tally:
    """In a process of their own, one after another; the next is answered whatever came of the one before."""
    tally = Tally(f"sql, {what}")
    with SqlProcess(memory) as process:
        for sql in statements:
            began = time.monotonic()
            try:
                text, end = str(process.query(at, sql, time_s, 500, 16_000_000).to_pylist()), "answered"
            except SqlError as e:
                text, end = str(e), "ended its process" if "signal" in str(e) else "refused or stopped"
                assert "\n" not in text, text
            tally.add(sql, end, text, time.monotonic() - began)
        assert process.query(at, "SELECT 1 AS a", 60)["a"][0].as_py() == 1
    return tally


@contextmanager
def explorer(at: LakeState, time_s: float) -> Iterator[tuple[str, int]]:
    """An explorer of its own process, whose queries have less time: its address and process."""
    command = [sys.executable, "-m", "tests.kits.sql_attacks", "--serve", at.workspace, "--seconds", str(time_s)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=ROOT)
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip(), server.pid
        assert server.poll() is None, "the explorer has ended"
    finally:
        server.terminate()
        server.wait(30)


def serve(workspace: str, time_s: float) -> None:
    from explorer.pages import sql as page
    from tests.kits.browser_kit import Served

    page.TIME_S = time_s
    served = Served(Workspace(Path(workspace)))
    print(served.url, flush=True)
    sys.stdin.read()
    served.stop()


class Another:
    """How long another page takes meanwhile."""

    def __init__(self, url: str) -> None:
        self.url, self.took_s = url, list[float]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        with httpx.Client(timeout=60, trust_env=False) as client:
            while not self._over.wait(0.3):
                began = time.monotonic()
                assert client.get(f"{self.url}/releases").status_code == 200
                self.took_s.append(time.monotonic() - began)

    def end(self) -> str:
        self._over.set()
        self._thread.join(60)
        took = sorted(self.took_s)
        return (
            f"another page, {len(took)} times: median {took[len(took) // 2]:.2f} s, "
            f"95 % within {took[len(took) * 95 // 100]:.2f} s, longest {took[-1]:.2f} s"
        )


def through_the_page(url: str, statements: list[str], what: str) -> Tally:
    tally = Tally(f"page, {what}")
    with httpx.Client(timeout=180, trust_env=False) as client:
        for sql in statements:
            if len(str(httpx.QueryParams({"q": sql}))) > MAX_CHARS:
                continue
            began = time.monotonic()
            answer = client.get(f"{url}/sql", params={"q": sql})
            end = f"status {answer.status_code}" if answer.status_code != 200 else (
                "refused or stopped" if "role=alert" in answer.text or 'role="alert"' in answer.text else "answered"
            )  # fmt: skip
            tally.add(sql, end, answer.text, time.monotonic() - began)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="that a query may take")
    parser.add_argument("--only", choices=list(KINDS), help="one kind of statements")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.seconds)
        return
    from explorer.pages.sql import MEMORY  # here: what is imported above, every process of a query imports

    limit = memory_bytes(MEMORY)
    with tempfile.TemporaryDirectory(prefix="sql-attacks-") as folder:
        work = Path(folder)
        at = prepare(work)
        before = state_of(work)
        for what in [args.only] if args.only else KINDS:
            statements = KINDS[what](work)
            memory = Memory(os.getpid())
            print(as_sql_asks(at, statements, what, args.seconds, MEMORY), flush=True)
            print(f"  most memory of a process: {memory.most / 1e6:.0f} MB of {limit / 1e6:.0f}", flush=True)
            memory.over = True
        with explorer(at, args.seconds) as (url, pid):
            memory, another = Memory(pid), Another(url)
            for what in [args.only] if args.only else KINDS:
                print(through_the_page(url, KINDS[what](work), what), flush=True)
            print(another.end(), flush=True)
            print(f"  most memory of a query's process: {memory.most / 1e6:.0f} MB of {limit / 1e6:.0f}")
        print("files were" + (" not" if state_of(work) == before else "") + " changed or written")


if __name__ == "__main__":
    main()
