"""Who may import whom: the rooms of docs/architecture.md, enforced on the syntax tree of every module."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

from core.paths import ROOT
from tests.kits.patience import PATIENCE_S

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
# Folders that stand lower than the rest of their room
LOWER = {"warehouse.lake": ("core", "ingest")}
BY_NAME = ("import_module", "__import__", "find_spec")
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


@cache
def imports(source: str) -> list[tuple[str, int]]:
    """(what, line) of each import, also of one inside a function or for the type checker only."""
    return list(imports_of(ast.parse(source)))


def imports_of(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            for name in (f"{base}.{alias.name}" for alias in node.names):
                yield (name if name in MODULES or base in BELOW else base), node.lineno
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            yield from [(str(node.args[0].value), node.lineno)] if called in BY_NAME else []


def violations(source: str, module: str) -> list[str]:
    own_room, *folders = module.split(".")
    below = LOWER.get(".".join([own_room, *folders[:1]]), BELOW[own_room])
    problems = []
    for target, line in imports(source):
        location = f"{module.replace('.', '/')}.py:{line}"
        target_room = target.split(".")[0]
        if target_room.startswith("dagster") and own_room != DAGSTER_ROOM:
            problems.append(f"{location} imports {target}: only {DAGSTER_ROOM} may import Dagster")
        elif target_room in BELOW and target_room != own_room and target_room not in below:
            allowed = ", ".join(below) or "nothing of ours"
            problems.append(f"{location} imports {target}: {own_room} may import {allowed}")
    return problems


def test_imports_follow_the_layering_rules():
    problems = list(
        chain.from_iterable(
            violations(path.read_text(), module) for module, path in MODULES.items()
        )
    )
    assert not problems, "\n".join(problems)


def test_no_module_imports_itself_by_way_of_others():
    graph = {module: {t for t, _ in imports(path.read_text()) if t in MODULES} - {module}
             for module, path in MODULES.items()}  # fmt: skip
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_every_room_is_looked_at():
    assert {m.split(".")[0] for m in MODULES} == set(BELOW)
    assert {
        "core.tables",
        "annotate.frames",
        "assets.definitions",
        "ingest.formats.lerobot",
    } <= set(MODULES)


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("core.tables", "import warehouse.lake", "core may import nothing of ours"),
        ("ingest.source", "from warehouse import lake", "imports warehouse.lake"),
        ("warehouse.lake.stored", "from annotate.progress import MOST", "may import core, ingest"),
        ("warehouse.exports.selection", "from annotate.progress import MOST", ""),
        (
            "annotate.frames",
            "def f():\n    from warehouse.lake import Lake",
            "annotate/frames.py:2 imports",
        ),
        (
            "annotate.frames",
            "import importlib\nimportlib.import_module('training.train')",
            "imports training.train",
        ),
        (
            "eval.report",
            "if TYPE_CHECKING:\n    from pipeline.build import run_build",
            "imports pipeline.build",
        ),
        ("annotate.frames", "import dagster as dg", "only assets may import Dagster"),
        (
            "annotate.frames",
            "from annotate import visual_change\nfrom ingest.media.video import Frame",
            "",
        ),
        ("assets.definitions", "import dagster\nfrom pipeline.build import run_build", ""),
    ],
)
def test_a_forbidden_import_is_found_and_no_other(module, source, message):
    problems_found = violations(source, module)
    assert len(problems_found) == bool(message)
    assert message in "".join(problems_found)


# What imports of a process do not bring with them. The processes of one line follow one another in one process, each
# with what those before it import
LIGHT = (
    {
        "proccorpus": "dagster torch duckdb numpy matplotlib pyarrow av cv2 webdataset transformers",
        # Forked for a query, as long as it has one thread
        "cli.sql": "duckdb numpy pyarrow",
        "training.recipe": "torch transformers av cv2 pyarrow numpy",
    },
    {
        # What nothing is read, decoded or measured by; cli.building asks for the rest where there is something to build
        "cli.status": "av cv2 PIL scipy yaml fsspec annotate.frames annotate.samples ingest.source",
        "cli.building": "av cv2 scipy yaml fsspec annotate.frames annotate.samples training.recipe",
        # The commands that are given again and again
        "cli.inspecting": "dagster torch transformers pandas matplotlib scipy.signal scipy.optimize scipy.stats",
        # What stores the rewards of episodes
        "pipeline.episode_rewards": "dagster torch transformers pandas matplotlib scipy.stats",
    },
    {
        # What scores a video with a laptop model
        "cli.rewarding, pipeline.models, pipeline.rewards, eval.reward.laptop, annotate.embeddings.networks":
            "dagster torchvision transformers pandas matplotlib scipy duckdb torch._dynamo sympy",
    },
)  # fmt: skip


@pytest.mark.parametrize("used", LIGHT)
def test_what_starts_often_starts_light(used):
    steps = [
        f"import {modules}; print(sorted(set(sys.modules) & set({heavy.split()!r})))"
        for modules, heavy in used.items()
    ]
    code = "\n".join(["import sys", *steps])
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == ["[]"] * len(used)
