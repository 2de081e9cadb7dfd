"""What benchmarks share: figures beside goals, workspaces, own processes, tables in Markdown, the machine."""

import argparse
import json
import math
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, NoReturn

from core.paths import ROOT, Workspace

SLACK = 0.15  # of a goal, by which single runs may miss it: they differ by so much
SHARED = (
    ROOT / ".." / "shared"
)  # real datasets and their hand-labelled truth, where they lie beside the checkout


def options(doc: str | None, **defaults: Any) -> argparse.Namespace:
    """What the command line says: an option for each default, of its type; `doc` is the help.

    False is a flag, a tuple takes several words, None is a path that may lack.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=raw)
    for name, default in defaults.items():
        word = f"--{name.replace('_', '-')}"
        if default is False:
            parser.add_argument(word, action="store_true")
        elif default is None:
            parser.add_argument(word, type=Path)
        elif isinstance(default, tuple):
            parser.add_argument(word, nargs="*", default=default)
        else:
            parser.add_argument(word, type=type(default), default=default)
    return parser.parse_args()


class Figure(NamedTuple):
    """What was measured, and its goal: Figure("plan", 11.0, 10.0, "s", smaller=True)."""

    name: str
    value: float
    goal: float | None = None
    unit: str = ""
    smaller: bool = False  # is better
    note: str = ""  # what else was seen, in words

    def is_missed(self) -> bool:
        """By more than single runs differ?"""
        if self.goal is None:
            return False
        if self.smaller:
            return self.value > self.goal * (1 + SLACK)
        return self.value < self.goal * (1 - SLACK)


ALWAYS = "--check exits 1 where a goal is missed by more than 15 %; --out FILE: as JSON, too."
Measured = Callable[[argparse.Namespace], Iterable[Figure]]


def measure(doc: str | None, measured: Measured, **defaults: Any) -> NoReturn:
    """A script of figures: prints them as one table and ends. `defaults`: see `options`."""
    args = options(f"{doc}\n{ALWAYS}", check=False, out=None, **defaults)
    figures = []
    for figure in measured(args):
        figures.append(figure)
        print(f"{figure.name}: {figure.value:.4g} {figure.unit}", file=sys.stderr, flush=True)
    if args.out:
        write_json(args.out, {figure.name: figure._asdict() for figure in figures})
    print(f"{machine()}\n")
    table(("", "measured", "goal", "", "note"), list(map(_cells, figures)))
    sys.exit(int(args.check and any(figure.is_missed() for figure in figures)))


def _cells(figure: Figure) -> list[str]:
    value = f"{figure.value:.4g} {figure.unit}".strip()
    missed = "missed" * figure.is_missed()
    return [figure.name, value, str(figure.goal or ""), missed, figure.note]


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


def own_cpu_s() -> float:
    """User and system time so far of this process and of its ended children."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


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


def in_turns[T](
    ways: dict[str, Callable[[], T]], runs: int
) -> tuple[dict[str, list[float]], dict[str, T]]:
    """Seconds of each way in each round, in turns, and its last result."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results = {}
    for _ in range(runs):
        for name, way in ways.items():
            start = time.perf_counter()
            results[name] = way()
            seconds[name].append(time.perf_counter() - start)
    return seconds, results


def ratio(seconds: dict[str, list[float]], base: str, name: str) -> float:
    """How many times as fast as `base` a way is: the median of rounds."""
    return statistics.median(b / s for b, s in zip(seconds[base], seconds[name], strict=True))


def expect(value: object, expected: object, subject: str) -> None:
    """Raises SystemExit where it is not so: figures of it are worth nothing."""
    if value != expected:
        sys.exit(f"{subject}: {value} instead of {expected}")


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
