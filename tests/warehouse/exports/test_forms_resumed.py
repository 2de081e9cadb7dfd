"""Exports in forms of others that broke off go on, to the same bytes as ones that ran through."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.kits.files import files_of
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.options import Selection
from warehouse.lake import Lake

ANY = Selection(allow=("unknown",))


class BrokenOffError(Exception):
    pass


@pytest.mark.parametrize("kind", ["opensarm", "robometer", "robo-dopamine"])
def test_a_broken_export_goes_on(made_lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    chosen, module = EXPORT_KINDS[kind], import_module(f"warehouse.exports.{kind.replace('-', '_')}")
    chosen.export(made_lake, ANY, tmp_path / "whole")
    write, calls = module.write_episode_video, 0

    def until_broken(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise BrokenOffError
        return write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_episode_video", until_broken)
        with pytest.raises(BrokenOffError):
            chosen.export(made_lake, ANY, tmp_path / "broken")
    assert not (tmp_path / "broken/manifest.json").exists()
    done = chosen.export(made_lake, ANY, tmp_path / "broken")
    assert not done.again
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "whole")
