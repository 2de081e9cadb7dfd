"""What people keep by name in the workspace: queries, and views of the gallery; a JSON file of each kind."""

import json
import threading
from dataclasses import dataclass
from pathlib import Path

from core.files import write_file
from core.paths import Workspace
from explorer.access import PageError

MAX_SAVED = 200  # of one kind
MAX_NAME = 80  # characters
_saving = threading.Lock()


@dataclass(frozen=True)
class Kept:
    """One kind of texts with names: `what` they are called, and the key of the text in the file."""

    what: str
    key: str

    def path(self, space: Workspace) -> Path:
        return space.root / "explorer" / f"{self.what}.json"

    def read(self, space: Workspace) -> list[dict[str, str]]:
        """Rows of name and text, by name. Raises PageError when the file holds something else."""
        path = self.path(space)
        if not path.exists():
            return []
        try:
            return [self._checked(row) for row in json.loads(path.read_text())]
        except ValueError as e:
            why = str(e).splitlines()[0]
            raise PageError(f"{path} holds no saved {self.what}: {why}; mend or delete it", 500) from e

    def _checked(self, row: object) -> dict[str, str]:
        """Raises ValueError."""
        if not isinstance(row, dict) or {*row} != {"name", self.key} or {*map(type, row.values())} != {str}:
            raise ValueError(f"each needs name and {self.key}, which are texts")
        return row

    def change(self, space: Workspace, change: dict[str, str | None]) -> list[dict[str, str]]:
        """Save texts under names, delete those given None. Raises PageError: too many, or a read-only folder."""
        with _saving:
            texts = {row["name"]: row[self.key] for row in self.read(space)} | change
            rows = [{"name": name, self.key: text} for name, text in sorted(texts.items()) if text is not None]
            if len(rows) > MAX_SAVED:
                raise PageError(f"at most {MAX_SAVED} {self.what} are kept: delete one first", 400)
            text = json.dumps(rows, indent=1, ensure_ascii=False)
            try:
                write_file(self.path(space), text.encode())
            except OSError as e:
                raise PageError(f"the workspace cannot be written: {e.strerror}", 403) from e
        return rows
