"""A group of commands whose modules are imported when a command of theirs is asked for: the start and --help need none.

The group also adds the one option that every command has, --verbose.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

Command = Any  # a command or a group; the class that typer has for both is private


@dataclass
class Invocation:
    """One run of the command line: the options that hold for every command. At `obj` of every context."""

    verbose: bool = False


class LazyGroup(TyperGroup):
    """A group whose subclasses name, by module, the commands and the first sentence of the help of each.

    The commands are listed in that order. Each module has a `typer.Typer` named `app`, with these commands.
    """

    topics: Mapping[str, Mapping[str, str]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _LazyCommands(self.topics)  # type: ignore[assignment]  # nothing is added to it

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Command | None:
        if cmd_name not in self.commands:
            return None
        return self.commands[cmd_name]  # get() would take a KeyError of the import for a missing command

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:
        # Commands that have a help and nothing else are listed as the real ones would be
        listed = [TyperCommand(name, help=text) for commands in self.topics.values() for name, text in commands.items()]
        TyperGroup(commands=listed).format_commands(ctx, formatter)


class _LazyCommands(Mapping[str, Command]):
    """Commands by name; the names are there at once, a command when it is taken out."""

    def __init__(self, topics: Mapping[str, Mapping[str, str]]) -> None:
        self._modules = {name: module for module, commands in topics.items() for name in commands}

    def __getitem__(self, name: str) -> Command:
        return _commands_of(self._modules[name])[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


@cache
def _commands_of(module: str) -> dict[str, Command]:
    """The commands and groups of a module, each with the option --verbose."""
    group = typer.main.get_group(import_module(module).app)
    commands = dict(group.commands)
    for command in commands.values():
        _add_verbose(command)
    return commands


def _add_verbose(command: Command) -> None:
    """Of a group that does nothing by itself its commands have the option, not the group."""
    if not isinstance(command, TyperGroup) or command.invoke_without_command:
        command.params.append(_verbose_option())
    if isinstance(command, TyperGroup):
        for inner in command.commands.values():
            _add_verbose(inner)


@cache
def _verbose_option() -> Any:
    """The option as typer makes it; no command has it as a parameter."""
    holder = typer.Typer()

    def remember(context: typer.Context, value: bool) -> None:
        context.ensure_object(Invocation).verbose |= value

    @holder.command()
    def command(
        verbose: Annotated[
            bool,
            typer.Option(
                "--verbose", help="Show where an error came from.", callback=remember, is_eager=True, expose_value=False
            ),
        ] = False,
    ) -> None: ...

    return typer.main.get_command(holder).params[0]
