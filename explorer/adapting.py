"""Adapting a model to one episode from its page: proccorpus adapt in a process of its own, one at a time."""

import re
from dataclasses import dataclass

from core.paths import Workspace
from explorer.access import PageError
from explorer.jobs import ChildJob

RECIPE = re.compile(r"[A-Za-z0-9_]{1,80}")  # the name of a built-in one; a file is for the command line


@dataclass
class Adapting:
    """The one adaptation of this explorer, running or ended. For use by several threads."""

    space: Workspace
    job: ChildJob

    def start(self, dataset: str, episode_index: int, model: str, recipe: str) -> None:
        """Without a recipe, that of the model's kind. Raises PageError: one is running, or it is no built-in recipe."""
        if recipe and not RECIPE.fullmatch(recipe):
            raise PageError("recipe: the name of a built-in recipe is needed", 422)
        busy = f"an adaptation is running already: {self.job.about().get('about', 'of another episode')}"
        about = {"about": f"{dataset} {episode_index} with {model}"}
        self.job.start(command(self.space, dataset, episode_index, model, recipe), about, busy)

    def state(self) -> dict:
        """Its episode and model, whether it runs, its exit code when it has ended, and the end of its log."""
        if self.job.process is None:
            return {"about": None, "running": False, "exit_code": None, "log": ""}
        code = self.job.exit_code
        return {
            "about": self.job.about().get("about"),
            "running": code is None,
            "exit_code": code,
            "log": self.job.log(),
        }


def command(space: Workspace, dataset: str, episode_index: int, model: str, recipe: str) -> list[str]:
    """The arguments of `proccorpus`; without a recipe it takes that of the model's kind."""
    return [
        "adapt",
        f"--dataset={dataset}",
        f"--episode={episode_index}",
        f"--model={model}",
        *([f"--recipe={recipe}"] if recipe else []),
        f"--workspace={space.root}",
    ]
