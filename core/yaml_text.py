"""YAML as configurations use it: plain values, each written where it stands."""

from typing import Any

import yaml


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # Nine lines of aliases of aliases are a thousand million values
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(
                f"line {mark.line + 1}: aliases (*name) are not read; write the value itself"
            )
        return super().compose_node(parent, index)


def parse_yaml(text: str) -> Any:
    """What YAML says. Raises ValueError, also for aliases and a date that is none."""
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except RecursionError as e:
        raise ValueError("nested too deeply") from e
    except yaml.YAMLError as e:
        raise ValueError(str(e)) from e
