"""The second half of the graph, put together: release, reward model, evaluation, leaderboard.

Each step is a file of its own and says what it made; what is up to date (same inputs, same code) is not made again.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.evaluation import evaluation_step
from pipeline.leaderboard import leaderboard_step
from pipeline.outcome import Outcome
from pipeline.release import release_step
from pipeline.reward_model import reward_model_step
from warehouse.lake import Lake
from warehouse.releases import get_release

if TYPE_CHECKING:
    from training.recipe import Recipe
    from training.train import Point


def closing_steps(
    lake: Lake, name: str, recipe: "Recipe", on_step: Callable[["Point"], None] = lambda point: None
) -> list[Outcome]:
    """The whole second half, in order."""
    release_made = release_step(lake, name)
    release = get_release(lake, name)
    model = reward_model_step(lake, release, recipe, on_step=on_step)
    return [release_made, model, evaluation_step(lake, release, model.version), leaderboard_step(lake)]


def scoring_steps(lake: Lake, name: str) -> list[Outcome]:
    """The second half without training: release, the newest model's scores on it where there is one, leaderboard."""
    from training.finished import newest_model  # imports all of training

    made, model = release_step(lake, name), newest_model(lake)
    scored = [evaluation_step(lake, get_release(lake, name), model)] if model else []
    return [made, *scored, leaderboard_step(lake)]
