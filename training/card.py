"""A model's card: what it was trained on and how, and what it scored."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Template

from core.files import sha256_file
from training.folder import TrainingError, read_card, write_card
from training.recipe import Recipe
from training.runs import CODE_VERSION
from training.trained_on import seen_by_run
from warehouse.lake import Lake
from warehouse.lake.sql import open_for_users
from warehouse.releases.release import Release, file_failure

PAGE = Template(
    (Path(__file__).parent / "card.md.jinja").read_text(),
    trim_blocks=True,
    keep_trailing_newline=True,
)


def make_card(lake: Lake, release: Release, recipe: Recipe, run: str) -> dict[str, Any]:
    """Facts known before training: data release, the label runs behind it, recipe, and all that the model will have
    seen."""
    # The lake as of the release's snapshot: label runs that were active then, not today's.
    con = open_for_users(lake.workspace, release.snapshot)
    cursor = con.execute(
        "SELECT DISTINCT a.dataset, r.label_run, r.annotator, r.model, r.prompt_version FROM active_runs a "
        "JOIN label_runs r USING (label_run) WHERE list_contains(?, a.dataset) ORDER BY ALL",
        [sorted({s.dataset for s in release.shard_list})],
    )
    names = [d[0] for d in cursor.description or ()]
    runs = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    # The window is what the model saw in training; datasets of other splits have no part in it.
    train_datasets = {s.dataset for s in release.shard_list if s.split == "train"}
    configs = con.execute(
        "SELECT config FROM build_configs WHERE list_contains(?, dataset)", [sorted(train_datasets)]
    )
    # What it reads: shards of a release as they were checked, or files of rows
    if recipe.data.jsonl:
        hashes = {path.name: sha256_file(path) for path in recipe.data.jsonl}
    else:
        hashes = {shard.address: shard.sha256 for shard in release.shards("train")}
    return {
        "training_run": run,
        "read": hashes,
        "release": release.name,
        "snapshot": release.snapshot,
        "release_hash": release.config_hash,
        "label_runs": runs,
        "trained_on": seen_by_run(lake, release, recipe).as_json(),
        "recipe": recipe.model_dump(mode="json"),
        "head": recipe.head.model_dump(mode="json") if recipe.head else None,
        "code_version": CODE_VERSION,
        "max_px": recipe.model.max_px,
        "max_vision_tokens": recipe.model.max_vision_tokens,
        # Rows of files bring pictures that no configuration of ours chose.
        "window": None
        if recipe.data.jsonl
        else shown_window([json.loads(c) for (c,) in configs.fetchall()]),
    }


def check_shards(lake: Lake, release: Release, recipe: Recipe) -> None:
    """Raises TrainingError for a shard that is not the release's. Of several processes each looks at its part."""
    if recipe.data.jsonl:
        return
    first = int(os.environ.get("RANK", 0))
    for shard in release.shards("train")[first :: int(os.environ.get("WORLD_SIZE", 1))]:
        path = shard.path(lake.workspace)
        if fault := file_failure(path, shard.bytes, shard.sha256):
            raise TrainingError(
                f"release {release.name} is not what was frozen: {path}: {fault.detail}; "
                f"proccorpus release verify {release.name} names all such files"
            )


def shown_window(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How many pictures a question of family c showed, how far apart and how large, by the
    configurations that the datasets were built with; None where they differ: then nobody can say
    which window the model is used to."""
    windows = []
    for config in configs:
        samples = config["stages"]["samples"]
        shards = config["stages"]["shards"]
        fields = ("profile", "window_frames", "window_step_s")
        windows.append(
            {k: samples[k] for k in fields} | {"picture_max_px": shards["picture_max_px"]}
        )
    if windows and all(f == windows[0] for f in windows):
        return windows[0]
    return None


def add_scores(folder: Path, evaluation: str, scores: dict[str, float | int | str]) -> None:
    """Write an evaluation's headline numbers into a checkpoint's card; one of the same name is replaced. ModelError."""
    card = read_card(folder)
    write_card(folder, card | {"scores": card.get("scores", {}) | {evaluation: scores}})


def card_text(card: dict[str, Any], name: str = "") -> str:
    """The card as Markdown, for where people read it: what a model was trained on and how; of one that was converted,
    `name`, what it was made of."""
    start = card.get("recipe", {}).get("model", {}).get("path") or "random weights"
    return PAGE.render(card, name=name, start=Path(start).name)
