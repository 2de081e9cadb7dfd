"""A group of commands whose modules are imported when a command of theirs is asked for: the start and --help need none.

The group also adds what commands share: --verbose, -x where there are tables, and examples below the help.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from cli.terminal import AS_RECORDS

Command = Any  # a command or a group; the class that typer has for both is private


@dataclass
class Invocation:
    """One run of the command line: the options that hold for every command. At `obj` of every context."""

    verbose: bool = False


class LazyGroup(TyperGroup):
    """A group whose subclasses name, by heading, the commands: of each the module and the first sentence of its help.

    The commands are listed in that order. Each module has a `typer.Typer` named `app`, with these commands. `examples`:
    whole command lines by the words of their command, such as "release create"; --help shows them.
    """

    groups: Mapping[str, Mapping[str, tuple[str, str]]] = {}
    examples: Mapping[str, Sequence[str]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if own := self.examples.get(""):
            self.epilog = _shown_examples(own)
        self.commands = _LazyCommands(self.groups, self.examples)  # type: ignore[assignment]  # nothing is added to it

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Command | None:
        if cmd_name not in self.commands:
            return None
        return self.commands[cmd_name]  # get() would take a KeyError of the import for a missing command

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:
        widest = max(len(name) for commands in self.groups.values() for name in commands)
        for heading, commands in self.groups.items():
            with formatter.section(heading):
                # As wide everywhere, so that the texts of all groups stand in one column
                formatter.write_dl([(name.ljust(widest), text) for name, (_, text) in commands.items()])

    def shell_complete(self, ctx: typer.Context, incomplete: str) -> list[Any]:
        # The real ones would each import their module
        listed = [
            TyperCommand(name, help=text) for commands in self.groups.values() for name, (_, text) in commands.items()
        ]
        return TyperGroup(commands=listed, params=self.params).shell_complete(ctx, incomplete)


class _LazyCommands(Mapping[str, Command]):
    """Commands by name; the names are there at once, a command when it is taken out."""

    def __init__(
        self, groups: Mapping[str, Mapping[str, tuple[str, str]]], examples: Mapping[str, Sequence[str]]
    ) -> None:
        self._modules = {name: module for commands in groups.values() for name, (module, _) in commands.items()}
        self._examples = examples

    def __getitem__(self, name: str) -> Command:
        command = _commands_of(self._modules[name])[name]
        _add_examples(name, command, self._examples)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


def _shown_examples(lines: Sequence[str]) -> str:
    # \b keeps the lines as they are
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def _add_examples(words: str, command: Command, examples: Mapping[str, Sequence[str]]) -> None:
    """Below the help of the command and of those inside it."""
    if words in examples:
        command.epilog = _shown_examples(examples[words])
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            _add_examples(f"{words} {name}", inner, examples)


@cache
def _commands_of(module: str) -> dict[str, Command]:
    """The commands and groups of a module, each with the option --verbose, and -x where it shows tables."""
    group = typer.main.get_group(import_module(module).app)
    commands = dict(group.commands)
    for command in commands.values():
        _add_common_options(command)
    return commands


def _add_common_options(command: Command) -> None:
    """Of a group that does nothing by itself its commands have the options, not the group."""
    if not isinstance(command, TyperGroup) or command.invoke_without_command:
        verbose, records = _common_options()
        params: list[Any] = list(command.params)
        if any(p.name == "format" and "table" in (p.type_descriptor.choices or ()) for p in params):
            command.params.append(records)
        command.params.append(verbose)
    if isinstance(command, TyperGroup):
        for inner in command.commands.values():
            _add_common_options(inner)


@cache
def _common_options() -> tuple[Any, Any]:
    """--verbose and -x as typer makes them; no command has them as parameters."""
    holder = typer.Typer()

    def remember(context: typer.Context, value: bool) -> None:
        context.ensure_object(Invocation).verbose |= value

    def show_records(context: typer.Context, value: bool) -> None:
        if value:
            AS_RECORDS.set(True)

    @holder.command()
    def command(
        verbose: Annotated[
            bool,
            typer.Option(
                "--verbose", help="Show where an error came from.", callback=remember, is_eager=True, expose_value=False
            ),
        ] = False,
        records: Annotated[
            bool,
            typer.Option(
                "--records",
                "-x",
                help="Each row as a record, a column a line.",
                callback=show_records,
                expose_value=False,
            ),
        ] = False,
    ) -> None: ...

    verbose_option, records_option, *_ = typer.main.get_command(holder).params
    return verbose_option, records_option
