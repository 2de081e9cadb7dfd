"""Each kind of file of each format gone, cut, a pointer of git-LFS, or text: what listing and reading say of it."""

import re
import shutil
from pathlib import Path

import pytest

from tests.kits.fuzz_datasets import BASES, write_base
from tests.kits.lerobot_writer import LFS_POINTER, source_of
from tests.kits.told import check, told


@pytest.mark.parametrize("name", BASES)
def test_what_is_said_of_damage(name: str, tmp_path: Path) -> None:
    """By file and way what is said else, and what no longer. Of files that are numbered, the first of each kind."""
    fields = write_base(name, whole := tmp_path / "whole")
    source = source_of(whole, **fields)
    texts_by_damage = {"whole": told(source)}
    whole_lines = told(source, pictures=False, grippers=False)
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    kinds = {re.sub(r"\d+", "#", str(path)): path for path in reversed(files)}
    for path in sorted(kinds.values()):
        data = (whole / path).read_bytes()
        ways = {
            "gone": None,
            "cut": data[: len(data) // 2],
            "a pointer": LFS_POINTER.encode(),
            "text": b"no such\n",
        }
        for way, content in ways.items():
            root = Path(shutil.copytree(whole, tmp_path / "spoilt"))
            (root / path).unlink()
            if content is not None:
                (root / path).write_bytes(content)
            lines = told(source_of(root, **fields), pictures=False, grippers=False)
            lines_gone = [f"not: {line}" for line in whole_lines if line not in lines]
            texts_by_damage[f"{path} {way}"] = [
                line for line in lines if line not in whole_lines
            ] + lines_gone
            shutil.rmtree(root)
    check("damage", name, texts_by_damage, BASES)
