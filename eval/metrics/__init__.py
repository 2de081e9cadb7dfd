"""Metrics, each a pure function: formula, source, range, and what ties and missing answers do stand with it.

    order       correlation with the label: VOC, Kendall's tau, CCC, and what probes of a video show
    errors      distance from the label: MAE, ProgressLM's errors, refusals, finished or not, success
    outcomes    did a run succeed, when is that said, which run of a task went better, which of two is further
    segments    boundaries, overlap and order of segments; lists of actions
    score       many episodes' answers as arrays; means with a bootstrap interval over episodes, two models' difference

Progress is a share, 0..1. A metric of one episode is NaN where it is not defined; means leave such episodes out and
say how many were counted.
"""
