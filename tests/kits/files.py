"""What lies in a folder, and tables of cases; and a pickle that would put something there."""

import os
from pathlib import Path
from typing import Any

import yaml

from core.files import sha256_file
from core.paths import ROOT


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.place),)


def files_of(root: Path) -> dict[str, bytes]:
    """Contents of all files by their path below the folder."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def flip_bit(path: Path) -> None:
    """One in the middle: only a hash sees it."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def hashes_of(root: Path, pattern: str = "*") -> dict[str, str]:
    """SHA-256 of all files of a name by their path below the folder."""
    files = (path for path in sorted(root.rglob(pattern)) if path.is_file())
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in files}


def table(name: str) -> Any:
    """Cases that lie in tests/data."""
    return yaml.safe_load((ROOT / f"tests/data/{name}.yaml").read_text())
