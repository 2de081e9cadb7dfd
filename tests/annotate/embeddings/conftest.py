"""Encoders with weights are tried where the weights are."""
