"""Values of options: what is plain is taken as typer takes it, and all else is left to typer."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer

import cli.main  # noqa: F401  # as every command line has it
from cli.plain_values import _Values

holder = typer.Typer()


@holder.command()
def command(
    words: Annotated[list[str] | None, typer.Argument()] = None,
    text: Annotated[str | None, typer.Option()] = None,
    path: Annotated[Path, typer.Option()] = Path("here"),
    must_exist: Annotated[Path | None, typer.Option(exists=True)] = None,
    count: Annotated[int | None, typer.Option(min=1, max=9)] = None,
    share: Annotated[float, typer.Option(min=0, max=1)] = 0,
    choice: Annotated[Literal["table", "json"], typer.Option()] = "table",
    several: Annotated[list[int] | None, typer.Option()] = None,
    flag: Annotated[bool, typer.Option("--flag/--no-flag")] = False,
) -> None: ...


COMMAND = typer.main.get_command(holder)
CONTEXT = typer.Context(COMMAND)
PARAMS: dict[str | None, Any] = {param.name: param for param in COMMAND.params}
PLAIN = [
    ("text", "ä b"), ("text", ""), ("text", None), ("path", "a/b"), ("path", Path("a")), ("path", __file__),
    ("count", "3"), ("count", "09"), ("count", 3), ("share", 0), ("share", "0.25"), ("share", "1"),
    ("choice", "json"), ("several", ("1", "2")), ("several", ()), ("several", None), ("words", ("a", "b")),
    ("words", None), ("flag", True),
]  # fmt: skip
OTHERS = [("count", "+3"), ("count", " 4 "), ("share", "1e-3"), ("must_exist", __file__), ("flag", "yes")]
WRONG = [
    ("count", "0"), ("count", "10"), ("count", "three"), ("count", "2.5"), ("share", "1.5"), ("share", "nan"),
    ("choice", "JSON"), ("several", ("1", "x")), ("must_exist", "/no/such/file"), ("flag", "perhaps"),
]  # fmt: skip


def as_typer_takes_it(name: str, value: Any) -> Any:
    from typer._coercion import build_runtime_param

    param = PARAMS[name]
    return build_runtime_param(param.type_descriptor).coerce(value, param=param, ctx=CONTEXT)


def taken(name: str, value: Any, *, whole: bool = True) -> Any:
    """`whole`: typer may be asked."""
    param = PARAMS[name]
    values = param.get_runtime_param() if whole else _Values(lambda: pytest.fail(f"typer was asked about {value!r}"))
    return values.coerce(value, param=param, ctx=CONTEXT)


@pytest.mark.parametrize(("name", "value"), PLAIN)
def test_plain_values_are_those_of_typer(name: str, value: Any) -> None:
    found = taken(name, value, whole=False)
    wanted = as_typer_takes_it(name, value)
    assert (found, type(found)) == (wanted, type(wanted))


@pytest.mark.parametrize(("name", "value"), OTHERS)
def test_typer_takes_what_is_not_plain(name: str, value: Any) -> None:
    assert taken(name, value) == as_typer_takes_it(name, value)


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_typer_refuses_what_is_wrong(name: str, value: Any) -> None:
    with pytest.raises(typer.TyperException) as wanted:
        as_typer_takes_it(name, value)
    with pytest.raises(typer.TyperException) as found:
        taken(name, value)
    assert str(found.value) == str(wanted.value)
