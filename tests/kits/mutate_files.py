"""Spoiling any file by its bytes, and the tree of files that a dataset is."""

import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from tests.kits.lerobot_writer import LFS_POINTER

SPARSE_BYTES = 1 << 36  # what a file pretends to have
NAMES = (
    "ünïcødé ☃ 数据",
    "two  words ",
    "line\nbreak",
    "\u202egpj.exe",
    "%00",
    "'; DROP TABLE episodes; --",
    "n" * 240,
    "-rf",
)


@dataclass
class Site:
    """A dataset that is being spoilt."""

    root: Path
    outside: Path
    rng: random.Random
    pattern: str = "*"  # of paths
    spoilt: set[Path] = field(default_factory=set)  # not to be read again here: links out, FIFOs, huge files

    def files(self) -> list[Path]:
        """Those of the pattern that are whole."""
        found = (p for p in sorted(self.root.rglob("*")) if p not in self.spoilt and not p.is_symlink() and p.is_file())
        return [p for p in found if fnmatch(self.shown(p), self.pattern) and p.stat().st_size < SPARSE_BYTES]

    def file(self) -> Path:
        """One of them, each kind being as likely; raises IndexError when there is none."""
        files = self.files()
        kind = self.rng.choice(sorted({p.suffix for p in files}))
        return self.rng.choice([p for p in files if p.suffix == kind])

    def secret(self, path: Path) -> Path:
        """The file outside that a file would best be mistaken for."""
        found = self.outside / f"secret{path.suffix}"
        return found if found.exists() else self.outside / "secret.json"

    def shown(self, path: Path) -> str:
        return str(path.relative_to(self.root))


Mutation = Callable[[Site], str | None]


# Bytes of any file


def truncated(site: Site) -> str:
    path = site.file()
    size = path.stat().st_size
    keep = site.rng.choice([1, size // 2, size - 1, site.rng.randrange(size + 1)])
    os.truncate(path, max(0, keep))
    return f"{site.shown(path)} to {keep} of {size} bytes"


def emptied(site: Site) -> str:
    path = site.file()
    path.write_bytes(b"")
    return site.shown(path)


def zero_filled(site: Site) -> str:
    path = site.file()
    size = path.stat().st_size
    start = site.rng.choice([0, site.rng.randrange(size + 1)])
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(site.rng.choice([size - start, (size - start) // 3])))
    return f"{site.shown(path)} from byte {start}"


def bits_flipped(site: Site) -> str | None:
    path = site.file()
    data = bytearray(path.read_bytes())
    if not data:
        return None
    at = [site.rng.randrange(len(data)) for _ in range(site.rng.choice([1, 4, 30]))]
    for k in at:
        data[k] ^= 1 << site.rng.randrange(8)
    path.write_bytes(data)
    return f"{site.shown(path)} at {at[:4]}"


def large_numbers(site: Site) -> str | None:
    path = site.file()
    data = bytearray(path.read_bytes())
    if len(data) < 8:
        return None
    for _ in range(site.rng.choice([1, 3])):
        at = site.rng.randrange(len(data) - 7)
        data[at : at + 8] = site.rng.choice(
            [b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\xff" * 7 + b"\x7f", b"\xff" * 4 + bytes(4)]
        )
    path.write_bytes(data)
    return site.shown(path)


def junk_appended(site: Site) -> str:
    path = site.file()
    with path.open("ab") as file:
        file.write(site.rng.randbytes(site.rng.choice([1, 100, 5000])))
    return site.shown(path)


def lfs_pointer(site: Site) -> str:
    path = site.file()
    path.write_text(LFS_POINTER)
    return site.shown(path)


def swapped(site: Site) -> str:
    path, other = site.file(), site.file()
    path.write_bytes(other.read_bytes())
    return f"{site.shown(path)} is {site.shown(other)}"


def grown(site: Site) -> str | None:
    path = site.file()
    if path.suffix == ".mkv":  # which FFmpeg searches to its end, until it runs out of time
        return None
    os.truncate(path, SPARSE_BYTES)
    site.spoilt.add(path)
    return site.shown(path)


# The tree


def deleted(site: Site) -> str:
    path = site.file()
    path.unlink()
    return site.shown(path)


def duplicated(site: Site) -> str:
    """Beside itself under a name as others have it, or under a wild one."""
    path = site.file()
    number = re.sub(r"\d+", lambda m: str(int(m[0][-3:]) + 1).zfill(len(m[0])), path.name)
    wild = f"{site.rng.choice(NAMES)[:200]}{path.suffix}"
    copy = path.with_name(number if number != path.name and site.rng.random() < 0.6 else wild)
    shutil.copyfile(path, copy)
    return f"{site.shown(path)} as {copy.name[:40]!r}"


def renamed(site: Site) -> str:
    """The file, or a folder above it."""
    path = site.file()
    above = [path, *path.relative_to(site.root).parents][:-1]
    path = site.root / site.rng.choice(above) if len(above) > 1 else path
    name = site.rng.choice([*NAMES, "not utf-8"])
    suffix = site.rng.choice([path.suffix, ""])
    at = os.fsencode(path.parent) + b"/"
    os.rename(path, at + (b"\xff\xfe" if name == "not utf-8" else name.encode()) + suffix.encode())
    return f"{site.shown(path)} to {name[:40]!r}"


def made_folder(site: Site) -> str:
    path = site.file()
    path.unlink()
    path.mkdir()
    return site.shown(path)


def link_outside(site: Site) -> str:
    path = site.file()
    secret = site.secret(path)
    target = site.rng.choice([str(secret), os.path.relpath(secret, path.parent), str(site.outside), "/dev/zero"])
    path.unlink()
    path.symlink_to(target)
    return f"{site.shown(path)} to {target}"


def folder_link_outside(site: Site) -> str:
    path = site.file()
    folder, target = (
        path.parent,
        site.rng.choice([str(site.outside), os.path.relpath(site.outside, path.parent.parent)]),
    )
    shutil.rmtree(folder)
    folder.symlink_to(target)
    return f"{site.shown(folder)} to {target}"


def link_loop(site: Site) -> str:
    path = site.file()
    path.unlink()
    target = site.rng.choice([path.name, ".", os.path.relpath(site.root, path.parent)])
    path.symlink_to(target)
    return f"{site.shown(path)} to {target}"


def fifo(site: Site) -> str:
    path = site.file()
    path.unlink()
    os.mkfifo(path)
    return site.shown(path)


BYTES = (truncated, emptied, zero_filled, bits_flipped, large_numbers, junk_appended, lfs_pointer, swapped, grown)
TREE = (deleted, duplicated, renamed, made_folder, link_outside, link_loop, fifo)
FOLDERS = (folder_link_outside,)
