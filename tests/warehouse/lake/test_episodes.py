"""Episodes as readers of the lake get them."""

from collections.abc import Iterator

import pytest

from core.domain.episode import Episode
from core.errors import UserError
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import LENGTHS
from warehouse.exports.options import Selection
from warehouse.exports.selection import select
from warehouse.lake import Lake
from warehouse.lake.episodes import usable_episode, usable_episodes


@pytest.fixture
def changed(made: Made, tmp_path) -> Iterator[Lake]:
    """The shared corpus, in which run 1 cannot be used and nobody has counted the frames of run 3."""
    lake = Lake(made.copy(tmp_path).space)
    lake.con.execute(
        "INSERT INTO findings BY NAME SELECT 'tiny' AS dataset, 1 AS episode_index, 0 AS chunk, 'frames' AS stage, "
        "'cut_off' AS reason, 'it ends early' AS detail, 'unusable' AS severity"
    )
    lake.con.execute("DELETE FROM episode_content WHERE episode_index = 3")
    lake.con.execute("UPDATE episode_facts SET num_rows = NULL WHERE episode_index = 3")
    yield lake
    lake.con.close()


def test_usable_episodes_come_in_order_with_their_facts_and_the_label_that_counts(changed):
    episodes = usable_episodes(changed.con)
    assert [episode.episode_index for episode in episodes] == [0, 2, 3, 4]
    assert [episode.num_frames for episode in episodes] == [LENGTHS[0], LENGTHS[2], 0, LENGTHS[4]]
    assert episodes[0].key == ("tiny", 0)
    assert episodes[0].duration_s == LENGTHS[0] / episodes[0].fps
    [label_run] = changed.column("SELECT label_run FROM active_runs WHERE episode_index = 0")
    assert episodes[0].label_run == label_run
    of_chunk = usable_episodes(changed.con, "chunk = ?", [episodes[1].chunk])
    assert episodes[1] in of_chunk
    assert {episode.chunk for episode in of_chunk} == {episodes[1].chunk}


@pytest.mark.parametrize(
    ("episode_index", "message"),
    [(1, "episode 1 of tiny cannot be used: cut_off"), (77, "tiny has no episode 77")],
)
def test_an_episode_that_is_named_and_cannot_be_had_says_why(changed, episode_index, message):
    with pytest.raises(UserError, match=message):
        usable_episode(changed.con, "tiny", episode_index)
    assert isinstance(usable_episode(changed.con, "tiny", 2), Episode)


def test_an_export_names_the_runs_whose_frames_nobody_counted(changed):
    selected = select(changed, Selection(allow=("unknown",)))
    assert [episode.episode_index for episode in selected.episodes] == [0, 2, 4]
    assert selected.left_out == ("1 runs whose frames no build has counted yet: build them",)
