"""The job that the asset reward_model hands over: whoever begins it again, it goes on; what is to begin anew, does."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.defs.models import assets as models
from assets.defs.resources import CorpusResource
from assets.lib import models as doing
from assets.lib.launch.job import Job
from assets.lib.model_configs import RewardModelConfig
from tests.kits.training_kit import KilledError, kill_at, make_release
from training.recipe import load_recipe
from training.runs import resumable
from training.train import train
from warehouse.lake import Lake

RECIPE = """name: short
model: {tiny: {vocabulary: 400, hidden: 64, layers: 2, vision_hidden: 64, vision_layers: 2, max_px: 64}}
train: {steps: 3, batch: 2, lr: 1.0e-3, save_every: 1}
"""


def handed_over(lake: Lake, recipe: Path, monkeypatch: pytest.MonkeyPatch, **config: Any) -> Job:
    """The job, which is not run."""
    jobs: list[Job] = []

    def launch(
        context: dg.AssetExecutionContext, launcher: object, job: Job
    ) -> dg.MaterializeResult:
        jobs.append(job)
        return dg.MaterializeResult()

    monkeypatch.setattr(doing, "launch", launch)
    settings = RewardModelConfig(name="bars1", recipe=str(recipe), **config)
    result = dg.materialize(
        [models.reward_model],
        resources={"corpus": CorpusResource(root=str(lake.workspace.root))},
        run_config=dg.RunConfig(ops={"reward_model": settings}),
    )
    assert result.success
    return jobs[0]


def test_a_job_goes_on_where_a_killed_one_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, release = make_release(tmp_path / "w")
    path = tmp_path / "short.yaml"
    path.write_text(RECIPE)
    recipe = load_recipe(str(path))
    assert not resumable(lake.workspace, recipe, release)

    with pytest.raises(KilledError):
        train(lake, release, recipe, kill_at(2))
    assert resumable(lake.workspace, recipe, release)
    job = handed_over(lake, path, monkeypatch)
    assert job.arguments[:2] == ("train", "--auto-resume")
    assert resumable(lake.workspace, recipe, release)
    # What it goes on from is taken away before the job is handed over: also a restart then begins where the job began
    handed_over(lake, path, monkeypatch, resume=False)
    assert not resumable(lake.workspace, recipe, release)
    train(lake, release, recipe)
    assert resumable(lake.workspace, recipe, release)
    assert "--wandb" not in job.arguments
    assert "--wandb" in handed_over(lake, path, monkeypatch, always=True, wandb=True).arguments
    assert not resumable(lake.workspace, recipe, release)
