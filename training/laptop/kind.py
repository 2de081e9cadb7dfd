"""Which checkpoint folders hold a laptop model. Imports no torch."""

import json
from pathlib import Path

KIND = "laptop"
SETTINGS = "config.json"


def is_laptop(folder: Path) -> bool:
    """Does a checkpoint's config.json say that it is of this kind? A folder without one, or damaged, is not."""
    try:
        return json.loads((folder / SETTINGS).read_text())["model_type"] == KIND
    except (OSError, ValueError, KeyError, TypeError):
        return False
