"""What these tests let runs name as programs."""

import pytest

from tests.kits.launch_kit import allow_programs, interpreter


@pytest.fixture(autouse=True)
def allowed_programs(tmp_path_factory, tmp_path, monkeypatch) -> None:
    file = tmp_path_factory.mktemp("operator") / "programs.toml"
    allow_programs(monkeypatch, file, python=[interpreter(tmp_path)], image=["corpus:1"])
