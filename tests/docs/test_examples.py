"""docs/examples: each script does what it says."""

import json
import re
import subprocess
import sys
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import proccorpus as pc
from core.paths import ROOT
from ingest.media.video import decode
from tests.kits.patience import PATIENCE_S
from tests.kits.reward_kit import write_video
from tests.kits.reward_server_kit import Pixels, running

EXAMPLES = ROOT / "docs" / "examples"


def example(name: str, *options: str) -> str:
    """What the script prints."""
    process = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.slow
def test_a_dataset_is_labelled_and_a_policy_cloned_from_it(tmp_path):
    source = ["--source", str(ROOT / "samples/sim_short"), "--episodes", "0-3"]
    output = example("label_and_train.py", *source, "--out", str(tmp_path))
    min_weight, max_weight = map(float, re.findall(r"which weigh ([\d.]+) to ([\d.]+)", output)[0])
    assert 0 <= min_weight < max_weight
    equal, weighted = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("equal", "rabc")
    )
    assert not torch.equal(equal["0.weight"], weighted["0.weight"])
    errors = [float(e) for e in re.findall(r"mean squared error ([\d.]+)", output)]
    assert len(errors) == 2
    assert max(errors) < 1

    out = tmp_path / "to_look_at.csv"
    output = example(
        "ask_the_corpus.py", "--workspace", str(tmp_path / "workspace"), "--out", str(out)
    )
    assert "mine" in output
    assert list(pd.read_csv(out).columns) == ["dataset", "episode_index", "why"]


@pytest.mark.slow
def test_the_notebook_and_the_page_on_python_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Of the registry, which states a licence
    (tmp_path / "build.toml").write_text('datasets = ["sim_short"]\n')
    build = [
        "build",
        "--config",
        str(tmp_path / "build.toml"),
        "--episodes",
        "0-11",
        "--workspace",
        str(tmp_path / "workspace"),
    ]
    command = [sys.executable, "-m", "proccorpus", *build]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=PATIENCE_S, check=True)
    corpus = pc.open("workspace")
    # The file begins with the first episodes, one after the other
    frames_before = sum(len(corpus["sim_short"][k].progress) for k in range(3))
    num_frames = len(corpus["sim_short"][3].progress)
    video = ROOT / "samples/sim_short/videos/observation.images.front/chunk-000/file-000.mp4"
    frames = [
        frame.rgb() for frame in islice(decode(video), frames_before, frames_before + num_frames)
    ]
    write_video(tmp_path / "run.mp4", frames, fps=20)
    names: dict[str, Any] = {}
    notebook = json.loads((EXAMPLES / "corpus.ipynb").read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["sample"].row["answer"]
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)
    exec(block, names)
    progress = [row["progress"] for row in names["rows"]]
    assert progress[0] < 0.2 < 0.8 < progress[-1]
    assert names["corpus"].sql("FROM corrections").fetchall()
    assert (tmp_path / "out" / "meta" / "info.json").exists()


def test_an_agent_learns_from_a_reward_server_to_play_a_run_to_its_end(tmp_path):
    # The stand-in model says how bright a picture is, so a run that brightens is one that gets on
    frames = [np.full((48, 64, 3), 20 * n, np.uint8) for n in range(8)]
    video = write_video(tmp_path / "run.mp4", frames, fps=4)
    with running(Pixels()) as app:
        output = example(
            "reward_in_rl.py", "--url", app.state.url, "--video", str(video), "--task", "Brighten."
        )
    (end,) = re.findall(r"the last ten episodes ended at ([\d.]+) of 7", output)
    assert float(end) > 6
