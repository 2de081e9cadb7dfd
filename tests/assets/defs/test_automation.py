"""What keeps itself current: asked of Dagster's own evaluation of conditions."""

from typing import Any, cast

import dagster as dg

from assets.defs.corpus.assets import corpus_assets
from assets.defs.models.assets import annotator_comparison
from assets.defs.resources import CorpusResource, VlmServer
from assets.lib.events import BY_NAME, chunks


def test_a_chunk_without_progress_does_not_hold_up_the_comparison(instance):
    progress = next(asset for asset in corpus_assets if asset.key == dg.AssetKey("progress"))
    resources = {"corpus": CorpusResource(), "vlm_server": VlmServer()}
    assets = [progress, cast(dg.AssetsDefinition, annotator_comparison)]
    defs = dg.Definitions(assets=assets, resources=resources)
    instance.add_dynamic_partitions(cast(str, chunks.name), ["tiny:00000", "tiny:00001"])

    def requested(cursor: Any = None) -> tuple[int, Any]:
        """How often the comparison is asked for at one look."""
        result = dg.evaluate_automation_conditions(defs=defs, instance=instance, cursor=cursor)
        return result.get_num_requested(dg.AssetKey("annotator_comparison")), result.cursor

    _, cursor = requested()
    # One of two chunks gets its progress; the other has none yet
    instance.report_runless_asset_event(dg.AssetMaterialization("progress", partition="tiny:00000"))
    count, cursor = requested(cursor)
    assert count == 1
    count, _ = requested(cursor)
    assert count == 0, "once for what is new"


def test_an_asset_waits_for_each_stage_that_its_stage_reads():
    """Samples for the reasons of their chunk as well, which come last."""
    for asset in corpus_assets:
        [(key, upstream)] = asset.asset_deps.items()
        names = {dependency.to_user_string() for dependency in upstream}
        assert names == {*BY_NAME[key.to_user_string()].upstream}
    assert "reasoning" in BY_NAME["samples"].upstream
