"""`train --plan` of recipes without a size of their own: what they say themselves, and no error."""

from pathlib import Path

import pytest

from tests.kits.cli_kit import called
from tests.kits.laptop_kit import GREY_RECIPE, make_checkpoint
from training.folder import TrainingError
from training.laptop.model import load_laptop
from training.plan_words import plan_facts
from training.recipe import load_recipe


@pytest.mark.parametrize("name", ["laptop_oneshot", "tiny_oneshot"])
def test_a_recipe_that_begins_with_any_model_says_what_it_can(
    name: str, capsys: pytest.CaptureFixture[str]
):
    result = called(capsys, "train", "--recipe", name, "--plan", "--format", "json")
    assert result.code == 0
    recipe = load_recipe(name, begins=False)
    assert result.json["steps"] == recipe.train.steps
    assert recipe.train.batch in (
        result.json.get("windows a step"),
        result.json.get("rows a step of one GPU"),
    )
    assert result.json["parameters"] == "not known: --model PATH says it, of a checkpoint"


def test_a_laptop_model_has_its_own_figures_and_fits(tmp_path: Path):
    path = tmp_path / "grey.yaml"
    path.write_text(GREY_RECIPE)
    facts, fits = plan_facts(load_recipe(str(path), begins=False), None)
    assert fits
    assert facts["encoder, which does not learn"] == "grey"
    learning = facts["parameters that learn"]
    assert facts["MB of weights, gradients and optimizer"] == pytest.approx(
        16 * learning / 1e6, abs=0.05
    )

    # As the message says, --model has what the recipe has not
    checkpoint = make_checkpoint(tmp_path / "bars")
    facts, fits = plan_facts(load_recipe("laptop_oneshot", checkpoint, begins=False), None)
    model, *_ = load_laptop(checkpoint)
    assert (facts["parameters that learn"], fits) == (
        sum(p.numel() for p in model.parameters() if p.requires_grad),
        True,
    )
    with pytest.raises(TrainingError, match="is no machine"):
        plan_facts(load_recipe("laptop_oneshot", begins=False), "8xH100")
