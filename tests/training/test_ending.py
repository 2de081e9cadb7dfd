"""A training that is asked to end, and one whose weights are worth nothing: what is kept, and what goes on."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.paths import ROOT
from tests.kits.training_kit import TINY, make_release, recipe
from training import loop
from training.checkpoint import load_state
from training.ending import noticed
from training.folder import TrainingError
from training.recipe import load_recipe
from training.runs import saved_steps
from training.train import train
from warehouse.lake import Lake
from warehouse.releases.release import Release

RECIPE = f"""name: ended
model: {{tiny: {TINY}}}
head: {{noise: 0.1}}
train: {{steps: 6, batch: 2, accumulation: 2, lr: 1.0e-3}}
"""
# Sends itself the signal in the middle of step 3, between two of its batches
ENDED_IN_STEP = """
import os, signal, sys
from training import loop
plain = loop.losses
calls = []
def counted(*given):
    calls.append(1)
    if len(calls) == 7:
        os.kill(os.getpid(), signal.SIGTERM)
    return plain(*given)
loop.losses = counted
from cli.main import main_of_process
main_of_process()
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Release]:
    return make_release(tmp_path_factory.mktemp("ending") / "w", moments=24)


def test_sigterm_in_a_step_loses_that_step_alone(
    corpus: tuple[Lake, Release], tmp_path: Path
) -> None:
    lake, release = corpus
    file = tmp_path / "ended.yaml"
    file.write_text(RECIPE)
    words = [
        "train",
        "--recipe",
        str(file),
        "--release",
        release.name,
        "--workspace",
        str(lake.workspace.root),
    ]
    process = subprocess.run(
        [sys.executable, "-c", ENDED_IN_STEP, *words],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert process.returncode == 128 + signal.SIGTERM, process.stderr
    assert "note: the checkpoint of step 3 is kept, --resume goes on from it" in process.stderr
    run_recipe = load_recipe(str(file))
    (kept_step,) = saved_steps(next((lake.workspace.root / "models").glob("ended-*.steps")))
    assert load_state(kept_step).step == 3
    resumed_run = train(lake, release, run_recipe, resume=True)
    whole = train(lake, release, run_recipe.model_copy(update={"name": "whole"}))
    assert [p.loss for p in resumed_run.curve] == [p.loss for p in whole.curve]


def test_a_second_signal_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt), noticed() as end_request:  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        assert end_request
        signal.raise_signal(signal.SIGINT)
        pytest.fail("still here")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def ruining(step: int) -> Callable[..., float]:
    """A rate of 1e30 at one step."""
    plain = loop.share_of_rate
    calls = []

    def rate(*args: Any) -> float:
        calls.append(1)
        if len(calls) == step + 1:
            return 1e33
        return plain(*args)

    return rate


@pytest.mark.parametrize("keep", [1, 2])
def test_weights_that_are_worth_nothing_are_never_kept(
    keep: int, corpus: tuple[Lake, Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_recipe = recipe(
        f"ruined{keep}", train={"steps": 5, "save_every": 1, "keep": keep, "lr": 1e-3}
    )
    whole = train(*corpus, run_recipe.model_copy(update={"name": "sound"}))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "share_of_rate", ruining(2))
        with pytest.raises(
            TrainingError, match=r"^the weights are too large after step 2 \(their norm is inf\)"
        ):
            train(*corpus, run_recipe)
    steps = next((corpus[0].workspace.root / "models").glob(f"ruined{keep}-*.steps"))
    assert load_state(saved_steps(steps)[-1]).step == 2
    resumed_run = train(*corpus, run_recipe, resume=True)
    assert [p.loss for p in resumed_run.curve] == [p.loss for p in whole.curve]
    assert len(saved_steps(steps)) == keep


def test_a_checkpoint_from_which_no_step_can_be_learnt_is_set_aside(
    corpus: tuple[Lake, Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights look sound; the loss of the next step is not finite."""
    run_recipe = recipe("aside", train={"steps": 5, "save_every": 1, "keep": 1})
    plain = loop.losses
    calls = []

    def spoilt(*args: Any) -> Any:
        calls.append(1)
        text, *remaining = plain(*args)
        return (text * float("nan") if len(calls) == 4 else text, *remaining)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "losses", spoilt)
        with pytest.raises(
            TrainingError, match=r"the loss is nan at step 3.* is set aside as unsound-00000003"
        ):
            train(*corpus, run_recipe)
    steps = next((corpus[0].workspace.root / "models").glob("aside-*.steps"))
    assert [p.name for p in saved_steps(steps)] == ["step-00000002"]
    resumed_run = train(*corpus, run_recipe, resume=True)
    assert [p.step for p in resumed_run.curve] == list(range(5))
