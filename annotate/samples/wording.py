"""The wording of samples: template files whose every change gives them another version."""

import hashlib
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from core.values import IMAGE_MARK

TEMPLATES = Path(__file__).parent / "templates"


@cache
def template(file: str, *path: str) -> Any:
    """A text (or table of texts) of <file>.toml, without the line break it begins with."""
    entry: Any = _load(file)
    for part in path:
        entry = entry[part]
    return entry.strip("\n") if isinstance(entry, str) else entry


@cache
def _load(file: str) -> dict[str, Any]:
    return tomllib.loads((TEMPLATES / f"{file}.toml").read_text())


def template_version() -> str:
    """Changes with any template file."""
    files = sorted(TEMPLATES.glob("*.toml"))
    return hashlib.sha256(b"\0".join(f.name.encode() + b"\0" + f.read_bytes() for f in files)).hexdigest()[:16]


def without_marks(text: str) -> str:
    """A text from outside, fit for a question: <image> marks stand for pictures and nothing else."""
    return text.replace(IMAGE_MARK, "image")
