"""What Dagster does when somebody vouches for a run: the sensor asks, the asset labels the others, or says why not."""

import dagster as dg
import pytest

from assets.defs.corpus.jobs import new_corrections
from pipeline.build import run_build
from tests.assets.defs.corpus.test_assets import ASSETS, materialize, requests
from tests.kits.lake_kit import an_hour_ago
from tests.kits.made_corpus import Made
from warehouse.lake import Lake, references


def test_the_sensor_asks_for_chunks_that_a_reference_concerns(
    own: Made, corpus: Lake, instance: dg.DagsterInstance
) -> None:
    assert requests(new_corrections, instance, str(own.space.root)) == []
    references.vouch(corpus, "tiny", 2, author="ada")
    assert requests(new_corrections, instance, str(own.space.root)) == [], "somebody is at it"
    an_hour_ago(corpus)
    (first,) = requests(new_corrections, instance, str(own.space.root))
    assert (first.tags["corrected"], first.tags["chunks_shown"]) == ("1", "2")
    run_build(own.space, [own.build], workers=1)
    assert requests(new_corrections, instance, str(own.space.root)) == []

    # Nobody corrected anything, but the runs that followed it have to be labelled otherwise
    references.vouch(corpus, "tiny", 2, author="ada", is_reference=False)
    an_hour_ago(corpus)
    (second,) = requests(new_corrections, instance, str(own.space.root))
    assert (second.tags["corrected"], second.tags["chunks_shown"]) == ("0", "2")
    assert second.run_key != first.run_key


@pytest.mark.parametrize(("chunk", "labelled"), [(0, True), (1, False)])
def test_the_asset_labels_the_runs_of_a_chunk(
    own: Made, corpus: Lake, instance: dg.DagsterInstance, chunk: int, labelled: bool
) -> None:
    references.vouch(corpus, "tiny", 2, author="ada")
    result = materialize([ASSETS["transfer"]], f"tiny:{chunk}", own, instance)
    assert result.success
    (of_transfer,) = [m.metadata for m in result.asset_materializations_for_node("transfer")]
    if labelled:
        assert of_transfer["rows_alignments"].value > 0
    else:
        assert of_transfer["left_out"].value == "no reference shows a task of the chunk"
    assert bool(corpus.rows("FROM alignments")) == labelled
