"""What a robot itself tells of its grippers and hands: where their values are, how they are scaled, which end is open.

`survey` looks at some episodes of a dataset and gives a `GripperSignal` for each arm;
`gripper.opening` reads it from an episode.
"""
