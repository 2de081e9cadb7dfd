"""Pages of the reference that are made from code: command line, configuration, tables, recipes."""

from collections.abc import Iterator
from itertools import groupby
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cli.examples import EXAMPLES
from cli.main import COMMANDS, make_app
from ingest.registry import DatasetConfig
from pipeline.config import BuildFile
from training.recipe import BUILT_IN, Recipe, recipe_fields
from warehouse.lake.schema import columns, relations

CLI_INTRO = """\
`--help` (or `-h`) behind a command prints the same, with examples. Exit codes: 0 done; 1 a failure or a finding, described in one
line; 2 wrong use or input; 130 interrupted, with all finished work kept. A closed pipe (`| head`) is no failure.

- Every command that works on a corpus takes `--workspace` (default `./workspace`, or the environment variable `PROCCORPUS_WORKSPACE`).
- Tables fit the width of the terminal; rows that have no room there are shown as records, a column a line, as with `-x`. `--format json`
  prints all rows for scripts. `NO_COLOR=1` or `TERM=dumb` turns colours off.
- Commands that delete ask first. `--yes` skips the question; scripts need it.
- `--verbose` shows where an error came from. `proccorpus --install-completion` installs completion of commands, options, values, and
  names of the workspace (datasets, releases, label runs, models, tables) in your shell. `proccorpus --version` prints the version."""

CONFIGURATION_INTRO = """\
The command line names the dataset of a build (`--source`), or a TOML file that describes the build (`--config`). An unknown key is
an error. Settings that change labels are part of the label run's identity; others, such as addresses and time limits of a server,
are not."""

ENVIRONMENT = {
    "PROCCORPUS_WORKSPACE": "folder of the corpus, if `--workspace` is not given; Dagster's code location uses it, too",
    "PROCCORPUS_CONFIG": "TOML file of the datasets that Dagster builds; default: the datasets of the corpus and of the demo",
    "PROCCORPUS_VLM": "model (name or folder) that Dagster's resource `vlm_server` serves, if its configuration names none",
    "PROCCORPUS_UI_TOKEN": "token for Dagster's UI (at least 16 characters), entered once per browser; `proccorpus ui` creates one if `--host` is not this machine",
    "PROCCORPUS_UI_HOSTS": "host names of Dagster's UI besides 127.0.0.1 and localhost, separated by commas",
    "PROCCORPUS_PROGRAMS": "TOML file with the programs that a run's configuration may name: lists `python`, `setup`, `directives`, `image`",
    "PROCCORPUS_EXECUTOR": "where Dagster runs a run's steps: `in_process` (default), `ray` or `kubernetes`",
    "PROCCORPUS_EXPLORER_URL": "address of the explorer, for links on Dagster's materialisations",
    "PROCCORPUS_EXPLORE_TOKEN": "token of `explore` if it listens on other addresses than loopback; at least 16 characters",
    "PROCCORPUS_REWARD_TOKEN": "token of `serve`, likewise",
}

TABLES_INTRO = """\
`proccorpus schema NAME` prints the same, with a value of your corpus beside each column. *Content* tables are equal for equal inputs, configuration
and seed (`proccorpus digest`). *Event* tables have times and run ids. *Views* are computed. The end of a span is exclusive: `end_frame` is the
first frame after it."""

RECIPES_INTRO = """\
Train with a recipe by `proccorpus train --recipe NAME`; NAME may also be a YAML file with the same sections. [Training](training.md)
tells how to choose one. Comments in the built-in files (`training/recipes/`) say which values are published and which are ours."""


def table(head: tuple[str, ...], rows: list[tuple]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return "" if value is None else " ".join(str(value).split()).replace("|", "\\|")


# Command line


def cli_page() -> str:
    parts = ["# Command line", CLI_INTRO]
    by_heading = groupby(COMMANDS, key=lambda command: command[0])
    groups = [f"- {heading}: " + ", ".join(f"`{name}`" for _, name, *_ in of) for heading, of in by_heading]
    parts.append("\n".join(groups))
    for name, command in _commands(typer.main.get_command(make_app()), "proccorpus"):
        parts.append(f"## {name}")
        parts.append(_text(command.help))
        rows = [
            _parameter(p)
            for p in command.params
            if p.name not in ("help", "verbose", "records") and not getattr(p, "hidden", False)
        ]
        if rows:
            parts.append(table(("option", "value", "default", "what"), rows))
        if name in EXAMPLES:
            parts.append("Such as " + ", ".join(f"`{line}`" for line in EXAMPLES[name]) + ".")
    return "\n\n".join(parts) + "\n"


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for inner, sub in command.commands.items():
            yield from _commands(sub, f"{name} {inner}")
    else:
        yield name.removeprefix("proccorpus "), command


def _parameter(p: Any) -> tuple[str, ...]:
    flags = (
        ", ".join(f"`{o}`" for o in (*p.opts, *p.secondary_opts))
        if p.param_type_name == "option"
        else f"`{p.display_name_raw}`"
    )
    kind = _kind(p.type_descriptor.annotation) + (", repeatable" if p.nargs == -1 else "")
    default = "**required**" if p.required else _default(p.default)
    return flags, kind, default, _text(p.help) + (f" Or `{p.envvar}`." if p.envvar else "")


def _default(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else ""
    if value in (None, "", (), [], {}):
        return ""
    return ", ".join(f"`{v}`" for v in value) if isinstance(value, tuple | list) else f"`{value}`"


def _text(help: str | None) -> str:
    return " ".join((help or "").split())


def _kind(annotation: Any) -> str:
    """A type in a reader's words."""
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{a}`" for a in get_args(annotation))
    inner = [a for a in get_args(annotation) if a is not type(None) and a is not ...]
    if get_origin(annotation) in (tuple, list):
        return "list of " + " or ".join(dict.fromkeys(map(_kind, inner)))
    if get_origin(annotation) is dict:
        return "mapping"
    if inner:
        return " or ".join(dict.fromkeys(map(_kind, inner)))
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "flag", "Path": "path"}
    return names.get(getattr(annotation, "__name__", ""), "text")


# Configuration


def configuration_page() -> str:
    parts = ["# Configuration", CONFIGURATION_INTRO, "## A build's TOML file", fields_table(BuildFile)]
    for name, section in sections(BuildFile):
        parts += [f"### [{name}]", *_doc(section), fields_table(section)]
    parts += ["## A dataset's YAML file", "[adding-a-dataset.md](adding-a-dataset.md) shows one from beginning to end."]
    parts.append(fields_table(DatasetConfig))
    for name, section in sections(DatasetConfig):
        parts += [f"### {name}", *_doc(section), fields_table(section)]
    parts += ["## Environment variables", table(("variable", "what"), [(f"`{k}`", v) for k, v in ENVIRONMENT.items()])]
    parts.append("Passwords and keys are never written into a file of the corpus: a configuration names the variable that holds one "
                 "(`vlm.api_key_env`). [Deployment](deployment.md) tells where Postgres and buckets get theirs.")  # fmt: skip
    return "\n\n".join(parts) + "\n"


def sections(model: type[BaseModel], outer: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        for kind in _alternatives(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield outer + name, kind
                yield from sections(kind, f"{outer}{name}.")


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The types that a field may be of, without what is annotated to each."""
    if get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for kind in get_args(annotation):
            yield from _alternatives(kind)
    else:
        yield annotation


def fields_table(model: type[BaseModel]) -> str:
    inner = {name for name, _ in sections(model)}
    rows = [
        (
            f"`{name}`",
            _kind(f.annotation) + _bounds(f),
            "**required**" if f.is_required() else _default(f.default),
            f.description,
        )
        for name, f in model.model_fields.items()
        if name not in inner
    ]
    return table(("field", "value", "default", "what"), rows)


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = [
        f"{sign} {value}"
        for key, sign in signs.items()
        for m in field.metadata
        if (value := getattr(m, key, None)) is not None
    ]
    return f" ({', '.join(found)})" if found else ""


def _doc(section: type[BaseModel]) -> list[str]:
    own = section.__doc__ if section.__doc__ != BaseModel.__doc__ else None
    return [_text(own)] if own else []


# Tables, recipes


def tables_page() -> str:
    described = columns()
    parts = ["# Tables and views", TABLES_INTRO]
    headings = {"content": "Content tables", "events": "Event tables", "view": "Views"}
    for kind, heading in headings.items():
        parts.append(f"## {heading}")
        for relation in (r for r in relations() if r["kind"] == kind):
            key = f" Key: `{relation['key']}`." if relation["key"] else ""
            rows = [(f"`{c.column}`", c.type, c.unit, c.comment) for c in described if c.relation == relation["name"]]
            parts += [
                f"### {relation['name']}",
                relation["comment"] + "." + key,
                table(("column", "type", "unit", "what"), rows),
            ]
    return "\n\n".join(parts) + "\n"


def recipes_page() -> str:
    rows = []
    for path in sorted(BUILT_IN.glob("*.yaml")):
        text = path.read_text()
        recipe = recipe_fields(path.stem)
        about = (
            " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#")).split(". ")[0].rstrip(".")
        )
        begins = recipe["model"].get("base", "random weights")
        length = recipe["train"].get("epochs")
        rows.append(
            (
                f"`{path.stem}`",
                about,
                recipe.get("kind", "sft"),
                begins,
                f"{length} epochs" if length else f"{recipe['train']['steps']} steps",
            )
        )
    parts = [
        "# Recipes",
        RECIPES_INTRO,
        table(("recipe", "what", "kind", "begins with", "length"), rows),
        "## Fields",
        fields_table(Recipe),
    ]
    for name, section in sections(Recipe):
        parts += [f"### {name}", *_doc(section), fields_table(section)]
    return "\n\n".join(parts) + "\n"


PAGES = {
    "cli.md": cli_page,
    "configuration.md": configuration_page,
    "tables.md": tables_page,
    "recipes.md": recipes_page,
}
