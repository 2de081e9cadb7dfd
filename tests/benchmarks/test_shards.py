"""The benchmark of shards runs, on a few pictures."""

import pytest

from benchmarks import shards


def test_all_parts_run_and_show_their_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("FRAMES", 24), ("SHARDS", 2)):
        monkeypatch.setattr(shards, name, value)
    monkeypatch.setattr("sys.argv", ["shards", "--episodes", "2", "--runs", "1"])
    shards.main()
    shown = capsys.readouterr().out
    for part in ("## Writing", "## Reading", "## Size", "of the speed of decoding alone"):
        assert part in shown
