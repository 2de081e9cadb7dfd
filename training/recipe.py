"""Training recipes: validated YAML files, in training/recipes or anywhere. Imports no torch."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

BUILT_IN = Path(__file__).parent / "recipes"


class RecipeError(Exception):
    """A recipe that cannot be used: which file, which field."""


class TinyConfig(BaseModel):
    """Sizes of a tiny model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocabulary: int = Field(default=800, ge=300)
    hidden: int = Field(default=160, ge=32)
    layers: int = Field(default=3, ge=1)
    heads: int = Field(default=4, ge=1)
    vision_hidden: int = Field(default=128, ge=32)
    vision_layers: int = Field(default=4, ge=1)
    patch: int = Field(default=16, ge=8)
    max_px: int = Field(default=128, ge=32, description="longer side of a picture as the model sees it")


class Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    model: TinyConfig = TinyConfig()
    families: tuple[str, ...] = ("procvqa_c",)
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    text_weight: float = Field(default=0.05, ge=0, description="of the cross entropy on the answer")
    progress_weight: float = Field(default=1.0, ge=0, description="of the mean absolute progress error")
    augment: bool = Field(default=False, description="vary colours and position of the pictures")
    seed: int = 0


def load_recipe(name_or_path: str) -> Recipe:
    """A built-in recipe by name, or a YAML file. Raises RecipeError."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = BUILT_IN / f"{name_or_path}.yaml"
        if not path.exists():
            known = ", ".join(sorted(p.stem for p in BUILT_IN.glob("*.yaml")))
            raise RecipeError(f"unknown recipe {name_or_path!r}; known: {known}, or a path to a YAML file")
    try:
        data = yaml.safe_load(path.read_text())
        return Recipe(**data)
    except OSError as e:
        raise RecipeError(f"cannot read {path}: {e.strerror}") from e
    except ValidationError as e:
        wrong = "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg'].lower()}" for x in e.errors())
        raise RecipeError(f"{path}: {wrong}") from e
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as e:
        raise RecipeError(f"{path} is not a YAML mapping of recipe fields: {' '.join(str(e).split())}") from e
