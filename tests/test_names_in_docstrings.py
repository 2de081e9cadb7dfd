"""Names of our modules, classes and functions in docstrings and comments lead to what is there."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

from core.paths import ROOT
from tests.kits.code import FILES, ROOMS

DOTTED = re.compile(rf"(?<![\w./`-])`?((?:{'|'.join(ROOMS)})(?:\.\w+)+)")
IN_ROOM = re.compile(rf"(?<![\w./-])((?:{'|'.join(ROOMS)})/[\w/]+\.(?:py|yaml|html|js|css|sql))\b")
BESIDE = re.compile(
    r"(?<![\w./])([a-z_]+)\.([A-Z]\w+)"
)  # a module beside this one, and a class or constant of it


def texts(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of each docstring and comment."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            if docstring:
                yield node.body[0].lineno, docstring


@cache
def names_in(path: Path) -> dict[str, ast.AST | None]:
    """What a module defines or imports at its top level, by name."""
    return members(ast.parse(path.read_text()).body)


def members(body: list[ast.stmt]) -> dict[str, ast.AST | None]:
    names: dict[str, ast.AST | None] = {}
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names[statement.name] = statement
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names[node.id] = None
            elif isinstance(node, ast.alias):
                names[node.asname or node.name.split(".")[0]] = None
            elif isinstance(node, ast.TypeAlias) and isinstance(node.name, ast.Name):
                names[node.name.id] = None
    return names


def module_file(parts: list[str]) -> Path | None:
    """The file of a module, or of a package, with this name."""
    for path in (ROOT.joinpath(*parts).with_suffix(".py"), ROOT.joinpath(*parts, "__init__.py")):
        if path.is_file():
            return path
    return None


def is_there(dotted: str) -> bool:
    """Is it a module, or something that a module, or a class in it, has?"""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        path = module_file(parts[:count])
        if path is not None:
            break
    else:
        return ROOT.joinpath(*parts).is_dir()
    scope = names_in(path)
    for name in parts[count:]:
        if name not in scope:
            return False
        node = scope[name]
        if not isinstance(node, ast.ClassDef):
            return True  # what a value has is not looked at
        scope = members(node.body)
    return True


def stale_names(path: Path, source: str) -> list[str]:
    stale = []
    siblings = {sibling.stem: sibling for sibling in path.parent.glob("*.py")}
    for line, text in texts(source):
        location = f"{path.relative_to(ROOT)}:{line}"
        stale += [f"{location}: {name}" for name in DOTTED.findall(text) if not is_there(name)]
        stale += [
            f"{location}: {name}" for name in IN_ROOM.findall(text) if not (ROOT / name).is_file()
        ]
        for module, name in BESIDE.findall(text):
            if module in siblings and name not in names_in(siblings[module]):
                stale.append(f"{location}: {module}.{name}")
    return stale


def test_names_lead_to_what_is_there() -> None:
    assert list(chain.from_iterable(stale_names(path, path.read_text()) for path in FILES)) == []


def test_places_in_the_architecture_page_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    places = re.findall(r"((?:`\w+`(?: and |, )?)+) in `(\w+/[\w/]+\.py)`", page)
    assert len(places) > 15
    wrong = []
    for names, path in places:
        assert (ROOT / path).is_file(), path
        defined = {
            node.name
            for node in ast.walk(ast.parse((ROOT / path).read_text()))
            if hasattr(node, "name")
        }
        defined |= set(names_in(ROOT / path))
        wrong += [
            f"{name} in {path}"
            for name in re.findall(r"\w+", names.replace(" and ", " "))
            if name not in defined
        ]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "is_stale"),
    [
        ("core.files.write_file writes it", False),
        ("core.files.write_nothing writes it", True),
        ("warehouse.lake.lake.Lake.publish", False),
        ("warehouse.lake.lake.Lake.unpublish", True),
        ("core.no_such_module has it", True),
        ("look into core/files.py", False),
        ("look into core/no_such_file.py", True),
        ("as files.TEMP_NAME_NOBODY_HAS says", True),
    ],
)
def test_a_stale_name_is_seen(text: str, is_stale: bool) -> None:
    path = ROOT / "core" / "names.py"
    assert bool(stale_names(path, f"# {text}\n")) is is_stale
    assert bool(stale_names(path, f'"""{text}"""\n')) is is_stale
