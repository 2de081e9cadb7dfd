"""What these tests let runs name as programs."""

from pathlib import Path

import pytest

from assets.lib.programs import FILE
from tests.kits.launch_kit import interpreter


@pytest.fixture(autouse=True)
def allowed_programs(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path_factory.mktemp("operator") / "programs.toml"
    file.write_text(f'python = ["{interpreter(tmp_path)}"]\nimage = ["corpus:1"]\n')
    monkeypatch.setenv(FILE, str(file))
