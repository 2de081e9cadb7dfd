"""Findings keep to their form; `make findings` runs them."""

import ast
import re
import subprocess
from itertools import chain
from pathlib import Path

import pytest

from core.paths import ROOT

SCRIPTS = sorted((ROOT / "findings").glob("*.sh"))
ENDING = """
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
"""
ROOMS = {path.name for path in ROOT.iterdir() if path.is_dir()}


def field(script: str, name: str) -> str:
    """The text of a line of the head, with those that go on with it."""
    match = re.search(rf"^# {name}: (.+\n(?:#   .+\n)*)", script, re.MULTILINE)
    assert match, name
    return " ".join(match[1].replace("#   ", "").split())


def imported(code: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(code)))
    imports = [node for node in nodes if isinstance(node, ast.Import)]
    names = {alias.name for alias in chain.from_iterable(node.names for node in imports)}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


def test_table_names_each_script_and_no_other() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs/findings.md").read_text(), re.MULTILINE)
    assert sorted(rows) == [path.stem for path in SCRIPTS]
    assert len(rows) >= 12


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_keeps_to_the_form(path: Path) -> None:
    script = path.read_text()
    assert field(script, "Guess")
    assert field(script, "What happens")
    assert re.search(r"^# Output on .+:\n#   .+\n", script, re.MULTILINE)
    # Exact versions of packages by name, the same as its head says
    match = re.search(r'^packages="(.+)"$', script, re.MULTILINE)
    assert match
    packages = match[1].split()
    assert [name for name in packages if not re.fullmatch(r"[\w.\[\]-]+==[\w.]+", name)] == []
    assert field(script, "Versions") == ", ".join(packages).replace("==", " ")
    assert "://" not in script
    subprocess.run(["sh", "-n", str(path)], check=True)
    # It sees something, compares it, and can fail; nothing of ours takes part
    code = script.split("<<'END'\n")[1].removesuffix("END\n")
    assert {"seen", "expected"} <= {
        node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)
    }
    assert code.endswith(ENDING)
    assert not imported(code) & (ROOMS | {"proccorpus"})
