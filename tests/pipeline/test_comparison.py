"""The comparison of annotators as an asset: what it shows and that it is stored."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from annotate.motion.config import MotionConfig
from assets.defs.models.assets import annotator_comparison
from assets.defs.resources import Corpus
from eval.annotators.compare import AnnotatorComparison, Apart, RunsApart
from eval.metrics.score import mean_of, score
from pipeline.build import run_build
from pipeline.comparison import (
    comparison_figure,
    comparison_step,
    conclusions,
    farthest,
    metric_table,
    short_table,
)
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
    assert table[0].startswith("| dataset | against | labels by | episodes | boundaries within 0.5 s | within 1 s |")
    assert table[2].startswith("| tiny | active label | motion ")
    assert [line.split(" | ")[2] for line in table[3:]] == ["uniform cuts", "random cuts", "clock"]
    assert "data:image/png" in str(metadata["picture"].value)
    assert (metadata["comparisons"].value, metadata["changed"].value) == (1, 4)
    assert twice.rows("SELECT DISTINCT benchmark FROM leaderboard") == [("annotators/tiny (active label)",)]
    first, again = event.materialization.tags, comparison_step(Lake(twice.space))[1]
    assert not again.made
    assert (first or {})["dagster/data_version"] == again.version


def labeller(name: str, run: str = "", **values: list[float]) -> AnnotatorComparison:
    """Of a dataset `a`, with a value per episode by metric; `_` stands for what a name may not have."""
    named = {{"f1": "boundary_f1@0.5s", "mae": "mae", "unnamed": "unnamed"}[k]: mean_of(v) for k, v in values.items()}
    own = {("all", metric): score(m) for metric, m in named.items()}
    return AnnotatorComparison("a", run, name, "truth", run == "r1", own, {"all": 1.0}, named, "")


GOOD = labeller("motion", "r1", f1=[0.9, 0.8, 1.0], mae=[0.1, 0.1, 0.2], unnamed=[0.0, 0.5, 1.0])
OTHER = labeller("vlm", "r2", f1=[0.4, 0.4, 0.5], mae=[0.2, 0.05, 0.2], unnamed=[0.0, 0.0, 0.0])
UNIFORM = labeller("uniform cuts", f1=[0.1, 0.2, 0.3])
CLOCK = labeller("clock", mae=[0.05, 0.06, 0.1])


def test_the_short_table_has_a_row_per_labeller() -> None:
    rows = short_table([GOOD, OTHER, UNIFORM, CLOCK])
    assert [row["labels by"] for row in rows] == ["motion r1 (counts)", "vlm r2", "uniform cuts", "clock"]
    assert rows[0]["boundaries within 0.5 s"] == "0.900 (0.80–1.00)"
    assert rows[0]["unnamed steps"] == "50%"
    assert (rows[2]["boundaries within 0.5 s"], rows[2]["error of progress"]) == ("0.200", "")
    assert "within 1 s" not in rows[0]


def test_what_the_figures_say_in_words() -> None:
    assert conclusions([OTHER, GOOD, UNIFORM, CLOCK]) == [
        "motion r1, boundaries within 0.5 s: nearer than uniform cuts by 0.700 (0.600 to 0.800)",
        "motion r1, progress: farther than clock by 0.063 (0.040 to 0.100)",
        "vlm r2, boundaries within 0.5 s: nearer than uniform cuts by 0.233 (0.200 to 0.300)",
        "vlm r2, progress: not clearly nearer than clock: -0.080 (-0.150 to 0.010)",
        "motion r1, boundaries within 0.5 s: nearer than vlm r2 by 0.467 (0.400 to 0.500)",
        "motion r1, progress: not clearly nearer than vlm r2: 0.017 (-0.050 to 0.100)",
    ]


def test_of_one_episode_nothing_is_clear() -> None:
    one = [labeller("motion", "r1", f1=[0.9]), labeller("uniform cuts", f1=[0.1])]
    assert conclusions(one) == [
        "motion r1, boundaries within 0.5 s: not clearly nearer than uniform cuts: 0.800 (one episode)"
    ]


def test_where_labels_are_farthest_apart() -> None:
    apart = RunsApart("a", "r1", "r2", 4, (Apart(3, 0.25, 0.5), Apart(0, float("nan"), 0.75)))
    assert farthest(apart) == (
        "r1 and r2 are farthest apart in episodes 3 (progress 0.250 apart, boundaries 0.50), 0 (boundaries 0.75). "
        "`proccorpus explore` shows them: /compare/a/3"
    )
    assert farthest(RunsApart("a", "r1", "truth", 4, apart.episodes)).endswith("them: /episode/a/3")


def test_every_metric_has_one_column_per_labeller() -> None:
    table = metric_table([GOOD, UNIFORM])
    assert table[0] == {
        "dataset": "a",
        "against": "truth",
        "metric": "coverage",
        "motion r1": "100%",
        "uniform cuts": "100%",
    }
    by_metric = {row["metric"]: row for row in table}
    assert (by_metric["mae"]["motion r1"], by_metric["mae"]["uniform cuts"]) == ("0.133 (0.10–0.20)", "")
    titles = [axis.get_title() for axis in comparison_figure([GOOD, replace(UNIFORM, dataset="b")]).axes]
    assert titles == ["a against truth", "b against truth"]
