"""The comparison of annotators as an asset: what it shows and that it is stored."""

from pathlib import Path

import dagster as dg
import pytest

from annotate.motion import MotionConfig
from assets.defs.models.assets import annotator_comparison
from assets.defs.resources import Corpus
from eval.annotators import AnnotatorComparison
from eval.metrics.score import NO_SCORE, Score
from pipeline.build import run_build
from pipeline.comparison import comparison_figure, comparison_step, comparison_table
from tests.kits.made_corpus import Made
from warehouse.lake import Lake


@pytest.fixture
def twice(made: Made, tmp_path: Path) -> Made:
    """A copy with a second label run of the motion annotator."""
    own = made.copy(tmp_path)
    stages = own.build.stages.model_copy(update={"motion": MotionConfig(step_min_s=0.2, slow_speed=0.9)})
    assert not run_build(own.space, [own.build.model_copy(update={"stages": stages})], workers=1).failed
    return own


def test_the_asset_shows_a_table_and_a_picture(twice: Made, instance: dg.DagsterInstance) -> None:
    corpus = Corpus(root=str(twice.space.root))
    done = dg.materialize([annotator_comparison], resources={"corpus": corpus}, instance=instance)
    (event,) = done.get_asset_materialization_events()
    metadata = event.materialization.metadata
    table = str(metadata["table"].value).splitlines()
    assert table[0].startswith("| dataset | against | metric | motion ")
    assert table[2].startswith("| tiny | active label | coverage | 100% |")
    assert "data:image/png" in str(metadata["picture"].value)
    assert (metadata["comparisons"].value, metadata["changed"].value) == (1, 1)
    assert twice.rows("SELECT DISTINCT benchmark FROM leaderboard") == [("annotators/tiny (active label)",)]
    first, again = event.materialization.tags, comparison_step(Lake(twice.space))[1]
    assert not again.made
    assert (first or {})["dagster/data_version"] == again.version


def comparison(dataset: str, run: str, value: Score) -> AnnotatorComparison:
    scores = {("all", "segment_iou"): value, ("all", "published_bf1@5"): value, ("failures", "segment_iou"): value}
    return AnnotatorComparison(dataset, run, "motion", "truth", scores, {"all": 0.5, "failures": 0.5}, "")


def test_one_column_per_label_run() -> None:
    half = Score(0.5, 0.25, 0.75, 3)
    found = [comparison("a", "r1", half), comparison("a", "r2", NO_SCORE), comparison("b", "r2", half)]
    assert comparison_table(found)[:3] == [
        {"dataset": "a", "against": "truth", "metric": "coverage", "motion r1": "50%", "motion r2": "50%"},
        {"dataset": "a", "against": "truth", "metric": "episodes", "motion r1": "3", "motion r2": "0"},
        {
            "dataset": "a",
            "against": "truth",
            "metric": "segment_iou",
            "motion r1": "0.500 (0.25–0.75)",
            "motion r2": "–",
        },
    ]
    assert comparison_table(found)[-1]["motion r1"] == ""
    titles = [axis.get_title() for axis in comparison_figure(found).axes]
    assert titles == ["a against truth", "b against truth"]
