"""Outcomes that people give, down to the shard: what a build makes of them, of which chunks, and nothing else."""

from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import write_video
from warehouse.lake import Lake
from warehouse.lake.outcomes import StatedOutcome, add_outcomes

EPISODE = 2  # in chunk 1
OUTCOME = "SELECT success, success_source FROM episodes WHERE episode_index = ?"


def test_outcomes_outlast_a_changed_source(own: Made):
    lake = Lake(own.space)
    add_outcomes(lake, "tiny", "seen.csv", [StatedOutcome(EPISODE, False, None, "ada")])
    own.rebuild()
    write_video(own.source, EPISODE, 31)
    assert ("frames", 1) in own.rebuild()
    assert lake.rows(OUTCOME, [EPISODE]) == [(False, "person: seen.csv")]
