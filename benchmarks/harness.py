"""What benchmarks share: arguments, workspaces, own processes, tables in Markdown, figures in JSON, and the machine."""

import argparse
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from core.paths import ROOT, Workspace

SLACK = 0.15  # of a goal, by which single runs may miss it: they differ by so much
SHARED = (
    ROOT / ".." / "shared"
)  # real datasets and their hand-labelled truth, where they lie beside the checkout


def arguments(doc: str | None, *, check: bool = False) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring. check: with --check, for `exit_code`."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if check:
        parser.add_argument(
            "--check", action="store_true", help="exit 1 when a goal is missed by more than 15 %%"
        )
    return parser


class Figure(NamedTuple):
    """What was measured beside its goal: Figure("plan", 11.0, 10.0, "s", smaller=True)."""

    name: str
    value: float
    goal: float
    unit: str = ""
    smaller: bool = False  # is better

    def is_missed(self) -> bool:
        """By more than single runs differ?"""
        if self.smaller:
            return self.value > self.goal * (1 + SLACK)
        return self.value < self.goal * (1 - SLACK)


def exit_code(figures: Iterable[Figure], check: bool) -> int:
    """Print what missed its goal; 1 where that is to be an error."""
    missed = [figure for figure in figures if figure.is_missed()]
    for name, value, goal, unit, _ in missed:
        print(f"\nMissed: {name}: {value:.4g} {unit}, goal {goal:g}")
    return int(check and bool(missed))


def machine() -> str:
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


@contextmanager
def serving(*words: str, folder: Path = ROOT) -> Iterator[tuple[str, int]]:
    """The first line that a server of Python's prints, as it is ready, and its process, which ends with the block.

    folder: the checkout that it is of.
    """
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.terminate()
        process.wait(60)


def cpu_s(pid: int) -> float:
    """User and system time of a process so far: says more than the clock where others share the machine."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident memory of a process now, and the most so far."""
    lines = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return int(lines["VmRSS"].split()[0]) / 1024, int(lines["VmHWM"].split()[0]) / 1024


def apart(function: Callable[..., Any], *words: str) -> Any:
    """What a script's function says of some words, in a process of its own; it may print to stderr. Raises SystemExit
    where it fails."""
    spec = sys.modules[function.__module__].__spec__
    assert spec is not None
    code = "import importlib, json, sys; module, name, *words = sys.argv[1:]\n"
    code += "print(json.dumps(getattr(importlib.import_module(module), name)(*words)))"
    command = [sys.executable, "-c", code, spec.name, function.__name__, *words]
    process = subprocess.run(
        command, cwd=ROOT, env=own_code_first(), stdout=subprocess.PIPE, text=True
    )
    if process.returncode:
        sys.exit(f"{spec.name}: {function.__name__}({', '.join(words)}) failed")
    return json.loads(process.stdout.splitlines()[-1])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print it in Markdown."""
    print(table_text(head, rows))


def table_text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def write_tables(page: Path, tables: Mapping[str, str]) -> None:
    """Put tables into the page between their marks, `<!-- NAME ... -->` and `<!-- end ... -->`. Raises ValueError where
    it lacks one."""
    text = page.read_text()
    for name, body in tables.items():
        marks = re.compile(rf"(<!-- {name}\b[^>]*-->\n).*?(\n<!-- end)", re.DOTALL)
        start, *pieces = marks.split(text)
        if len(pieces) != 3:
            raise ValueError(f"{page} needs <!-- {name} --> and an end of it, once")
        text = f"{start}{pieces[0]}\n{body}{pieces[1]}{pieces[2]}"
    page.write_text(text)


def json_number(value: float | None) -> float | None:
    """To four digits; None where there is none, or it is not a number."""
    if value is None or math.isnan(value):
        return None
    return round(float(value), 4)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


@contextmanager
def trial_workspace(kept_folder: Path | None) -> Iterator[Workspace]:
    """The workspace at `kept_folder`, which stays, or one that goes afterwards."""
    if kept_folder is not None:
        yield Workspace(kept_folder.resolve())
        return
    with TemporaryDirectory(prefix="proccorpus-trial-") as folder:
        yield Workspace(Path(folder))


def build(space: Workspace, source: Path, dataset: str) -> None:
    """Bring a dataset of a workspace up to date. Raises SystemExit with what the command said where it fails."""
    command(space, "build", "--source", str(source), "--name", dataset)


def command(space: Workspace, *words: str) -> str:
    """What a command of ours printed. Raises SystemExit with all that it said where it fails."""
    process = attempted(space, *words)
    if process.returncode:
        sys.exit(f"proccorpus {' '.join(words[:2])} failed:\n{process.stdout}{process.stderr}")
    return process.stdout


def attempted(space: Workspace, *words: str) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "proccorpus", *words, "--workspace", str(space.root)]
    return subprocess.run(whole, cwd=ROOT, env=own_code_first(), capture_output=True, text=True)


def own_code_first() -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    }
