"""Queries of the command line."""

from tests.kits.cli_kit import called
from tests.kits.lerobot_writer import write_info, write_v2


def test_reasons_of_a_whole_dataset_have_their_detail(tmp_path, capsys) -> None:
    write_info(write_v2(tmp_path / "source", [6]), features=3)
    space = ("--workspace", tmp_path / "ws")
    called(capsys, "build", "--source", tmp_path / "source", *space)
    [row] = called(capsys, "quarantine", "--by", "reason", "--format", "json", *space).json
    assert (row["reason"], row["first_episode"]) == ("no_metadata", None)
    assert row["first_detail"].startswith("meta/info.json")
