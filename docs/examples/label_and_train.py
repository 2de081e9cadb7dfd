"""Label a dataset, then clone a policy from it whose frames weigh as much as the progress that follows them.

    .venv/bin/python docs/examples/label_and_train.py [--source FOLDER] [--episodes 0-9] [--task TEXT] [--out FOLDER]

Three steps: `proccorpus build` labels the runs, `proccorpus export lerobot` writes them as a LeRobot dataset with their
progress, and a small policy is trained on it twice, with equal weights and with LeRobot's own reward-aligned behaviour
cloning (RA-BC). For a policy of true size the last step is `lerobot-train --sample_weighting.type=rabc ...` on the same
folder; its README.md has the flags.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lerobot.datasets import LeRobotDataset
from lerobot.rewards.sarm.rabc import RABCWeights

ROOT = Path(__file__).resolve().parents[2]
CHUNK = 16  # frames over which a frame's gain of progress is measured
STEPS, BATCH = 300, 256


def proccorpus(*arguments: str) -> None:
    """A command of proccorpus, as one would type it. Raises CalledProcessError where it fails."""
    subprocess.run([str(Path(sys.executable).parent / "proccorpus"), *arguments], check=True)


def labelled(source: str, episodes: str | None, out: Path) -> Path:
    """A LeRobot dataset of the usable runs of a folder, with the progress of each frame."""
    workspace, dataset = str(out / "workspace"), out / "lerobot"
    part = ["--episodes", episodes] if episodes else []
    proccorpus("build", "--source", source, "--name", "mine", *part, "--workspace", workspace)
    # A folder has no licence of its own: we say that we may use it
    chosen = ["--dataset", "mine", "--allow-licence", "unknown"]
    proccorpus("export", "lerobot", *chosen, "--out", str(dataset), "--workspace", workspace)
    return dataset


def rows(
    dataset: Path, task: str | None
) -> tuple[np.ndarray, torch.Tensor, torch.Tensor, list[str]]:
    """Of the frames of a task: their index in the dataset, state [n, s] and action [n, a]; and the tasks there are."""
    opened = LeRobotDataset("local/mine", root=dataset, video_backend="pyav")
    table, tasks = (
        opened.hf_dataset.with_format("numpy"),
        list(pd.DataFrame(opened.meta.tasks).index),
    )
    if task is not None and task not in tasks:
        raise SystemExit(f"no task {task!r}; there are: {', '.join(tasks)}")
    of_task = np.asarray(table["task_index"]) == tasks.index(task or tasks[0])
    columns = (
        np.asarray(table[name])[of_task] for name in ("index", "observation.state", "action")
    )
    index, state, action = columns
    return index, torch.as_tensor(state).float(), torch.as_tensor(action).float(), tasks


def cloned(state: torch.Tensor, action: torch.Tensor, weights: torch.Tensor) -> torch.nn.Module:
    """A policy from state to action, trained on all frames, each counting by its weight."""
    torch.manual_seed(0)
    policy = torch.nn.Sequential(
        torch.nn.Linear(state.shape[1], 64), torch.nn.ReLU(), torch.nn.Linear(64, action.shape[1])
    )
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    for _ in range(STEPS):
        chosen = torch.randint(len(state), (BATCH,))
        error = (policy(state[chosen]) - action[chosen]).pow(2).mean(1)
        loss = (error * weights[chosen]).sum() / weights[chosen].sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy


def main() -> None:
    said = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    said.add_argument("--source", default=str(ROOT / "samples" / "sim_short"))
    said.add_argument("--episodes", help="a part of them, such as 0-9")
    said.add_argument("--task", help="default: the dataset's first")
    said.add_argument("--out", type=Path, default=Path("policy_example"))
    asked = said.parse_args()

    dataset = labelled(asked.source, asked.episodes, asked.out)
    index, state, action, tasks = rows(dataset, asked.task)
    kappa = json.loads((dataset / "manifest.json").read_text())["suggested_kappa"][str(CHUNK)]
    rabc = RABCWeights(
        dataset / "sarm_progress.parquet", CHUNK, kappa=kappa, device=torch.device("cpu")
    )
    weights, _ = rabc.compute_batch_weights({"index": index})
    print(
        f"{asked.task or tasks[0]} {len(index)} frames, which weigh {weights.min():.2f} to {weights.max():.2f}"
    )

    for name, chosen in (("equal", torch.ones(len(index))), ("rabc", weights)):
        policy = cloned(state, action, chosen)
        torch.save(policy.state_dict(), asked.out / f"{name}.pt")
        with torch.no_grad():
            error = (policy(state) - action).pow(2).mean(1)
        print(
            f"{name}: mean squared error {float((error * weights).sum() / weights.sum()):.4f} on frames that gain"
        )


if __name__ == "__main__":
    main()
