"""Floor 4, above `warehouse`: trains reward models on shards of a release.

`Recipe` (training.recipe) says what to train, training.loop is the loop, training.checkpoint keeps what a run leaves
behind. training.laptop is the small model that a CPU can train.
"""
