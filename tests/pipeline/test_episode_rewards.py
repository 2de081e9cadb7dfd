"""The asset `rewards` and the calibration after training, on the real thing."""

from pathlib import Path

import dagster as dg
import pytest

from assets.defs.models.assets import rewards
from assets.defs.resources import Corpus
from eval.reward.calibration import calibrate_checkpoint
from eval.reward.open import ScorerConfig
from pipeline.build import run_build
from pipeline.episode_rewards import score_selection
from pipeline.release import release_step
from tests.kits.made_corpus import Made
from tests.kits.reward_kit import make_checkpoint
from training.folder import read_card
from training.recipe import HeadConfig
from warehouse.exports.options import Selection
from warehouse.lake import open_lake
from warehouse.lake.outcomes import StatedOutcome, add_outcomes
from warehouse.releases import get_release


def test_the_asset_scores_a_chunk_once(made: Made, tmp_path: Path, instance: dg.DagsterInstance) -> None:
    own = made.copy(tmp_path)
    folder = make_checkpoint(tmp_path / "bars")
    instance.add_dynamic_partitions("chunks", ["tiny:00001"])

    def materialized() -> dict[str, object]:
        done = dg.materialize(
            [rewards],
            partition_key="tiny:00001",
            instance=instance,
            resources={"corpus": Corpus(root=str(own.space.root))},
            run_config={"ops": {"rewards": {"config": {"model": str(folder), "score_fps": 2.5}}}},
        )
        (event,) = done.asset_materializations_for_node("rewards")
        return {k: v.value for k, v in event.metadata.items()}

    first = materialized()
    assert (first["episodes"], first["scored_now"], first["failures"]) == (2, 2, 0)
    lake = open_lake(own.space)
    kept = lake.rows(
        "SELECT episode_index, count(*), min(done), max(frame_index) FROM eval_predictions WHERE eval_run = ? "
        "GROUP BY 1 ORDER BY 1",
        [first["run"]],
    )
    assert [(e, n, last) for e, n, _, last in kept] == [(2, 16, 29), (3, 7, 11)]
    assert all(0 < done < 1 for _, _, done, _ in kept)
    assert materialized() | {"scored_now": 2, "moments": first["moments"]} == first
    everything = Selection(allow=("unknown",))
    exported = score_selection(open_lake(own.space), ScorerConfig(folder), everything, 2.5)
    assert (exported.run, exported.episodes, exported.scored_now) == (
        first["run"],
        5,
        3,
    )  # what the asset has scored, too


@pytest.mark.parametrize("done_weight", [0.1, 0.0])
def test_calibration_goes_into_the_card_by_progress_if_need_be(made: Made, tmp_path: Path, done_weight: float) -> None:
    # The tiny runs end with their gripper closed: only somebody who saw them can say that they are done
    own = made.copy(tmp_path)
    lake = open_lake(own.space)
    seen = [StatedOutcome(e, True, None, "ada") for (e,) in lake.rows("SELECT episode_index FROM episode_facts")]
    add_outcomes(lake, "tiny", "seen.csv", seen)
    assert not run_build(own.space, [own.build], workers=1).failed
    release_step(lake, "r1", allow=("unknown",))
    release = get_release(lake, "r1")
    folder = make_checkpoint(tmp_path / "bars", head=HeadConfig(done_weight=done_weight))
    success = calibrate_checkpoint(lake, release, folder)
    assert success is not None
    facts = success.as_json()
    labels = lake.rows(
        "SELECT progress >= 1, count(*) FROM samples WHERE split = 'val' AND family = 'procvqa_c' GROUP BY 1"
    )
    counts = dict(labels)
    assert set(counts) == {True, False}, "the tiny corpus's val split has finished and unfinished moments"
    assert facts == read_card(folder)["success"]
    assert facts["of"] == ("done" if done_weight else "progress")
    assert (facts["reached"], facts["unreached"]) == (counts[True], counts[False])
    assert (facts["release"], facts["split"]) == ("r1", "val")
    assert 0.5 <= facts["balanced_accuracy"] <= 1
