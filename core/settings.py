"""Settings: fields of a model of options that are given by name, as KEY=VALUE or in a file."""

from collections.abc import Iterable, Mapping
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from core.errors import UserError, validation_message
from core.names import did_you_mean
from core.values import grouped


def is_setting(field: FieldInfo) -> bool:
    """Is a field of a model given by --set, not by an option of its own?"""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and "is_setting" in extra


def settings_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The settings of a model by the names that they have outside: the fields marked so; where none is, all that are
    described."""
    fields = model.model_fields.items()
    described = {str(f.validation_alias or name): f for name, f in fields if f.description}
    return {name: f for name, f in described.items() if is_setting(f)} or described


def setting_values(texts: Iterable[str]) -> dict[str, str]:
    """The values of settings KEY=VALUE; a comma parts those of one that is repeated. Raises UserError."""
    pairs = [text.partition("=") for text in texts]
    for name, has_value, _ in pairs:
        if not has_value:
            raise UserError(f"--set {name}: a setting is KEY=VALUE, such as --set seed=1")
    by_name = grouped((name.replace("-", "_"), value) for name, _, value in pairs)
    return {name: ",".join(of_name) for name, of_name in by_name.items()}


def read_settings[M: BaseModel](
    model: type[M], owner: str, values: Mapping[str, Any], given: Mapping[str, Any] | None = None
) -> M:
    """A model with these values, some of them texts of a command line, where a comma parts the items of a list.
    `given`: of the fields that are no settings.

    Raises UserError, which names the setting, and those that there are.
    """
    settings = settings_of(model)
    fields = {n: f for n, f in model.model_fields.items() if f in settings.values()}
    hidden = {n: f for n, f in model.model_fields.items() if not f.description}
    known = fields | hidden | settings
    read = dict(given or {})
    for name, value in values.items():
        if name not in known:
            setting_names = ", ".join(settings) or "none"
            raise UserError(
                f"{owner} has no setting {name!r}{did_you_mean(name, settings)}; it has: {setting_names}"
            )
        is_list = isinstance(value, str) and get_origin(known[name].annotation) is tuple
        read[name] = value.split(",") if is_list else value
    try:
        return model.model_validate(read)
    except ValidationError as e:
        raise UserError(f"{owner}: {validation_message(e)}") from e
