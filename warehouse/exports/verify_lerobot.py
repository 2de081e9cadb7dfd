"""Holds a LeRobot export against the corpus: opened by LeRobot's own reader, compared frame by frame."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from core.errors import install_hint
from ingest.formats.listing import named
from warehouse.exports.common import MANIFEST, ExportError, select
from warehouse.exports.lerobot_plan import LerobotPlan
from warehouse.exports.options import LerobotOptions, Selection
from warehouse.exports.videos import ENCODED
from warehouse.lake import Lake

READER = "warehouse.exports.lerobot_opened"
ROOM = Path(__file__).resolve().parents[2]
TIME_S = 1e-4  # what LeRobot lets a frame's time be off
# Of 255, on average over a picture. Where videos were only copied, decoders give the same. An encoder's loss is below
# the second, and so may another picture of the same scene be: then times and order show that it is the right one
MOST_OFF_COPIED, MOST_OFF_ENCODED = 0.5, 12.0
TOLD = 300  # characters of what LeRobot said


@dataclass(frozen=True)
class Verified:
    """What LeRobot's reader found; `problems` is empty where all of it is as in the corpus.

    `most_off`: the largest mean difference of a picture to the source's, of 255; None where none were compared.
    """

    lerobot: str
    episodes: int
    frames: int
    cameras: int
    pictures: int
    most_off: float | None
    problems: tuple[str, ...]

    def sentence(self) -> str:
        """The outcome in one line."""
        if self.problems:
            return f"NOT verified by LeRobot {self.lerobot}: {named(self.problems)}"
        off = (
            f", at most {self.most_off:.1f} of 255 off" if self.most_off is not None else ", faces hidden: not compared"
        )
        return (
            f"Verified: LeRobot {self.lerobot} opens {self.episodes} episodes, {self.frames} frames and {self.cameras} "
            f"cameras with lengths, times and tasks of the corpus; {self.pictures} pictures decoded{off}."
        )


def verify(lake: Lake, selection: Selection, out: Path, options: LerobotOptions) -> Verified:
    """Of each episode all rows, and the pictures of its first, middle and last frame.

    Raises ExportError where there is no whole export in the folder or LeRobot is not installed, and what `select` and
    readers of sources raise.
    """
    if not (out / MANIFEST).exists():
        raise ExportError(f"{out} holds no export that is whole: there is nothing to verify")
    if find_spec("lerobot") is None:
        raise ExportError(f"--verify needs LeRobot's own reader: {install_hint('train')}")
    plan = LerobotPlan(select(lake, selection), options)
    wanted = [plan.starts[i] + k for i, e in enumerate(plan.episodes) for k in _shown(e.num_frames)]
    with TemporaryDirectory(prefix="proccorpus-verify-") as scratch:
        found, why = _opened(out.resolve(), wanted, Path(scratch))
        if found is None:
            return Verified(_version(), 0, 0, 0, 0, None, (f"it cannot open it ({why})",))
        with np.load(Path(scratch) / "pictures.npz") as pictures:
            most_off, off = _compare_pictures(plan, pictures, _limit(out)) if not options.blur else (None, [])
            count = len(pictures.files)
    problems = (*_compare_rows(plan, found), *off)
    shape = found["episodes"], found["frames"], len(found["cameras"])
    return Verified(found["version"], *shape, count, most_off, problems)


def _limit(out: Path) -> float:
    """How far pictures may be off, by how the export says that its videos were written."""
    written = json.loads((out / MANIFEST).read_text()).get("videos", {})
    return MOST_OFF_ENCODED if ENCODED in written else MOST_OFF_COPIED


def _shown(num_frames: int) -> list[int]:
    return sorted({0, num_frames // 2, num_frames - 1})


def _version() -> str:
    from importlib.metadata import version

    return version("lerobot")


def _opened(root: Path, wanted: Sequence[int], scratch: Path) -> tuple[dict[str, Any] | None, str]:
    """What LeRobot's reader found, or why there is nothing."""
    # Nothing is looked up anywhere, and its copy of the rows goes with the scratch folder
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(scratch / "rows")}
    path = os.pathsep.join(filter(None, (str(ROOM), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", READER, str(root), str(scratch / "pictures.npz")],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        env=os.environ | offline | {"PYTHONPATH": path},
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return None, (lines[-1] if lines else f"it ended with {done.returncode}")[:TOLD]
    return json.loads(done.stdout), ""


def _compare_rows(plan: LerobotPlan, found: Mapping[str, Any]) -> list[str]:
    """What differs, in words: each kind of difference once, with the episodes that it is in."""
    problems: list[str] = []
    if found["episodes"] != len(plan.episodes) or found["frames"] != plan.starts[-1]:
        told = f"{found['episodes']} episodes and {found['frames']} frames"
        return [f"it has {told}, not {len(plan.episodes)} and {plan.starts[-1]}"]
    if found["fps"] != plan.fps:
        problems.append(f"{found['fps']:g} fps, not {plan.fps:g}")
    if sorted(found["cameras"]) != sorted(plan.cameras):
        problems.append(f"the cameras {named(found['cameras'])}, not {named(plan.cameras)}")
    rows = {name: np.array(values) for name, values in found["rows"].items()}
    texts = {int(index): text for index, text in found["tasks"].items()}
    wrong: dict[str, list[int]] = {}
    for number, e in enumerate(plan.episodes):
        at = slice(plan.starts[number], plan.starts[number + 1])
        frames = np.arange(e.num_frames)
        tasks = {texts.get(index) for index in np.unique(rows["task_index"][at]).tolist()}
        allowed = set(plan.tasks) if plan.options.flavour == "subtask" else {e.task or ""}
        as_it_is = {
            "another length": bool((rows["episode_index"][at] == number).all()),
            "frames out of order": bool((rows["frame_index"][at] == frames).all())
            and bool((rows["index"][at] == frames + at.start).all()),
            "other times": bool((np.abs(rows["timestamp"][at] - frames / plan.fps) < TIME_S).all()),
            "another task": tasks <= allowed,
        }
        for what, right in as_it_is.items():
            if not right:
                wrong.setdefault(what, []).append(number)
    return problems + [f"{what} in episode {named([str(n) for n in numbers])}" for what, numbers in wrong.items()]


def _compare_pictures(plan: LerobotPlan, pictures: Mapping[str, np.ndarray], limit: float) -> tuple[float, list[str]]:
    """The largest mean difference of a picture to that of the source, of 255; and which are another picture."""
    most, wrong = 0.0, []
    for number, e in enumerate(plan.episodes):
        for camera in plan.cameras:
            shown = set(_shown(e.num_frames))
            episode = plan.readers[e.dataset].episode(e)
            for k, (_, _, picture) in enumerate(episode.frames(camera)):
                if k not in shown:
                    continue
                theirs, ours = pictures[f"{plan.starts[number] + k}/{camera}"], picture.rgb()
                same = theirs.shape == ours.shape
                off = float(np.abs(theirs.astype(np.int16) - ours).mean()) if same else 255.0
                most = max(most, off)
                if off > limit:
                    wrong.append(f"another picture at frame {k} of episode {number} by {camera} ({off:.1f} of 255 off)")
    return most, wrong
