"""Laying episodes beside one another: which moment of a reference each moment of an episode is like."""
