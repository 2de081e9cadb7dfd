"""Each kind of file of each format gone, cut, a pointer of git-LFS, or text: what listing and reading say of it.

What they are to say lies in tests/data/damage.json. After a change that is meant, this writes it anew, to be looked at:
    .venv/bin/python -m tests.ingest.formats.test_damage
"""

import json
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from core.paths import ROOT
from ingest.reasons import DataError
from ingest.source import list_episodes, read_episode
from ingest.sources.types import SourceError
from tests.kits.fuzz_bases import BASES, Base, write_base
from tests.kits.lerobot_writer import LFS_POINTER, source_of

SAID = ROOT / "tests/data/damage.json"
WAYS = ("gone", "cut", "a pointer", "text")


def spoil(path: Path, way: str) -> None:
    data = path.read_bytes()
    path.unlink()
    if way != "gone":
        texts = {"cut": data[: len(data) // 2], "a pointer": LFS_POINTER.encode(), "text": b"nothing of the kind\n"}
        path.write_bytes(texts[way])


def told(root: Path, base: Base) -> list[str]:
    """Each finding, each episode's rows, and why an episode cannot be read."""
    source = source_of(root, **base.fields)
    try:
        listing = list_episodes(source)
    except SourceError as e:
        return [str(e).replace(str(root), "")]
    found = [f"{f.severity} {f.reason} {f.episode_index} {f.camera} {f.file}: {f.detail}" for f in listing.findings]
    for record in listing.records:
        found.append(f"episode {record.episode_index}: {record.num_rows} rows, {record.cameras}, {record.task}")
        try:
            episode = read_episode(source, record)
            found[-1] += f", read with {'x'.join(map(str, getattr(episode.state, 'shape', ())))}"
        except (DataError, SourceError) as e:
            found[-1] += f", {e}"
    # What libraries say differs from version to version
    return [
        re.sub(r" \(.*?\)|: (Expecting|Unterminated|Extra|Invalid) [^;]*", "", line.replace(str(root), ""))
        for line in found
    ]


def all_told(name: str, folder: Path) -> dict[str, list[str]]:
    """What is said of the whole; and by file and way what is said else, and what no longer. Of files that are numbered,
    the first of each kind."""
    base = write_base(name, whole := folder / "whole")
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    kinds = {re.sub(r"\d+", "#", str(path)): path for path in reversed(files)}
    found = {"whole": told(whole, base)}
    for path in sorted(kinds.values()):
        for way in WAYS:
            root = Path(shutil.copytree(whole, folder / "spoilt"))
            spoil(root / path, way)
            lines, before = told(root, base), found["whole"]
            gone = [f"not: {line}" for line in before if line not in lines]
            found[f"{path} {way}"] = [line for line in lines if line not in before] + gone
            shutil.rmtree(root)
    return found


@pytest.mark.parametrize("name", BASES)
def test_what_is_said_of_damage(name: str, tmp_path: Path) -> None:
    assert all_told(name, tmp_path) == json.loads(SAID.read_text())[name]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        said = {name: all_told(name, Path(place, name)) for name in BASES}
    SAID.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")
