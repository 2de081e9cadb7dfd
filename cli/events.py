"""How far a build is, for programs that started it: lines of JSON, added to a file.

{"event": "plan", "stages": 12}: so many stages of chunks are to be made; each is a row of `stage_runs` once it is done.
{"event": "end", "exit_code": 0}: as the build says it; missing where an error broke it off.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class BuildEvents:
    """Where they are written; nowhere without a path."""

    path: Path | None = None

    def plan(self, stages: int) -> None:
        self._add({"event": "plan", "stages": stages})

    def end(self, exit_code: int) -> None:
        self._add({"event": "end", "exit_code": exit_code})

    def _add(self, event: dict[str, Any]) -> None:
        if self.path is not None:
            with self.path.open("a") as f:
                f.write(json.dumps(event) + "\n")


NO_EVENTS = BuildEvents()
