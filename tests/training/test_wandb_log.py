"""A run's curve at Weights & Biases, by a stand-in of its package: what is sent, also over a kill, and what is told."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import UserError
from pipeline.reward_model import reward_model_step
from tests.kits.training_kit import KilledError, kill_at, make_release, recipe
from training.runs import begin_wandb

# As much of wandb as is used; what it is told goes to a file.
STAND_IN = """
import json, os
class Error(Exception): ...
class Run:
    def log(self, values, step): _say({"log": values, "step": step})
    def finish(self, exit_code): _say({"finish": exit_code})
def _say(what):
    with open(os.environ["SAID"], "a") as f: f.write(json.dumps(what) + "\\n")
def init(**options):
    if os.environ.get("WANDB_MODE") != "offline": raise Error("api_key not configured (no-tty).\\n  call wandb login")
    _say({"init": options})
    return Run()
"""


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "wandb.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SAID", str(tmp_path / "said.jsonl"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    yield tmp_path / "said.jsonl"
    sys.modules.pop("wandb", None)


def lines(log_file: Path) -> list[dict]:
    records = [json.loads(line) for line in log_file.read_text().splitlines()]
    log_file.unlink()
    return records


def test_every_point_is_sent_and_a_run_that_goes_on_is_the_same_one(
    said: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, release = make_release(tmp_path / "w", held_out=2)
    run_recipe = recipe("sent", train={"save_every": 2, "evaluate_every": 2})

    with pytest.raises(KilledError):
        reward_model_step(lake, release, run_recipe, always=True, on_step=kill_at(2), wandb=True)
    begin_record, *points, end = lines(said)
    assert begin_record["init"]["project"] == "proccorpus"
    assert begin_record["init"]["dir"] == str(tmp_path / "w" / "wandb")
    assert begin_record["init"]["config"]["train"]["save_every"] == 2
    assert [p["step"] for p in points] == [0, 1, 2]
    assert end == {"finish": 1}

    outcome = reward_model_step(lake, release, run_recipe, always=True, resume=True, wandb=True)
    resumed, *points, end = lines(said)
    assert resumed["init"]["id"] == begin_record["init"]["id"]
    assert resumed["init"]["name"] == outcome.numbers["training_run"]
    curve = json.loads((outcome.files[0] / "curve.json").read_text())[2:]
    assert [(p["step"], p["log"]["train/loss"]) for p in points] == [
        (p["step"], p["loss"]) for p in curve
    ]
    assert points[-1]["log"]["train/held_out_mae"] == curve[-1]["extra"]["held_out_mae"]
    assert end == {"finish": 0}

    monkeypatch.setenv("WANDB_PROJECT", "other")
    begin_wandb(tmp_path / "w" / "wandb", begin_record["init"]["name"], {}, goes_on=False)
    (fresh_record,) = lines(said)
    assert fresh_record["init"]["id"] != begin_record["init"]["id"]
    assert fresh_record["init"]["project"] == "other"
    # Only the first of several processes tells.
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(KilledError):
        reward_model_step(
            lake, release, recipe("second"), always=True, on_step=kill_at(2), wandb=True
        )
    assert not said.exists()


def test_what_is_missing_is_told(
    said: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(
        UserError, match=r"^wandb cannot begin: api_key not configured .* or WANDB_MODE=offline"
    ):
        begin_wandb(tmp_path, "run", {}, goes_on=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"^--wandb needs the package wandb: uv pip install wandb, or leave it out$"
    ):
        begin_wandb(tmp_path, "run", {}, goes_on=False)
