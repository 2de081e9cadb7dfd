"""What these tests let runs name as programs."""

from pathlib import Path

import pytest

from tests.kits.launch_kit import allow_programs, interpreter


@pytest.fixture(autouse=True)
def allowed_programs(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path_factory.mktemp("operator") / "programs.toml"
    allow_programs(monkeypatch, file, python=[interpreter(tmp_path)], image=["corpus:1"])
