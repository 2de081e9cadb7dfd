"""YAML as configurations use it: plain values, each written where it stands."""

from typing import Any

import yaml


def parse_yaml(text: str) -> Any:
    """What YAML says, by libyaml, which reads a thousand levels. Raises ValueError, also for aliases and a date that is
    none."""
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            # Nine lines of aliases of aliases are a thousand million values
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1
                raise ValueError(
                    f"line {line}: aliases (*name) are not read; write the value itself"
                )
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as e:
        raise ValueError(str(e)) from e
