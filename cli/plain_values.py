"""Values of options and arguments that are plain, taken without pydantic, which costs a command 0.1 s of CPU.

All others, and those that are wrong, are left to typer, so that its rules and errors stay.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin

from typer.core import TyperArgument, TyperOption

INTEGER = re.compile(r"[0-9]{1,15}")
NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class NotPlainError(Exception):
    """Typer has to look at the value."""


class _Values:
    """What typer asks to make a value of the text that was given for a parameter."""

    def __init__(self, whole: Callable[[], Any]) -> None:
        self._whole = whole

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value in the type of its parameter. Raises what typer raises where the text does not suit."""
        try:
            return _plain(value, param)
        except NotPlainError:
            return self._whole().coerce(value, param=param, ctx=ctx)


def take_plain_values() -> None:
    """For all commands of this process."""
    kinds: tuple[Any, ...] = (TyperOption, TyperArgument)
    for kind in kinds:
        whole = kind.get_runtime_param
        if whole.__module__ != __name__:
            kind.get_runtime_param = _first_plainly(whole)


def _first_plainly(whole: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda param: _Values(lambda: whole(param))


def _plain(value: Any, param: Any) -> Any:
    annotation, rules = param.type_descriptor.annotation, param.type_descriptor.parameter_info
    is_several = param.multiple or param.nargs == -1
    if value is None:
        return () if is_several else None
    if get_origin(annotation) is list and isinstance(value, list | tuple):
        return [_one(item, get_args(annotation)[0], param, rules) for item in value]
    if is_several:
        raise NotPlainError
    return _one(value, annotation, param, rules)


def _one(value: Any, annotation: Any, param: Any, rules: Any) -> Any:
    if rules.parser is not None or rules.clamp:
        raise NotPlainError
    if choices := param.type_descriptor.choices:
        found = [choice for choice in choices if choice == value]
    elif annotation is Path:
        found = _path(value, rules)
    elif annotation in (int, float):
        found = _number(value, annotation, rules)
    else:
        found = [value] if annotation in (str, bool) and type(value) is annotation else []
    if not found:
        raise NotPlainError
    return found[0]


def _path(value: Any, rules: Any) -> list[Path]:
    if rules.exists or rules.writable or rules.resolve_path or rules.allow_dash or rules.path_type:
        return []
    if not (rules.file_okay and rules.dir_okay and isinstance(value, str | Path)):
        return []
    is_in_the_way = rules.readable and os.path.exists(value) and not os.access(value, os.R_OK)
    return [] if is_in_the_way else [Path(value)]


def _number(value: Any, kind: type, rules: Any) -> list[Any]:
    if isinstance(value, str) and (INTEGER if kind is int else NUMBER).fullmatch(value):
        value = kind(value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        return []
    is_within = (rules.min is None or value >= rules.min) and (rules.max is None or value <= rules.max)
    return [value] if is_within else []
