"""Pages of the reference that are made from code: command line, configuration, tables, recipes."""

import inspect
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import proccorpus as pc
from cli.commands import COMMANDS, make_app
from core.annotators import PRECEDENCE, annotator_named
from core.yaml_text import parse_yaml
from ingest.registry import DatasetConfig
from pipeline.config import BuildFile
from training.plan import GB, Machine, Plan, plan, plan_on
from training.recipe import BUILT_IN, Recipe, load_recipe
from warehouse.lake.schema import columns, relations

CLI_INTRO = """\
`--help` after a command prints the same, with examples. Exit codes: 0 done; 1 a failure or a finding; 2 wrong use or input; 3 partly
built; 130 interrupted, with all finished work kept. `--workspace` is `./workspace` or `PROCCORPUS_WORKSPACE`. Rows that are too wide are
shown as records, as with `--format records`; `--format json` prints all rows for scripts. Former names of commands say the new ones. Commands that delete ask first; scripts say `--yes`.
`-q` leaves results and errors alone, `--verbose` shows where an error came from, `--install-completion` completes names in your shell."""

CONFIGURATION_INTRO = """\
The command line names the dataset of a build (`--source`), or a TOML file that describes the build (`--config`). An unknown key is
an error. Settings that change labels are part of the label run's identity; others, such as addresses and time limits of a server,
are not."""

USUAL = ("--workspace", "--format")  # nearly every command has these
MANY = 3  # commands with an option, tables with a column, that is described once for all

ENVIRONMENT = {
    "PROCCORPUS_WORKSPACE": "folder of the corpus, if `--workspace` is not given; also Dagster's",
    "PROCCORPUS_CONFIG": "TOML file of the datasets that Dagster builds; default: the datasets of the corpus and of the demo",
    "PROCCORPUS_VLM": "model that Dagster's resource `vlm_server` serves, if its configuration names none",
    "PROCCORPUS_UI_TOKEN": "token for Dagster's UI (16 characters or more); default of `proccorpus ui`: the workspace's `.token-ui`",
    "PROCCORPUS_UI_HOSTS": "host names of Dagster's UI besides 127.0.0.1 and localhost, with commas",
    "PROCCORPUS_PROGRAMS": "TOML file of programs that a run's configuration may name: lists `python`, `setup`, `directives`, `image`",
    "PROCCORPUS_EXECUTOR": "where Dagster runs a run's steps: `in_process` (default), `ray` or `kubernetes`",
    "PROCCORPUS_LOG": "`json`: lines of logs are objects",
    "PROCCORPUS_NIGHTLY": "`on`: Dagster's schedule `nightly` begins switched on",
    "PROCCORPUS_NOTES": "shared folder of notes on what took too long to read",
    "PROCCORPUS_EXPLORER_URL": "the explorer's address, for links on Dagster's materialisations",
    "PROCCORPUS_EXPLORE_TOKEN": "token of `explore`, likewise (`.token-explore`)",
    "PROCCORPUS_REWARD_TOKEN": "token of `serve`, likewise (`.token-serve`), and of its clients in Python",
}

TABLES_INTRO = """\
`proccorpus show schema NAME` prints the same, with types and values. *Content* tables are equal for equal inputs, configuration
and seed (`proccorpus show digest`). *Event* tables have times and run ids. *Views* are computed. `end_frame` is
exclusive."""

RECIPES_INTRO = """\
The fields of a recipe's YAML file. [Training](training.md#recipes) lists the built-in ones; comments in their files
(`training/recipes/`) say which values are published."""


PARTIAL_INTRO = """\
One episode fails; the others get what they would get without it, whoever labels them: labels, samples, shards, releases,
exports, models. Dagster's checks pass. Where fewer than half (`min_labelled`) of a chunk of more than three are left,
nothing more is made of it: then it is the source or the model that fails.
`proccorpus show quarantine` names each episode that is left out."""

PARTIAL_END = """\
*Labels*: the episode stays one of the corpus, without label and samples. `export weights`, `rabc` and `robometer` hold
it, since they go with a dataset: mean weight, no progress, no grade. Where a label of transfer is rejected, motion's
takes its place; a person's is taken back, not rejected. `import` refuses annotations of an unusable
episode, and names it; the others come in."""


class PartialFailure(NamedTuple):
    """A row of the page of partial failures. `code`: of the finding that names the episode; `left_out`: of what;
    `next_build`: what a build does that changes nothing else."""

    code: str
    left_out: str
    exit_code: int
    next_build: str
    remedy: str

    @property
    def asks(self) -> bool:
        return self.next_build == ASKS

    @property
    def is_usable(self) -> bool:
        return self.left_out != "everything"

    @property
    def is_labelled(self) -> bool:
        return self.left_out == "nothing"


ASKS = "asks again"
# tests/pipeline/test_partial_failures.py makes each of them happen
PARTIAL_FAILURES = {
    "bad reply": PartialFailure("bad_reply", "labels", 3, ASKS, "build again; another model"),
    "cut reply": PartialFailure("cut", "labels", 3, ASKS, "build again; more tokens"),
    "refused reply": PartialFailure("refusal", "labels", 3, ASKS, "see the task's text"),
    "filtered reply": PartialFailure("filtered", "labels", 3, ASKS, "see the server's filter"),
    "server gone": PartialFailure("refused", "labels", 3, ASKS, "start the server, build again"),
    "budget spent": PartialFailure("refused", "labels", 3, ASKS, "raise `max_calls` or `max_cost_usd`"),
    "label rejected": PartialFailure("label_rejected", "labels", 0, "leaves it so", "correct the label, or take it back"),
    "infinity in rows": PartialFailure("nan_state", "everything", 0, "reads a mended file", "mend the rows"),
    "video cut": PartialFailure("undecodable_video", "everything", 0, "reads a mended file", "fetch it again"),
    "video missing": PartialFailure("no_video", "everything", 0, "reads a new file", "fetch it"),
    "video short": PartialFailure("length_differs", "everything", 0, "reads a mended file", "fetch it again"),
    "picture unreadable": PartialFailure("undecodable_video", "everything", 0, "reads a mended file", "fetch it again"),
    "one frame": PartialFailure("too_short", "everything", 0, "leaves it so", "nothing"),
    "text missing": PartialFailure("no_task", "nothing", 0, "takes a text", "`--task TEXT`"),
    "source changed": PartialFailure("changed_during_build", "everything", 3, "lists it anew", "build again"),
}  # fmt: skip


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def described(name: str, facts: Iterable[str], what: str | None) -> str:
    """An option, field or column as an item of a list."""
    known = ", ".join(f for f in facts if f)
    return f"- `{name}`" + (f" ({known})" if known else "") + (f": {_text(what)}" if what else "")


def _cell(value: object) -> str:
    return "" if value is None else " ".join(str(value).split()).replace("|", "\\|")


# Partial failures


def partial_page() -> str:
    head = ("what fails", "code", "left out of", "exit", "the next build", "what to do")
    rows = [
        (what, f"`{row.code}`", row.left_out, row.exit_code, row.next_build, row.remedy)
        for what, row in PARTIAL_FAILURES.items()
    ]
    parts = ("# When one episode fails", PARTIAL_INTRO, table(head, rows), PARTIAL_END)
    return "\n\n".join(parts) + "\n"


# Command line


def cli_page() -> str:
    commands = dict(_commands(typer.main.get_command(make_app()), "proccorpus"))
    uses = Counter(_parameter(p) for command in commands.values() for p in _parameters(command))
    shared: dict[str, str] = {}  # the usual description of an option that many commands have
    for said, n in uses.most_common():
        if n >= MANY:
            shared.setdefault(_name(said), said)
    parts = ["# Command line", CLI_INTRO, "## Options of many commands", "\n".join(shared.values())]
    by_heading = groupby(COMMANDS, key=lambda command: command[0])
    parts.append("## Commands\n\n" + "\n".join(
        f"- {heading}: " + ", ".join(f"`{name}`" for _, name, *_ in of) for heading, of in by_heading
    ))  # fmt: skip
    for name, command in commands.items():
        said = [_parameter(p) for p in _parameters(command)]
        own = [line for line in said if line not in shared.values()]
        also = [
            f"`{_name(line)}`"
            for line in said
            if line in shared.values() and _name(line) not in USUAL
        ]
        parts += [f"### {name}", _text(command.help)]
        parts += ["\n".join(own)] if own else []
        parts += ["Also " + ", ".join(also) + "."] if also else []
    return "\n\n".join(parts) + "\n"


def _name(said: str) -> str:
    return said.split("`")[1].partition("=")[0]


def _parameters(command: Any) -> list[Any]:
    hidden = ("help", "verbose", "quiet")
    return [p for p in command.params if p.name not in hidden and not getattr(p, "hidden", False)]


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for inner, sub in command.commands.items():
            yield from _commands(sub, f"{name} {inner}")
    else:
        yield name.removeprefix("proccorpus "), command


def _parameter(p: Any) -> str:
    is_option = p.param_type_name == "option"
    name = "`, `".join((*p.opts, *p.secondary_opts)) if is_option else p.display_name_raw
    kind = _kind(p.type_descriptor.annotation)
    default = "" if p.required else _default(p.default)
    what = _text(p.help) + (f" Or `{p.envvar}`." if p.envvar else "")
    return described(
        name + default, (kind if "`" in kind else "", "required" if p.required else ""), what
    )


def _default(value: object) -> str:
    """As a part of the name, `workers=2`; empty where there is none."""
    if value in (None, False, "", (), [], {}):
        return ""
    return "=" + (",".join(map(str, value)) if isinstance(value, tuple | list) else str(value))


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
    names = {
        "str": "text",
        "int": "whole number",
        "float": "number",
        "bool": "flag",
        "Path": "path",
    }
    return names.get(getattr(annotation, "__name__", ""), "text")


# Configuration


def configuration_page() -> str:
    parts = [
        "# Configuration",
        CONFIGURATION_INTRO,
        "## A build's TOML file",
        fields_list(BuildFile),
    ]
    parts += ["### Annotators", "Whose label counts first stands first.", annotator_list()]
    for name, section in sections(BuildFile):
        parts += [f"### [{name}]", *_doc(section), fields_list(section)]
    parts += [
        "## A dataset's YAML file",
        "[adding-a-dataset.md](data.md) shows one from beginning to end.",
    ]
    parts.append(fields_list(DatasetConfig))
    for name, section in sections(DatasetConfig):
        parts += [f"### {name}", *_doc(section), fields_list(section)]
    parts += [
        "## Environment variables",
        "\n".join(described(k, (), v) for k, v in ENVIRONMENT.items()),
    ]
    parts.append("Passwords and keys are never written into a file of the corpus: a configuration names the variable that holds one "
                 "(`vlm.api_key_env`). [Deployment](operate.md) tells where Postgres and buckets get theirs.")  # fmt: skip
    return "\n\n".join(parts) + "\n"


def annotator_list() -> str:
    """The annotators, the one whose label counts first at the top."""
    lines = []
    for name in PRECEDENCE:
        annotator = annotator_named(name)
        settings = (
            f"settings: [{annotator.settings}](#{annotator.settings})" if annotator.settings else ""
        )
        lines.append(
            described(name, (settings,) if settings else (), f"labels from {annotator.needs}")
        )
    return "\n".join(lines)


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


def fields_list(model: type[BaseModel]) -> str:
    inner = {name for name, _ in sections(model)}
    lines = []
    for name, f in model.model_fields.items():
        if name in inner:
            continue
        default = "" if f.is_required() else _default(f.default)
        kind = _kind(f.annotation)
        is_told = kind in ("text", "number", "whole number") and (default or f.description)
        facts = (
            "" if is_told or kind == "flag" else kind,
            _bounds(f),
            "required" if f.is_required() else "",
        )
        lines.append(described(name + default, facts, f.description))
    return "\n".join(lines)


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign}{value}"
        for key, sign in signs.items()
        for m in field.metadata
        if (value := getattr(m, key, None)) is not None
    ]
    return ", ".join(found)


def _doc(section: type[BaseModel]) -> list[str]:
    own = section.__doc__ if section.__doc__ != BaseModel.__doc__ else None
    return [_text(own)] if own else []


# Tables, recipes


def tables_page() -> str:
    columns_of = {name: list(of) for name, of in groupby(columns(), key=lambda c: c.relation)}
    uses = Counter((c.column, c.comment) for of in columns_of.values() for c in of)
    parts = ["# Tables and views", TABLES_INTRO, "## Columns of many tables"]
    shared = {column for column, n in uses.items() if n >= MANY}
    first = {(c.column, c.comment): c for of in reversed(columns_of.values()) for c in of}
    parts.append("\n".join(_column(first[key]) for key, _ in uses.most_common() if key in shared))
    headings = {"content": "Content tables", "events": "Event tables", "view": "Views"}
    told = set(shared)
    with_columns: dict[frozenset[str], str] = {}
    for kind, heading in headings.items():
        parts.append(f"## {heading}")
        for relation in (r for r in relations() if r["kind"] == kind):
            of = columns_of[relation["name"]]
            key = f" Key: `{relation['key']}`." if relation["key"] else ""
            parts += [f"### {relation['name']}", relation["comment"] + "." + key]
            same = with_columns.setdefault(frozenset(c.column for c in of), relation["name"])
            if same != relation["name"]:
                parts.append(f"Columns of `{same}`.")
                continue
            known = [
                f"`{c.column}`"
                for c in of
                if (c.column, c.comment) in told and c.column not in (relation["key"] or "")
            ]
            new = [c for c in of if (c.column, c.comment) not in told]
            told.update((c.column, c.comment) for c in new)
            parts += ["\n".join(map(_column, new))] if new else []
            parts += ["Also " + ", ".join(known) + "."] if known else []
    return "\n\n".join(parts) + "\n"


def _column(c: Any) -> str:
    is_told = set((c.unit or "").split()) <= set(c.comment.replace(",", "").split())
    return described(c.column, ("" if is_told else c.unit,), c.comment)


def recipes_page() -> str:
    parts = ["# Recipes", RECIPES_INTRO, fields_list(Recipe)]
    for name, section in sections(Recipe):
        parts += [f"### {name}", *_doc(section), fields_list(section)]
    return "\n\n".join([*parts, "## What fits", FITS_INTRO, *what_fits()]) + "\n"


FITS_INTRO = """\
By `proccorpus train --recipe R --plan`: GB of each GPU (H100 of 80 GB) for the longest rows that a recipe allows, and
seconds of a step. Arithmetic, within 15 % of what one H200 took before layers were compiled; what does not fit stands in
brackets. First each size of Qwen3-VL as `procvlm_sft_sharded` (SFT), `procvlm_oneshot_lora` (LoRA) and
`progresslm_grpo` (GRPO) train it, then each recipe on its own machine."""
OF_KIND = {"SFT": "procvlm_sft_sharded", "LoRA": "procvlm_oneshot_lora", "GRPO": "progresslm_grpo"}


def what_fits() -> Iterator[str]:
    cells = []
    for size in ("2B", "4B", "8B"):
        for kind, name in OF_KIND.items():
            recipe = load_recipe(name, begins=False)
            model = recipe.model.model_copy(update={"base": f"Qwen3-VL-{size}"})
            plans = [
                plan(recipe.model_copy(update={"model": model}), Machine(gpus, 80 * GB))
                for gpus in (1, 8)
            ]
            cells.append([size, kind, *map(_fit, plans)])
    yield table(["model", "trained by", "1 GPU", "8 GPUs"], cells)
    cells = []
    for path in sorted(BUILT_IN.glob("p*.yaml")):
        variants = parse_yaml(path.read_text()).get("variants", ())
        for name in (path.stem, *(f"{path.stem}:{variant}" for variant in variants)):
            found = plan_on(load_recipe(name, begins=False), None)
            of_step = f"{found.rows} of {found.tokens // found.rows:,} tokens"
            machine = f"{found.machine.gpus} x {found.machine.memory / GB:g} GB"
            cells.append([f"`{name}`", machine, of_step, f"{found.seconds:.0f} s", _fit(found)])
    yield table(["recipe", "machine", "rows a step", "a step", "of each GPU"], cells)


def _fit(found: Plan) -> str:
    needed = f"{sum(found.bytes.values()) / GB:.0f} GB"
    return f"({needed})" if found.wrong() else needed


PYTHON_INTRO = """\
`import proccorpus as pc` has these names; each does what its command does ([a notebook](examples/corpus.ipynb))."""


def python_page() -> str:
    example = inspect.cleandoc(pc.__doc__ or "").split("\n\n")
    block = textwrap.dedent("\n\n".join(example[1:-1]))
    parts = ["# Python", PYTHON_INTRO, f"```python\n{block}\n```"]
    for name in sorted(
        set(pc.__all__) - {"main", "__version__"}, key=lambda name: (name[0].isupper(), name)
    ):
        parts += _of_python(f"pc.{name}", getattr(pc, name), "##")
        if inspect.isclass(getattr(pc, name)):
            own = vars(getattr(pc, name)).items()
            for method, value in own:
                is_said = isinstance(value, property) or inspect.isfunction(value)
                if is_said and value.__doc__ and method != "__init__":
                    parts += _of_python(f"{name}.{method}", value, "###")
    return "\n\n".join(parts) + "\n"


def _of_python(name: str, value: Any, level: str) -> list[str]:
    """A heading with the signature, and the docstring."""
    said = inspect.getdoc(value) or ""
    if inspect.isfunction(value):
        every = inspect.signature(value).parameters.values()
        own = [str(p.replace(annotation=p.empty)) for p in every if p.name != "self"]
        name += f"({', '.join(own)})"
    return [f"{level} `{name}`", said]


PAGES = {
    "cli.md": cli_page,
    "python.md": python_page,
    "configuration.md": configuration_page,
    "tables.md": tables_page,
    "recipes.md": recipes_page,
    "partial_failures.md": partial_page,
}
