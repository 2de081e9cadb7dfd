"""Which programs a run's configuration may name: those that the operator's own file allows.

Whoever can open Dagster's UI writes run configurations. What is run by them is another matter: interpreters, lines of
shell, directives of a batch system and images are refused unless the file that PROCCORPUS_PROGRAMS names lists them:

    python = ["/opt/vllm/bin/python"]
    setup = ["module load cuda"]
    directives = ["--constraint=h100"]
    image = ["registry.example/proccorpus:1"]
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from core.errors import UserError

FILE = "PROCCORPUS_PROGRAMS"
GUARDED = ("python", "setup", "directives", "image")  # fields of launchers and of the vLLM resource


def check_programs(config: BaseModel, environment: Mapping[str, str] = os.environ) -> None:
    """Raises UserError for what a run's configuration names, is no default, and is not allowed."""
    fields = type(config).model_fields
    settings = {name: value for name, value in config if name in GUARDED}
    changed_settings = {
        n: v
        for n, v in settings.items()
        if v and v != fields[n].get_default(call_default_factory=True)
    }
    allowed = _allowed(environment) if changed_settings else {}
    for name, values in changed_settings.items():
        for value in set(values if isinstance(values, list) else [values]) - set(
            allowed.get(name, ())
        ):
            remedy = f"whoever runs this server lists it in the TOML file that {FILE} names ({name} = [...])"
            raise UserError(
                f"{name} {value!r} is not allowed in a run's configuration: {remedy}, or leaves it out"
            )


def _allowed(environment: Mapping[str, str]) -> dict[str, list[str]]:
    """By field, what the operator's file allows; nothing without one. Raises UserError."""
    if not (path := environment.get(FILE)):
        return {}
    try:
        lists = tomllib.loads(Path(path).read_text())
    except (OSError, ValueError) as e:
        raise UserError(f"{FILE}: {path} cannot be read: {' '.join(str(e).split())}") from e
    if not all(name in GUARDED and isinstance(listed, list) for name, listed in lists.items()):
        raise UserError(f"{FILE}: {path} holds other things than lists named {', '.join(GUARDED)}")
    return lists
