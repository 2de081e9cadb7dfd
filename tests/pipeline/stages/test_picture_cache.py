"""Where samples show many frames, a build decodes a video once: what is kept of it, used, and not used."""

import io
from itertools import product

import numpy as np
import pytest

from annotate.config import SamplesConfig, ShardsConfig
from core.paths import Workspace
from ingest.media.picture import ArrayPicture
from pipeline.picture_cache import FrameKeeper, PictureStore
from pipeline.stage import StageReport
from pipeline.stages import stage_named
from tests.kits.made_corpus import built, stage_output, with_stages
from warehouse.lake import Lake


def decoded(stage_reports: list[StageReport], stage: str) -> int:
    return sum(int(r.numbers["decoded_frames"]) for r in stage_reports if r.run.stage == stage)


def test_pictures_of_the_one_decoding_make_the_same_shards(made, tmp_path):
    """Under the recipe that shows every frame; covered ones are made of them, too."""
    dataset = made.build.dataset.model_copy(update={"chunk_size": 100})
    build = made.build.model_copy(update={"dataset": dataset})
    samples = SamplesConfig(profile="procvlm")
    fresh = built(with_stages(build, samples=samples), Workspace(tmp_path))
    assert fresh.rows("FROM samples WHERE pictures::text LIKE '%occluded-%'")
    done = fresh.report.done
    [(frames,)] = fresh.rows("SELECT count(*) FROM frames")
    assert (decoded(done, "frames"), decoded(done, "shards")) == (frames, 0)
    # It decodes anew
    output = stage_output(stage_named("shards"), Lake(fresh.space), fresh.build, 0)
    assert output.findings == []
    digests = [(row["shard"], row["sha256"]) for row in output.tables["shards"].to_pylist()]
    assert sorted(digests) == fresh.rows("SELECT shard, sha256 FROM shards ORDER BY 1")
    assert {p.suffix for p in (fresh.space.root / "shards").rglob("*.*")} == {".tar", ".json"}


@pytest.mark.parametrize(
    ("profile", "num_frames", "is_preferred", "group", "kept"),
    [
        ("procvlm", 5_000, True, 1, 50),
        ("procvlm", 5_000, False, 1, 0),
        ("balanced", 600, True, 4, 0),  # 43 % of the frames would be decoded again
        ("balanced", 600, True, 5, 50),  # 52 %
        ("balanced", 600, False, 10, 0),  # of another camera half as many are shown
        ("balanced", 600, False, 11, 50),
        ("balanced", None, True, 4, 0),  # as of 600 frames
        ("balanced", None, True, 5, 50),
        ("balanced", 5_000, True, 40, 0),
        ("balanced", 5_000, True, 48, 50),
        ("balanced", 5_000, True, 1000, 50),
        ("balanced", 50, True, 1, 50),
        ("balanced", 50, False, 1, 50),
    ],
)
def test_pictures_are_kept_where_decoding_again_takes_longer(
    profile, num_frames, is_preferred, group, kept
):
    keeper = FrameKeeper(PictureStore(io.BytesIO()), ShardsConfig(), SamplesConfig(profile=profile))
    for episode in (0, 1):
        assert keeper.every("front", 20.0, num_frames, is_preferred=is_preferred) == 1
        for frame in range(50):
            picture = ArrayPicture(np.full((64, 64), frame, np.uint8), is_key=frame % group == 0)
            keeper.keep(episode, "front", frame, picture)
    assert sorted(keeper.pictures.places) == [
        (e, "front", frame, "") for e, frame in product((0, 1), range(kept))
    ]
