"""What runs of the assets of models are configured by: which release, which model, on what."""

from types import NoneType
from typing import Any, get_args, get_origin

import dagster as dg
from pydantic import Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from assets.lib.launch.run import AnyLauncher, LocalLauncher
from core.errors import UserError, validation_message
from core.names import DEMO_RECIPE, DEMO_RELEASE
from eval.benchmarks.options import EvaluationOptions


class ReleaseChoice(dg.Config):
    """Which release to work with."""

    name: str = DEMO_RELEASE


class NewReleaseConfig(ReleaseChoice):
    """`allow_licences`: such as cc-by-nc-4.0 or unknown; datasets whose licence is neither open nor
    named stay out.

    `min_confidence`, `min_name_confidence`: shards with samples of labels less sure stay out; 0:
    none does.
    """

    allow_licences: list[str] = Field(default_factory=list)
    min_confidence: float = 0.0
    min_name_confidence: float = 0.0


class TrainingConfig(ReleaseChoice):
    """Which model: of which recipe."""

    recipe: str = Field(
        default=DEMO_RECIPE, description="A built-in recipe's name, or a YAML file."
    )
    always: bool = Field(
        default=False, description="Do it even when that very model, or its scores, are there."
    )


class RewardModelConfig(TrainingConfig):
    """What is trained, and where."""

    model: str = Field(
        default="", description="Folder of the checkpoint to begin with; for recipes that need one."
    )
    resume: bool = Field(
        default=True,
        description="Go on from the newest checkpoint of this very run where there is one; false: begin anew.",
    )
    wandb: bool = Field(default=False, description="The curve goes to Weights & Biases, too.")
    launch: AnyLauncher = Field(
        default=LocalLauncher(), description="Where: here, or on a cluster."
    )


def for_dagster(field: FieldInfo) -> Any:
    """An option as a configuration has it: texts for paths and choices, lists for tuples."""
    kind = field.annotation
    default = field.default
    for part in (kind, *get_args(kind)):
        if get_origin(part) is tuple:
            item = int if int in get_args(part) else str
            return list[item], Field(default_factory=list, description=field.description)
    if not {kind, *get_args(kind)} & {int, float, bool}:
        kind = str | None if NoneType in get_args(kind) else str
    return kind, Field(default=default, description=field.description)


FIELDS: dict[str, Any] = {
    name: for_dagster(field) for name, field in EvaluationOptions.model_fields.items()
}


class EvaluationConfig(create_model("EvaluationFields", __base__=TrainingConfig, **FIELDS)):
    """What to evaluate on what, as the options of `proccorpus eval`. `model`: empty: the recipe's."""

    endpoint: str = Field(default="", description="OpenAI-compatible base that ends in /v1")

    def options(self) -> EvaluationOptions:
        """Empty texts, zeros and a wish to think stand for the default. Raises UserError."""
        settings = {name: value for name, value in self if name in EvaluationOptions.model_fields}
        settings |= {
            "endpoint": tuple(filter(None, [self.endpoint])),
            "think": settings["think"] and None,
        }
        stated_settings = {
            name: value for name, value in settings.items() if value or value is False
        }
        try:
            return EvaluationOptions.model_validate(stated_settings)
        except ValidationError as e:
            raise UserError(validation_message(e)) from e


class RewardsConfig(TrainingConfig):
    """Which model scores. `model`: a training run, `latest`, or a checkpoint's folder; empty: the
    recipe's."""

    model: str = ""
    score_fps: float = Field(default=4.0, description="scored frames a second")
