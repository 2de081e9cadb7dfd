"""The asset `rewards` and the calibration after training, on the real thing."""

from pathlib import Path

import dagster as dg

from assets.defs.models.assets import rewards
from assets.defs.resources import CorpusResource
from eval.reward.open import ScorerConfig
from pipeline.episode_rewards import score_selection
from tests.kits.made_corpus import Made
from tests.kits.reward_kit import make_checkpoint
from warehouse.exports.options import Selection
from warehouse.lake import open_lake


def test_the_asset_scores_a_chunk_once(
    own: Made, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    folder = make_checkpoint(tmp_path / "bars")
    instance.add_dynamic_partitions("chunks", ["tiny:00001"])

    def materialized() -> dict[str, object]:
        result = dg.materialize(
            [rewards],
            partition_key="tiny:00001",
            instance=instance,
            resources={"corpus": CorpusResource(root=str(own.space.root))},
            run_config={"ops": {"rewards": {"config": {"model": str(folder), "score_fps": 2.5}}}},
        )
        (event,) = result.asset_materializations_for_node("rewards")
        return {k: v.value for k, v in event.metadata.items()}

    first = materialized()
    assert (first["episodes"], first["scored_now"], first["failures"]) == (2, 2, 0)
    lake = open_lake(own.space)
    kept_rows = lake.rows(
        "SELECT episode_index, count(*), min(done), max(frame_index) FROM eval_predictions WHERE eval_run = ? "
        "GROUP BY 1 ORDER BY 1",
        [first["run"]],
    )
    assert [(e, n, last) for e, n, _, last in kept_rows] == [(2, 16, 29), (3, 7, 11)]
    assert all(0 < result < 1 for _, _, result, _ in kept_rows)
    assert materialized() | {"scored_now": 2, "moments": first["moments"]} == first
    everything = Selection(allow=("unknown",))
    exported = score_selection(open_lake(own.space), ScorerConfig(folder), everything, 2.5)
    assert (exported.run, exported.episodes, exported.scored_now) == (
        first["run"],
        5,
        3,
    )  # what the asset has scored, too
