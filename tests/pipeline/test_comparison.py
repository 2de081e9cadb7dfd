"""The comparison of annotators as an asset: what it shows and that it is stored."""

from eval.annotators.compare import AnnotatorComparison
from eval.scored import ResampledUnit
from pipeline.comparison import conclusions

METRICS = {"f1": "boundary_f1@0.5s", "mae": "mae", "unnamed": "unnamed"}


def labeller(name: str, run: str = "", **values: list[float]) -> AnnotatorComparison:
    """Of a dataset `a` of three episodes, with a value of each by metric."""
    episodes = [ResampledUnit(("a", str(e))) for e in range(3)]
    results = [{METRICS[k]: of_all[e] for k, of_all in values.items()} for e in range(3)]
    return AnnotatorComparison("a", run, name, "truth", run == "r1", episodes, results, ("",))


GOOD = labeller("motion", "r1", f1=[0.9, 0.8, 1.0], mae=[0.1, 0.1, 0.2], unnamed=[0.0, 0.5, 1.0])
OTHER = labeller("vlm", "r2", f1=[0.4, 0.4, 0.5], mae=[0.2, 0.05, 0.2], unnamed=[0.0, 0.0, 0.0])
UNIFORM = labeller("uniform cuts", f1=[0.1, 0.2, 0.3])
CLOCK = labeller("clock", mae=[0.05, 0.06, 0.1])


def test_what_the_figures_say_in_words() -> None:
    assert conclusions([OTHER, GOOD, UNIFORM, CLOCK]) == [
        "motion r1, boundaries within 0.5 s: nearer than uniform cuts by 0.700 (0.600 to 0.800)",
        "motion r1, progress: farther than clock by 0.063 (0.040 to 0.100)",
        "vlm r2, boundaries within 0.5 s: nearer than uniform cuts by 0.233 (0.200 to 0.300)",
        "vlm r2, progress: not clearly nearer than clock: -0.080 (-0.150 to 0.010)",
        "motion r1, boundaries within 0.5 s: nearer than vlm r2 by 0.467 (0.400 to 0.500)",
        "motion r1, progress: not clearly nearer than vlm r2: 0.017 (-0.050 to 0.100)",
    ]
