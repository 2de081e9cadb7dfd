"""Which changes of the code no test sees: small changes of a room, each tried on the tests that run the changed line.

    make mutants ROOM="core annotate"                           # 20 of each
    make mutants ROOM=ingest MUTANTS="--only formats/rlds --count 40 --seed 3"

The room's tests run once, in a copy of the checkout, to know their lines. Then each mutant runs in a fork of a process
that has loaded the packages of others, until a test fails. Survivors are printed with their line; a line that no test
runs is one, too. What a test does in another process is not known as its line.
"""

import argparse
import ast
import compileall
import copy
import gc
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import CodeType
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[1]
MOST_TESTS = 40  # that are tried on one mutant: the cheapest of those that run its line
TIMEOUT_S = 300
OTHER = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One expression of a file, and what stands there instead."""

    file: str
    line: int
    span: tuple[int, int]  # bytes
    text: str

    def applied(self, source: bytes) -> bytes:
        return source[: self.span[0]] + f"({self.text})".encode() + source[self.span[1] :]


def changed(node: ast.AST) -> ast.expr | None:
    """The expression with its comparison, operator, constant or name in a table changed."""
    new = copy.deepcopy(node)
    match new:
        case ast.Compare(ops=[op]) if type(op) in OTHER:
            new.ops = [OTHER[type(op)]()]
        case ast.BoolOp(op=op) | ast.BinOp(op=op) if type(op) in OTHER:
            new.op = OTHER[type(op)]()
        case ast.UnaryOp(op=ast.Not()):
            return new.operand
        case ast.Constant(value=bool() as value):
            new.value = not value
        case ast.Constant(value=int() | float() as value):
            new.value = value + 1 if isinstance(value, int) else value * 2 + 0.1
        case (
            ast.Tuple(elts=[ast.Constant(value=str()), *_])
            | ast.Set()
            | ast.List(elts=[ast.Constant(), *_])
        ):
            new.elts = new.elts[:-1]  # a name less
        case ast.Dict(keys=[_, *_]):
            new.keys = new.keys[:-1]
            new.values = new.values[:-1]
        case _:
            return None
    return new  # pyright: ignore[reportReturnType]


def expressions(node: ast.AST) -> Iterator[ast.AST]:
    """All that are run: no annotations, no texts of errors."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params", "decorator_list") or isinstance(
            node, ast.JoinedStr
        ):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.Raise):
                yield child
                yield from expressions(child)


def mutants(file: str) -> list[Mutant]:
    """All of a file."""
    source = (ROOT / file).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    mutants_found = []
    for node in expressions(ast.parse(source)):
        new = changed(node) if isinstance(node, ast.expr) else None
        if isinstance(node, ast.expr) and new:
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
            mutants_found.append(Mutant(file, node.lineno, (begin, end), ast.unparse(new)))
    return mutants_found


MONITORING = sys.monitoring
LINES = "MUTANTS_LINES"  # the file that the tests' lines go to
ran: dict[str, set[int]] = defaultdict(set)


def pytest_configure() -> None:
    """In the run that learns the lines; a mutant's run has none of this."""

    def line_runs(code: CodeType, line: int) -> object:
        ran[code.co_filename].add(line)
        return MONITORING.DISABLE  # until the next test

    MONITORING.use_tool_id(MONITORING.COVERAGE_ID, "mutants")
    MONITORING.register_callback(MONITORING.COVERAGE_ID, MONITORING.events.LINE, line_runs)
    MONITORING.set_events(MONITORING.COVERAGE_ID, MONITORING.events.LINE)


shared_s: dict[
    str, float
] = {}  # what fixtures of several tests cost, which each mutant's run pays again


def cpu_s() -> float:
    """Of this process and those it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
    start_s = cpu_s()
    result = yield
    if fixturedef.scope != "function":
        shared_s[fixturedef.argname] = cpu_s() - start_s
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    ran.clear()
    MONITORING.restart_events()
    start_s = cpu_s()
    former_fixtures = set(shared_s)
    result = yield
    own_lines = {
        os.path.relpath(file, ROOT): sorted(lines)
        for file, lines in ran.items()
        if file.startswith(f"{ROOT}/")
    }
    own_s = cpu_s() - start_s - sum(shared_s[name] for name in shared_s.keys() - former_fixtures)
    names = getattr(item, "fixturenames", ())
    cost_s = own_s + sum(shared_s.get(name, 0) for name in set(names))
    with Path(os.environ[LINES]).open("a") as lines_file:
        row = [item.nodeid, own_lines, cost_s, item.session.testsfailed]
        lines_file.write(json.dumps(row) + "\n")
    return result


def pytest_sessionfinish() -> None:
    """The packages of others that the tests have loaded, in their order."""
    specs = {name: getattr(module, "__spec__", None) for name, module in sys.modules.items()}
    names = [
        name
        for name, spec in specs.items()
        if spec and spec.name == name and "/site-packages/" in (spec.origin or "")
    ]
    Path(f"{os.environ[LINES]}.packages").write_text("\n".join(names))


@dataclass(frozen=True)
class Learnt:
    """Of the tests that pass without any change: the lines they run, by file, the cheapest test
    first."""

    lines: dict[str, dict[str, list[int]]]
    failed: list[str]  # left out
    packages: list[str]

    def tests(self, mutant: Mutant) -> list[str]:
        """Those that run a mutant's line. What runs at import belongs to all tests of its module."""
        by_line = [
            test for test, files in self.lines.items() if mutant.line in files.get(mutant.file, ())
        ]
        return by_line or [test for test, files in self.lines.items() if mutant.file in files]


def learn(checkout: Path, tests: list[str]) -> Learnt:
    """Run the tests of a checkout as it is."""
    lines_file = checkout.parent / "lines"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "tests.mutants",
        "--tb=no",
        *tests,
    ]
    variables = {
        "PYTHONPATH": str(checkout),
        "OMP_NUM_THREADS": "1",
        LINES: str(lines_file),
    }
    process = subprocess.run(
        command,
        cwd=checkout,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if not lines_file.is_file():
        sys.exit(f"No test ran:\n{process.stdout[-2000:]}{process.stderr[-2000:]}")
    lines: dict[str, dict[str, list[int]]] = {}
    failed = []
    num_failed = 0
    rows = map(json.loads, lines_file.read_text().splitlines())
    costs: dict[str, float] = {}
    for test, files, cost_s, num_failed_then in rows:
        if num_failed_then > num_failed:
            failed.append(test)
            num_failed = num_failed_then
        else:
            lines[test] = files
            costs[test] = cost_s
    lines = {test: lines[test] for test in sorted(lines, key=costs.__getitem__)}
    return Learnt(lines, failed, Path(f"{lines_file}.packages").read_text().split())


def seen(checkout: Path, mutant: Mutant, tests: list[str]) -> bool:
    """Whether one of the tests fails. A run that never ends, or cannot begin, counts as that."""
    path = checkout / mutant.file
    source = path.read_bytes()
    stat = path.stat()
    path.write_bytes(mutant.applied(source))
    process_id = os.fork()
    if process_id == 0:
        _be_tested(checkout, tests)
    limit = time.monotonic() + TIMEOUT_S
    ended, status = os.waitpid(process_id, os.WNOHANG)
    while not ended and time.monotonic() < limit:
        time.sleep(0.02)
        ended, status = os.waitpid(process_id, os.WNOHANG)
    if not ended:
        os.killpg(process_id, signal.SIGKILL)
        os.waitpid(process_id, 0)
    path.write_bytes(source)
    os.utime(
        path, ns=(stat.st_atime_ns, stat.st_mtime_ns)
    )  # what was compiled of it is valid again
    return not ended or os.waitstatus_to_exitcode(status) != 0


def _be_tested(checkout: Path, tests: list[str]) -> NoReturn:
    """In a fork: the tests of the checkout, whose modules are not loaded yet."""
    os.setsid()
    os.chdir(checkout)
    for name in [n for n in sys.modules if n.partition(".")[0] == "tests"]:
        del sys.modules[name]
    sys.path[:] = [str(checkout), *(p for p in sys.path if Path(p).resolve() != ROOT)]
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    with Path(os.devnull).open("w") as nothing:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nothing.fileno(), stream.fileno())
    os._exit(pytest.main(["-p", "no:cacheprovider", "--tb=no", "-x", *tests]))


def copied(folder: Path) -> Path:
    """The checkout as git knows it, changes that are not committed included, compiled."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    compileall.compile_dir(folder, quiet=1)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rooms", nargs="+")
    parser.add_argument("--only", default="", help="modules whose path has this in it")
    parser.add_argument("--tests", nargs="*", help="where their tests are, other than tests/ROOM")
    parser.add_argument("--count", type=int, default=20, help="in each room")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # before packages are loaded
    chosen: list[Mutant] = []
    for room in args.rooms:
        files = sorted(str(p.relative_to(ROOT)) for p in (ROOT / room).rglob("*.py"))
        room_mutants = list(
            chain.from_iterable(mutants(file) for file in files if args.only in file)
        )
        chosen += sorted(
            random.Random(args.seed).sample(room_mutants, min(args.count, len(room_mutants))),
            key=lambda m: (m.file, m.span),
        )
    num_seen = 0
    with tempfile.TemporaryDirectory() as temporary:
        checkout = copied(Path(temporary) / "checkout")
        learnt = learn(checkout, args.tests or [f"tests/{room}" for room in args.rooms])
        for test in learnt.failed:
            print(f"Left out, it fails without any change: {test}", flush=True)
        for name in learnt.packages:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()
        for number, mutant in enumerate(chosen, 1):
            tests = learnt.tests(mutant)
            is_seen = bool(tests) and seen(checkout, mutant, tests[:MOST_TESTS])
            num_seen += is_seen
            outcome = "seen" if is_seen else f"SURVIVES {len(tests)} tests"
            print(
                f"{number}. {mutant.file}:{mutant.line} {mutant.text[:100]!r}: {outcome}",
                flush=True,
            )
    print(f"{num_seen} of {len(chosen)} seen")


if __name__ == "__main__":
    main()
