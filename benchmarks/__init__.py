"""What things cost and how good they are, measured: `python -m benchmarks.NAME` from the root of the checkout."""
