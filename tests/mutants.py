"""Which changes of the code no test sees: small changes of a room, each tried on the tests that run the changed line.

    make mutants ROOM=core                                      # 20 of them
    make mutants ROOM=ingest MUTANTS="--only formats/rlds --count 40 --seed 3"

The room's tests run once, to know their lines. Then each mutant runs in a copy of the checkout. Survivors are printed
with their line; a line that no test runs is one, too. What a test does in another process is not known as its line.
"""

import argparse
import ast
import copy
import json
import os
import random
import re
import shutil
import statistics
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

import pytest

ROOT = Path(__file__).parents[1]
MOST_TESTS = 40  # that are tried on one mutant: the quickest of those that run its line
TIMEOUT_S = 180
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
    at: tuple[int, int]  # bytes
    text: str

    def applied(self, source: bytes) -> bytes:
        return source[: self.at[0]] + f"({self.text})".encode() + source[self.at[1] :]


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
ran: dict[str, set[int]] = defaultdict(set)


def pytest_configure() -> None:
    def line_runs(code: CodeType, line: int) -> object:
        ran[code.co_filename].add(line)
        return MONITORING.DISABLE  # until the next test

    MONITORING.use_tool_id(MONITORING.COVERAGE_ID, "mutants")
    MONITORING.register_callback(MONITORING.COVERAGE_ID, MONITORING.events.LINE, line_runs)
    MONITORING.set_events(MONITORING.COVERAGE_ID, MONITORING.events.LINE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    ran.clear()
    MONITORING.restart_events()
    start_s = time.monotonic()
    result = yield
    own_lines = {
        os.path.relpath(file, ROOT): sorted(lines)
        for file, lines in ran.items()
        if file.startswith(f"{ROOT}/")
    }
    with Path(os.environ["MUTANTS_LINES"]).open("a") as lines_file:
        lines_file.write(json.dumps([item.nodeid, own_lines, time.monotonic() - start_s]) + "\n")
    return result


def run_tests(
    folder: Path, limit_s: int, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Pytest on the code in a folder, for so long at most."""
    command = [
        "timeout",
        "-k",
        "5",
        str(limit_s),
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
    ]
    variables = {
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    } | environment
    return subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def failures(checkout: Path, mutant: Mutant, tests: list[str]) -> int:
    """How many of the tests see it. A run that never ends, or cannot begin, counts as one."""
    path = checkout / mutant.file
    source = path.read_bytes()
    path.write_bytes(mutant.applied(source))
    (checkout / "asked").write_text("\n".join(tests))
    process = run_tests(checkout, TIMEOUT_S, "--tb=no", "@asked")
    path.write_bytes(source)
    num_failed = sum(int(n) for n in re.findall(r"(\d+) (?:failed|errors?)\b", process.stdout))
    return num_failed or int(process.returncode != 0)


def copied(folder: Path) -> Path:
    """The checkout as git knows it, changes that are not committed included."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("room")
    parser.add_argument("--only", default="", help="modules whose path has this in it")
    parser.add_argument("--tests", nargs="*", help="where its tests are, other than tests/ROOM")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    files = sorted(str(p.relative_to(ROOT)) for p in (ROOT / args.room).rglob("*.py"))
    all_mutants = list(chain.from_iterable(mutants(file) for file in files if args.only in file))
    chosen = sorted(
        random.Random(args.seed).sample(all_mutants, min(args.count, len(all_mutants))),
        key=lambda m: (m.file, m.at),
    )
    with tempfile.TemporaryDirectory() as temporary:
        lines_file = Path(temporary) / "lines"
        checkout = copied(Path(temporary) / "checkout")
        process = run_tests(
            ROOT,
            3600,
            "-p",
            "tests.mutants",
            *(args.tests or [f"tests/{args.room}"]),
            MUTANTS_LINES=str(lines_file),
        )
        if process.returncode:
            sys.exit(
                f"The tests fail without any change:\n{process.stdout[-2000:]}{process.stderr[-2000:]}"
            )
        lines: dict[str, dict[str, list[int]]] = {}
        for test, lines_by_file, _ in sorted(
            map(json.loads, lines_file.read_text().splitlines()), key=lambda row: row[2]
        ):
            lines[test] = lines_by_file  # the quickest first
        counts = []
        for number, mutant in enumerate(chosen, 1):
            run = [
                test
                for test, lines_by_file in lines.items()
                if mutant.line in lines_by_file.get(mutant.file, ())
            ]
            # What runs at import belongs to all tests of its module
            run = run or [
                test for test, lines_by_file in lines.items() if mutant.file in lines_by_file
            ]
            num_failed = failures(checkout, mutant, run[:MOST_TESTS]) if run else 0
            counts.append(num_failed)
            if num_failed:
                told_of = f"seen by {num_failed} of {len(run[:MOST_TESTS])} tests"
            else:
                told_of = f"SURVIVES {len(run)} tests"
            print(
                f"{number}. {mutant.file}:{mutant.line} {mutant.text[:100]!r}: {told_of}",
                flush=True,
            )
    caught = [n for n in counts if n]
    print(
        f"{len(caught)} of {len(counts)} seen; a mutant that is seen fails {statistics.median(caught or [0])} tests"
    )


if __name__ == "__main__":
    main()
