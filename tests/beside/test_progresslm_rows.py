"""Rows as ProgressLM publishes them: up to 40 of each file, without their pictures."""

import json
import shutil
from pathlib import Path

import pytest

from tests.kits.progresslm_rows import assert_rows_are_read, assert_rows_score_fully
from tests.kits.real_data import BESIDE

FILES = sorted((BESIDE / "specs/progresslm_rows").glob("*.jsonl"))


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rows_are_read(tmp_path: Path, path: Path) -> None:
    crossed = "prog-bench__visual_cross_view" in path.name or "extended__visual_cross" in path.name
    assert_rows_are_read(Path(shutil.copy(path, tmp_path)), rows_of(path), crossed)


@pytest.mark.parametrize("part", ["text-normal", "text-unanswerable", "visual_cross_view", "visual-unanswerable"])
def test_rows_score_fully(part: str) -> None:
    (path,) = (path for path in FILES if path.stem == f"prog-bench__{part}")
    assert_rows_score_fully(rows_of(path), part)
