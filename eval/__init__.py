"""Floor 5, above `training`: scores models and annotators, and serves rewards.

`Runs` and `Measure` (eval.metrics.score) are answers and what is measured of them, `ScoredBenchmark` (eval.scored) what
a model scores on a benchmark, `Scorer` (eval.reward.scorer) a reward model at work. core.metrics lists the metrics.
"""
