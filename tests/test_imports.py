"""Who may import whom: the house of docs/architecture.md, enforced on the syntax tree of every module."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A unit's modules may import each other and what is named here; of two units that hold a module, the longer name counts
EVERYTHING = (
    "ingest",
    "annotate",
    "warehouse",
    "warehouse.exports",
    "warehouse.explorer",
    "training",
    "eval",
    "eval.benchmarks",
    "eval.runners",
    "eval.reward",
    "eval.server",
    "eval.rl",
    "assets",
)
MAY_IMPORT = {
    "ingest": ("warehouse.tables",),
    "annotate": ("ingest", "warehouse.tables"),
    "warehouse": ("warehouse.tables", "ingest.video", "annotate.segments"),
    "warehouse.tables": (),
    "warehouse.exports": ("warehouse", "warehouse.tables", "ingest"),
    "warehouse.explorer": ("warehouse", "warehouse.tables", "annotate", "ingest"),
    "training": ("warehouse", "warehouse.tables", "annotate.client", "annotate.replies", "annotate.progresslm_wording"),
    "eval": (
        "warehouse",
        "warehouse.tables",
        "training.transform",
        "training.model",
        "annotate.client",
        "annotate.replies",
        "annotate.progresslm_wording",
        "ingest.video",
        "eval.benchmarks",
        "eval.runners",
        "eval.server.protocol",
    ),
    "eval.benchmarks": ("eval", "warehouse", "warehouse.tables", "annotate", "ingest"),
    "eval.runners": (
        "eval",
        "eval.benchmarks",
        "warehouse",
        "warehouse.tables",
        "training.transform",
        "training.model",
        "annotate",
    ),
    "eval.reward": (
        "eval",
        "eval.runners",
        "eval.benchmarks",
        "warehouse",
        "warehouse.tables",
        "training.transform",
        "training.model",
        "annotate",
        "ingest.video",
    ),
    "eval.server": ("eval.reward", "eval.runners", "ingest.video"),
    "eval.rl": ("eval", "eval.reward", "eval.server"),
    "assets": (*EVERYTHING, "warehouse.tables"),
    "assets.commands": (*EVERYTHING, "warehouse.tables"),
    "proccorpus": (*EVERYTHING, "warehouse.tables", "assets.commands"),
}
ROOMS = {name.split(".")[0] for name in MAY_IMPORT}


def modules() -> dict[str, Path]:
    files = [ROOT / "proccorpus.py"]
    for room in sorted(ROOMS - {"proccorpus"}):
        files += sorted((ROOT / room).rglob("*.py"))
    names = {}
    for f in files:
        parts = f.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = f
    return names


MODULES = modules()


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def unit(module: str) -> str | None:
    """The unit that holds a module; None for what is not ours."""
    return max((u for u in MAY_IMPORT if within(module, u)), key=len, default=None)


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
                yield (name if name in MODULES or base in ROOMS else base), node.lineno, late
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
    here = unit(module)
    assert here is not None
    found = []
    for target, line, late in imports(ast.parse(source), module):
        where = f"{module.replace('.', '/')}.py:{line}"
        there = unit(target)
        if target.split(".")[0].startswith("dagster") and here != "assets":
            found.append(f"{where} imports {target}: only assets may import Dagster")
        elif there is None or there == here:
            continue
        elif not any(within(target, allowed) and unit(allowed) == there for allowed in MAY_IMPORT[here]):
            found.append(
                f"{where} imports {target}: {here} may import {', '.join(MAY_IMPORT[here]) or 'nothing of ours'}"
            )
        elif there == "assets" and not late:
            found.append(f"{where} imports {target} at import time: assets only inside a function")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_plan_of_the_house(module: str):
    found = violations(MODULES[module].read_text(), module)
    assert not found, "\n".join(found)


def test_every_room_is_looked_at():
    assert {m.split(".")[0] for m in MODULES} == ROOMS
    assert {"warehouse.tables", "annotate.frames", "assets.definitions", "ingest.lerobot"} <= set(MODULES)


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("warehouse.tables", "import warehouse.lake", "warehouse.tables may import nothing of ours"),
        ("ingest.files", "from warehouse.lake import Lake", "ingest may import warehouse.tables"),
        ("ingest.files", "from warehouse import lake", "imports warehouse.lake"),
        ("ingest.files", "import annotate.motion", "imports annotate.motion"),
        ("annotate.frames", "def f():\n    from warehouse.lake import Lake", "annotate/frames.py:2 imports"),
        ("annotate.frames", "import importlib\nimportlib.import_module('training.train')", "imports training.train"),
        ("warehouse.lake", "from ingest.files import Source", "warehouse may import warehouse.tables, ingest.video"),
        ("warehouse.lake", "from warehouse.explorer import app", "imports warehouse.explorer"),
        ("warehouse.exports.rabc", "from annotate.progress import progress", "imports annotate.progress"),
        ("warehouse.explorer.app", "from training.model import load_model", "imports training.model"),
        ("training.train", "from annotate.progress import progress", "training may import warehouse"),
        ("training.train", "import eval.metrics", "imports eval.metrics"),
        ("eval.evaluate", "from training.train import train", "imports training.train"),
        ("eval.evaluate", "from ingest.source import read_episode", "imports ingest.source"),
        ("eval.evaluate", "import training", "imports training:"),
        ("eval.evaluate", "from warehouse.exports import rabc", "imports warehouse.exports"),
        ("eval.evaluate", "if TYPE_CHECKING:\n    from assets.build import run_build", "imports assets.build"),
        ("eval.client", "from eval.server.app import make_app", "imports eval.server.app"),
        ("eval.server.app", "from eval.rl.local import LocalSession", "imports eval.rl.local"),
        ("assets.build", "import proccorpus", "imports proccorpus"),
        ("annotate.frames", "import dagster as dg", "only assets may import Dagster"),
        ("proccorpus", "def f():\n    from dagster_ray import x", "only assets may import Dagster"),
        ("proccorpus", "from assets.build import run_build", "assets only inside a function"),
        ("proccorpus", "class A:\n    import assets.build", "assets only inside a function"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str, message: str):
    (found,) = violations(source, module)
    assert message in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "annotate.frames",
            "from annotate import visual_change\nfrom ingest.video import Frame\nimport warehouse.tables",
        ),
        ("annotate.frames", "from . import visual_change\nfrom .segments import STEP"),
        (
            "warehouse.lake",
            "from ingest.video import decode\nfrom warehouse import tables\nfrom warehouse.plan import x",
        ),
        ("warehouse.explorer.app", "from annotate.progress import progress\nfrom warehouse.sql import query"),
        ("warehouse.exports.rabc", "from ingest.source import read_episode\nfrom warehouse.lake import Lake"),
        ("training.train", "from annotate.client import Client\nfrom warehouse.shards import read_samples"),
        ("eval.evaluate", "from training.model import load\nimport training.transform\nfrom annotate.client import c"),
        ("assets.build", "import dagster\nfrom eval.metrics import voc\nimport warehouse.explorer.app"),
        ("proccorpus", "def f():\n    from assets.build import run_build"),
        ("proccorpus", "if TYPE_CHECKING:\n    from assets.build import run_build\nfrom warehouse.lake import Lake"),
    ],
)
def test_an_allowed_import_is_not(module: str, source: str):
    assert violations(source, module) == []


def test_the_command_line_starts_light():
    heavy = ("dagster", "torch", "duckdb", "numpy", "matplotlib", "pyarrow", "av", "cv2", "webdataset", "transformers")
    code = f"import sys, proccorpus; print(sorted(set(sys.modules) & set({heavy!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
