"""Rewards: a model's progress on videos, streams and data sets, all by one function (`Scorer.score`)."""
