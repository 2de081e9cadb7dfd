"""Files that survive kills; who else may read them, the umask says."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.files import write_file


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002], indirect=True)
def test_others_may_read_as_the_umask_says(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "below/a.json"
    write_file(path, b"{}")
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert path.parent.stat().st_mode & 0o777 == 0o777 & ~umask
    write_file(path, b"[]")
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert list(path.parent.iterdir()) == [path]
