"""Metrics: pure functions. Progress is a share, 0..1. A metric of an episode is NaN where it is not defined; means
leave such episodes out and say how many were counted.
"""
