"""What the end of a build says of grippers and hands, and of labels that give less than others."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.console import show_signals
from ingest.reasons import REASONS
from tests.kits.made_corpus import Made
from warehouse.lake import Lake


@pytest.fixture
def lake(made: Made, tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(made.copy(tmp_path).space)
    yield lake
    lake.con.close()


def test_a_dataset_without_a_gripper_says_so(lake: Lake, capsys: pytest.CaptureFixture[str]):
    lake.con.execute("DELETE FROM signals")
    lake.con.execute(
        "INSERT INTO findings BY NAME SELECT 'tiny' AS dataset, 'episodes' AS stage, 'no_gripper' AS reason, "
        "'looked at state of 3 dimensions' AS detail, 'warning' AS severity"
    )
    show_signals(lake, ["tiny"])
    assert capsys.readouterr().out == (
        f"tiny: no_gripper: looked at state of 3 dimensions: {REASONS['no_gripper'].remedy}\n"
    )
