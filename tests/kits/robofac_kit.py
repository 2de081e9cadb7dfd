"""RoboFAC's annotations in their published form, with videos of a bar that grows; the words are made here."""

import json
from pathlib import Path

from tests.kits.reward_kit import bars, write_video

STEPS = ["Reach the cube.", "Grasp the cube.", "Lift the cube."]
ERRORS = ["Grasping error.", "Wrong object.", "Timing error."]
# kind -> (question, answer to the first video, answer to the second, which succeeded: None where it is not asked)
ASKED = {
    "Task identification": ("What is the robot doing?", "Lift the cube.", "Lift the cube."),
    "Failure detection": ("Did the run fail? (Yes or No)", "Yes", "No"),
    "Failure identification": (f"Which error is it? (one of: {ERRORS})", "Grasping error.", None),
    "Failure locating": (f"In which step? (one of: {STEPS})", "Grasp the cube.", None),
    "Low-level correction": ("How should the arm move?", "Down by two centimetres.", None),
}


def make_robofac(root: Path, frames: int = 61) -> Path:
    """Two videos in test_qa_sim and one in test_qa_realworld."""
    for folder, videos, ids in (("test_qa_sim", "simulation_data", "ab"), ("test_qa_realworld", "realworld_data", "c")):
        (root / folder).mkdir(parents=True)
        for number, name in enumerate(ids):
            path = f"LiftCube/{name}.mp4"
            write_video(root / videos / path, bars(frames), fps=30)
            annos = {}
            for kind, (question, *answers) in ASKED.items():
                if answers[number] is not None:
                    asked = {"from": "human", "value": f"<image>\n{question}"}
                    annos[kind] = [asked, {"from": "assistant", "value": answers[number]}]
            row = {name: {"video": path, "task": "LiftCube", "annos": annos}}
            (root / folder / f"annos_per_video_split{number}.json").write_text(json.dumps(row))
    return root
