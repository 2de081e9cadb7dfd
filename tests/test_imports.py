"""Who may import whom: the rooms of docs/architecture.md, enforced on the syntax tree of every module."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.paths import ROOT

DATA = ("core", "ingest", "annotate", "warehouse")
MODELS = (*DATA, "training", "eval")
# The rooms from the ground up; each may import itself and what is named here: rooms that stand below it
BELOW: dict[str, tuple[str, ...]] = {
    "core": (),
    "ingest": ("core",),
    "annotate": ("core", "ingest"),
    "warehouse": ("core", "ingest", "annotate"),
    "explorer": DATA,
    "training": DATA,
    "eval": (*DATA, "training"),
    "pipeline": MODELS,
    "assets": (*MODELS, "pipeline"),
    "cli": (*MODELS, "pipeline", "explorer", "assets"),
    "proccorpus": ("core", "pipeline", "cli"),
}
DAGSTER_ROOM = "assets"  # the one room that may import Dagster


def modules() -> dict[str, Path]:
    files = [ROOT / "proccorpus.py"]
    for room in sorted(set(BELOW) - {"proccorpus"}):
        files += sorted((ROOT / room).rglob("*.py"))
    names = {}
    for f in files:
        parts = f.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = f
    return names


MODULES = modules()


def imports(tree: ast.Module, module: str) -> Iterator[tuple[str, int, bool]]:
    """(what, line, late) of each import; late: inside a function, or for the type checker only."""

    def walk(node: ast.AST, late: bool) -> Iterator[tuple[str, int, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module if MODULES.get(module, Path()).name == "__init__.py" else module.rpartition(".")[0]
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield (name if name in MODULES or base in BELOW else base), node.lineno, late
        elif isinstance(node, ast.Call):
            function = node.func
            called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            first = node.args[0] if node.args else None
            if called in ("import_module", "__import__", "find_spec") and isinstance(first, ast.Constant):
                yield str(first.value), node.lineno, late
        inside = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and child in node.body
            yield from walk(child, inside or typing_only)

    yield from walk(tree, False)


def violations(source: str, module: str) -> list[str]:
    here = module.split(".")[0]
    problems = []
    for target, line, _ in imports(ast.parse(source), module):
        where = f"{module.replace('.', '/')}.py:{line}"
        there = target.split(".")[0]
        if there.startswith("dagster") and here != DAGSTER_ROOM:
            problems.append(f"{where} imports {target}: only {DAGSTER_ROOM} may import Dagster")
        elif there in BELOW and there != here and there not in BELOW[here]:
            allowed = ", ".join(BELOW[here]) or "nothing of ours"
            problems.append(f"{where} imports {target}: {here} may import {allowed}")
    return problems


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import one another in a circle: what is left once those that import nothing left are taken away."""
    left = {module: set(targets) for module, targets in graph.items()}
    while ends := [m for m, targets in left.items() if not targets & left.keys()]:
        for m in ends:
            del left[m]
    # and of those, the ones that nothing left imports are only on the way to a circle
    while starts := [m for m in left if not any(m in targets for n, targets in left.items() if n != m)]:
        for m in starts:
            del left[m]
    return [sorted(left)] if left else []


def test_imports_follow_the_layering_rules():
    problems = [problem for module, path in MODULES.items() for problem in violations(path.read_text(), module)]
    assert not problems, "\n".join(problems)


def test_no_module_imports_itself_by_way_of_others():
    graph = {
        module: {t for t, _, _ in imports(ast.parse(path.read_text()), module) if t in MODULES and t != module}
        for module, path in MODULES.items()
    }
    assert circles(graph) == []


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}, "e": set()}) == [["b", "c"]]
    assert circles({"a": {"b"}, "b": set()}) == []


def test_every_room_is_looked_at():
    assert {m.split(".")[0] for m in MODULES} == set(BELOW)
    assert {"core.tables", "annotate.frames", "assets.definitions", "ingest.formats.lerobot"} <= set(MODULES)


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("core.tables", "import warehouse.lake", "core may import nothing of ours"),
        ("ingest.source", "from warehouse import lake", "imports warehouse.lake"),
        ("annotate.frames", "def f():\n    from warehouse.lake import Lake", "annotate/frames.py:2 imports"),
        ("annotate.frames", "import importlib\nimportlib.import_module('training.train')", "imports training.train"),
        ("eval.report", "if TYPE_CHECKING:\n    from pipeline.build import run_build", "imports pipeline.build"),
        ("annotate.frames", "import dagster as dg", "only assets may import Dagster"),
        ("annotate.frames", "from . import visual_change\nfrom ingest.media.video import Frame", ""),
        ("assets.definitions", "import dagster\nfrom pipeline.build import run_build", ""),
    ],
)
def test_a_forbidden_import_is_found_and_no_other(module: str, source: str, message: str):
    found = violations(source, module)
    assert len(found) == bool(message)
    assert message in "".join(found)


LIGHT = {
    "proccorpus": "dagster torch duckdb numpy matplotlib pyarrow av cv2 webdataset transformers",
    "training.recipe": "torch transformers av cv2 pyarrow numpy",
    # What scores a video with a laptop model
    "cli.rewarding, pipeline.models, pipeline.rewards, eval.reward.laptop, annotate.embeddings.networks":
        "dagster torchvision transformers pandas matplotlib scipy duckdb torch._dynamo sympy",
}  # fmt: skip


@pytest.mark.parametrize("used", LIGHT)
def test_what_starts_often_starts_light(used: str):
    code = f"import sys, {used}; print(sorted(set(sys.modules) & set({LIGHT[used].split()!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
