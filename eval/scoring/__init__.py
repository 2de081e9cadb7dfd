"""From answers to scores: what each benchmark counts, by which episodes, and in which slices."""
