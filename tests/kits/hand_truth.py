"""Hand-labelled truth of the made corpus: files as people's passes become them."""

import json
from pathlib import Path


def write_truth(folder: Path, episode: int, num_frames: int, dataset: str = "tiny") -> None:
    """A person saw a step until the middle, a rest, and another step to the end."""
    half = num_frames // 2
    spans = [("reach", "step", 0, half), ("rest", "idle", half, half + 2), ("place", "step", half + 2, num_frames)]
    segments = [
        {"name": name, "kind": kind, "start_frame": a, "end_frame": b, "completed": True} for name, kind, a, b in spans
    ]
    truth = {
        "dataset": dataset,
        "episode_index": episode,
        "num_frames": num_frames,
        "fps": 10,
        "success": True,
        "boundaries": [{"frame": half, "spread": None}, {"frame": half + 2, "spread": None}],
        "events": [{"type": "grasp", "frame": half, "spread": None}],
        "pass_a": segments,
        "pass_b": None,
    }
    (folder / dataset).mkdir(parents=True, exist_ok=True)
    (folder / dataset / f"{episode}.json").write_text(json.dumps(truth))
