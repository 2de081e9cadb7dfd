"""Settings of a command line: KEY=VALUE of `--set`, for models of options and for typed functions."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_origin

from pydantic import BaseModel, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from core.errors import UserError, validation_message
from core.names import did_you_mean
from core.values import grouped


def setting_values(texts: Iterable[str]) -> dict[str, str]:
    """By name the values of texts KEY=VALUE; those of a repeated name with commas. Raises UserError.

    Example: setting_values(["codec=av1", "family=a", "family=b"]) == {"codec": "av1", "family": "a,b"}.
    """
    pairs = []
    for text in texts:
        name, has_value, value = text.partition("=")
        if not has_value:
            raise UserError(f"--set {text}: a setting is KEY=VALUE, such as --set seed=1")
        pairs.append((name.replace("-", "_"), value))
    return {name: ",".join(values) for name, values in grouped(pairs).items()}


def settings_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The settings that a model of options has, by the names that they have outside."""
    fields = model.model_fields.items()
    return {str(f.validation_alias or name): f for name, f in fields if f.description}


def read_settings(
    model: type[BaseModel],
    kind: str,
    values: Mapping[str, Any],
) -> Any:
    """A model with these values, some of them texts of a command line, where a comma parts the items of a list.

    Raises UserError, which names the setting, and those that there are.
    """
    settings = settings_of(model)
    read = dict(values)
    for name, value in values.items():
        field = settings.get(name) or model.model_fields.get(name)
        if field is None:
            setting_names = ", ".join(settings) or "none"
            raise UserError(
                f"{kind} has no setting {name!r}{did_you_mean(name, settings)}; it has: {setting_names}"
            )
        if isinstance(value, str) and get_origin(field.annotation) is tuple:
            read[name] = value.split(",")
    try:
        return model.model_validate(read)
    except ValidationError as e:
        raise UserError(f"{kind}: {validation_message(e)}") from e


def _positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Its parameters after the first that need no name."""
    _, *parameters = inspect.signature(function).parameters.values()
    return [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]


def arguments_of(
    function: Callable[..., Any], words: Sequence[str], texts: Iterable[str]
) -> list[Any]:
    """What a function takes after its first parameter, but for what only a name gives: `words` in their order, `texts`
    KEY=VALUE by name; as its annotations say. Raises UserError."""
    parameters = _positional(function)
    if parameters and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL:
        return [*words]
    kind = function.__name__
    names = [parameter.name for parameter in parameters]
    if len(words) > len(names):
        raise UserError(
            f"{kind} takes {' '.join(names).upper() or 'nothing'}; {words[-1]!r} is too much"
        )
    fields: dict[str, Any] = {}
    for parameter in parameters:
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (parameter.annotation, Field(default, description=parameter.name))
    values = dict(zip(names, words, strict=False)) | setting_values(texts)
    filled = read_settings(create_model(kind, **fields), kind, values)
    return [getattr(filled, name) for name in names]
