"""Samples that show runs of other chunks: independent of what is built, made anew when what they show changes."""

from pathlib import Path

import pytest

from annotate.config import SamplesConfig
from core.paths import Workspace
from ingest.splits import SplitConfig
from tests.kits.made_corpus import build_of, built, with_stages
from tests.kits.tiny_lerobot import make_dataset, video_path
from warehouse.lake import Lake
from warehouse.lake.outcomes import chunks_to_build
from warehouse.lake.references import join_tasks, part_task


def beyond(lake: Lake) -> dict[int, set[int]]:
    """Episodes of other chunks that the samples of each chunk show."""
    rows = lake.rows(
        "SELECT chunk, list(DISTINCT p.episode_index) FROM (SELECT chunk, unnest(pictures) AS p FROM samples) "
        "WHERE p.episode_index // 2 <> chunk GROUP BY 1"
    )
    return {chunk: set(episodes) for chunk, episodes in rows}


@pytest.mark.slow
def test_a_damaged_run_beyond_costs_the_samples_that_show_it(tmp_path):
    # Chunks of two episodes, one of each task, all for training
    build = build_of(make_dataset(tmp_path / "source", [20] * 6))
    samples = SamplesConfig(unanswerable_per_episode=6)
    build = with_stages(build, splits=SplitConfig(val=0, test_id=0), samples=samples)
    space = built(build, Workspace(tmp_path / "workspace")).space
    lost_episode = max(beyond(Lake(space, read_only=True))[0])
    video = video_path(Path(build.dataset.source), lost_episode)
    video.write_bytes(video.read_bytes()[:200])
    built(build, space)
    lake = Lake(space, read_only=True)
    warnings = lake.rows(
        "SELECT episode_index, severity, detail FROM findings WHERE stage = 'shards' AND chunk = 0 ORDER BY 1"
    )
    assert warnings
    assert {severity for _, severity, _ in warnings} == {"warning"}
    assert {episode for episode, _, _ in warnings} <= {0, 1}
    assert all(f"of episode {lost_episode}, camera" in detail for *_, detail in warnings)
    assert lake.rows("SELECT count(*) FROM episodes WHERE chunk = 0 AND status = 'ok'") == [(2,)]


@pytest.mark.slow
def test_texts_that_people_joined_are_no_other_tasks(tmp_path):
    # Chunks of two episodes, one of each text
    build = build_of(make_dataset(tmp_path / "source", [20] * 4))
    samples = SamplesConfig(unanswerable_per_episode=6)
    build = with_stages(build, splits=SplitConfig(val=0, test_id=0), samples=samples)
    corpus = built(build, Workspace(tmp_path / "workspace"))
    lake = Lake(corpus.space)
    of_other_tasks = "SELECT count(*) FROM samples WHERE reason = 'other_task'"
    [num_samples] = lake.column(of_other_tasks)
    assert num_samples
    digests = lake.rows("SELECT * FROM samples ORDER BY sample_id")

    texts = lake.column("SELECT DISTINCT task FROM episode_facts ORDER BY 1")
    join_tasks(lake, "tiny", *texts, author="ada")
    assert chunks_to_build(lake) == {"tiny": 2}
    remade = [("samples", 0), ("shards", 0), ("samples", 1), ("shards", 1)]
    assert corpus.rebuild() == remade
    assert lake.column(of_other_tasks) == [0]
    assert beyond(lake) == {}
    assert chunks_to_build(lake) == {}

    part_task(lake, "tiny", texts[0], author="ada")
    assert chunks_to_build(lake) == {"tiny": 2}
    corpus.rebuild()
    assert lake.rows("SELECT * FROM samples ORDER BY sample_id") == digests
