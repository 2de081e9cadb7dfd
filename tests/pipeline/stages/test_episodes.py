"""Outcomes that people give, down to the shard: what a build makes of them, of which chunks, and nothing else."""

from pathlib import Path

from pipeline.build import run_build
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import write_video
from warehouse.lake import Lake, digest
from warehouse.lake.outcomes import StatedOutcome, add_outcomes

EPISODE = 2  # in chunk 1
OUTCOME = "SELECT success, success_source FROM episodes WHERE episode_index = ?"


def say(lake: Lake, success: bool, file: str = "seen.csv", episode: int = EPISODE) -> str:
    return add_outcomes(lake, "tiny", file, [StatedOutcome(episode, success, None, "ada")])[0]


def rebuilt(own: Made) -> list[tuple[str, int | None]]:
    """(stage, chunk) of all that a build runs."""
    report = run_build(own.space, [own.build], workers=1)
    assert not report.failed
    return [(r.run.stage, r.run.chunk) for r in report.done]


def test_outcomes_outlast_a_changed_source(own: Made):
    lake = Lake(own.space)
    say(lake, False)
    rebuilt(own)
    write_video(own.source, EPISODE, 31)
    assert ("frames", 1) in rebuilt(own)
    assert lake.rows(OUTCOME, [EPISODE]) == [(False, "person: seen.csv")]
    lake.con.close()


def test_all_of_it_in_another_order_is_the_same_corpus(own: Made, tmp_path: Path):
    other = own.copy(tmp_path / "other")
    digests = []
    for made, episodes in ((own, (0, 4)), (other, (4, 0))):
        lake = Lake(made.space)
        outcomes = [StatedOutcome(episode, False, None, "ada") for episode in episodes]
        add_outcomes(lake, "tiny", "seen.csv", outcomes)
        rebuilt(made)
        digests.append(digest(lake))
        lake.con.close()
    assert digests[0] == digests[1]
