"""Each setting that is changed after a build counts as in a fresh workspace, or is refused."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from core.errors import UserError
from core.paths import Workspace
from ingest.registry import DatasetConfig
from pipeline.build import BuildReport, run_build
from pipeline.config import DatasetBuild, StageConfigs
from pipeline.dry_run import MAYBE, PlannedWork, foresee
from tests.kits.cli_kit import digest_of, rows
from tests.kits.files import files_of
from tests.kits.small_sources import CAMERA, RECORDINGS, WRIST, write_v2
from warehouse.lake.lake import lake_to_read

# Values that cannot be made of the default one: field by field, as a registry entry or a TOML file has them
VALUES: dict[str, Any] = {
    "task": "Put it away",
    "title": "Arm", "robot": "other_arm", "format": "lerobot", "license": "mit", "citation": "Doe", "fps": 12.0,
    "fps_note": "it may be 12", "cameras.views": [WRIST], "cameras.exo": [WRIST], "cameras.ego": [WRIST],
    "cameras.wrist": [CAMERA], "cameras.bgr": [CAMERA], "gripper": {"dimension": "x", "open": 0.9, "closed": 0.1},
    "keys.state": ["action"], "keys.action": ["observation.state"], "keys.language": ["task_index"],
    "keys.episode_id": ["frame_index"], "keys.success": ["frame_index"], "annotator": "native",
    "bad_episodes": {"episode_000001": "the arm was off"}, "group_field": "task_index", "notes": "none",
    "published.fps": 30.0, "published.episodes": 4, "published.frames": 9, "published.tasks": 9,
    "published.image_shape": "9x9", "published.state_dim": "9", "published.action_dim": "9",
    "limits.max_memory_bytes": 2 << 30, "splits.held_out_tasks": [RECORDINGS[0].task],
    "frames.min_frames": 40, "embeddings.encoder": "grey", "embeddings.cameras": "all", "embeddings.size_px": 64,
    "samples.image_editor": None, "shards.store": None, "motion.gripper_swing": 0.5, "samples.rare_share": 0.25,
}  # fmt: skip
# What a build cannot change: the name and the place say which dataset it is, revisions are of a hub, folders are each a
# dataset, an editor is a plugin, and nothing asks a model here
ELSEWHERE = {"name", "source", "revision", "folders", "samples.image_editor", "shards.store"}
REFUSED = {
    "chunk_size": "its chunks were built with 500 episodes, for good",
    "splits.val": "an episode keeps its split",
    "splits.test_id": "an episode keeps its split",
    "splits.seed": "an episode keeps its split",
}


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def changed(name: str, field: FieldInfo) -> Any:
    """Another value than the default."""
    if name in VALUES:
        return VALUES[name]
    options = list(choices(field.annotation))
    if options:
        return next(option for option in options if option != field.default)
    if isinstance(field.default, str):
        return f"{field.default}_else"
    assert isinstance(field.default, int | float), f"{name}: give it another value in VALUES"
    if isinstance(field.default, int):
        return field.default + 1
    return field.default * 0.9


def choices(annotation: Any) -> Iterator[Any]:
    """The values that a field may have, where they are listed."""
    if annotation is bool:
        yield from (True, False)
    elif get_origin(annotation) is Literal:
        yield from get_args(annotation)
    elif get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from choices(part)


def nested(name: str, value: Any) -> dict[str, Any]:
    first, _, remainder = name.partition(".")
    return {first: nested(remainder, value) if remainder else value}


ENTRY = {
    name: changed(name, field) for name, field in leaves(DatasetConfig) if name not in ELSEWHERE
}
STAGES = {
    name: changed(name, field)
    for name, field in leaves(StageConfigs)
    if name not in ELSEWHERE and not name.startswith("vlm.")
}
BASE = {"embeddings": {"when": "always", "encoder": "grey"}}  # an encoder that needs no weights
OF_RUNS = ("segments", "episode_labels", "progress", "reasoning", "label_quality")
KEPT = ("splits", "label_disagreement")  # also say something of what was before
STAYS = {
    "embeddings.when": "embeddings"
}  # tables that stay to be searched, of which nothing is made any more
ACTIVE = (
    "SELECT md5(string_agg(t::VARCHAR, ' ' ORDER BY t::VARCHAR)) FROM {} t "
    "SEMI JOIN active_runs USING (dataset, episode_index, label_run)"
)
QUICK = dict.fromkeys(("chunk_size", "splits.val"), ())
MARKS = QUICK | dict.fromkeys(("cameras.bgr", "fps", "gripper"), pytest.mark.slow)  # else long


class Arm:
    """A dataset of three recordings, and a workspace with it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = write_v2(root / "arm", RECORDINGS[:3], cameras=(CAMERA, WRIST))
        self.build("base", {}, {})

    def made(self, entry: Mapping[str, Any], stages: Mapping[str, Any]) -> DatasetBuild:
        dataset = DatasetConfig(**{"name": "arm", "source": str(self.source)} | dict(entry))
        configs = StageConfigs(
            **BASE
            | {k: BASE.get(k, {}) | v if isinstance(v, dict) else v for k, v in stages.items()}
        )
        return DatasetBuild(dataset=dataset, stages=configs, episodes=None)

    def foreseen(
        self, workspace: str, entry: Mapping[str, Any], stages: Mapping[str, Any]
    ) -> list[PlannedWork]:
        """What a build would do; to ask changes no file."""
        root = self.root / workspace
        files_before = files_of(root)
        lake = lake_to_read(Workspace(root))
        with closing(lake.con):
            work = foresee(lake, [self.made(entry, stages)]).work
        assert files_of(root) == files_before
        return work

    def build(
        self, workspace: str, entry: Mapping[str, Any], stages: Mapping[str, Any]
    ) -> BuildReport:
        return run_build(Workspace(self.root / workspace), [self.made(entry, stages)], 1)

    def contents(self, workspace: str) -> dict[str, str]:
        """Digests of all that is in force.

        Labels of superseded runs stay, and so do the splits of episodes that cannot be used any more.
        """
        digests = {
            name: value
            for name, value in digest_of(self.root / workspace).items()
            if name not in KEPT
        }
        for name in OF_RUNS:
            digests[name] = str(rows(self.root / workspace, ACTIVE.format(name)))
        return digests

    def check(self, name: str, entry: Mapping[str, Any], stages: Mapping[str, Any]) -> None:
        """A build after another one ends as a fresh one with the same settings does; or asks first."""
        part = "dataset" if entry else "stages"
        again_name = f"{part}-{name}-again"
        fresh = f"{part}-{name}-fresh"
        shutil.copytree(self.root / "base", self.root / again_name)
        work = self.foreseen(again_name, entry, stages)
        report = self.build(again_name, entry, stages)
        failed = messages(report)
        if failed and "accept-changes" in failed[0]:
            return
        assert failed == messages(self.build(fresh, entry, stages))
        if failed:
            return
        again_contents = self.contents(again_name)
        fresh_contents = self.contents(fresh)
        for contents in (again_contents, fresh_contents):
            contents.pop(STAYS.get(name, ""), None)
        assert again_contents == fresh_contents
        # As `build --dry-run` has said it
        stages_done = {stage.run.stage for stage in report.done}
        assert {w.stage for w in work if w.what != MAYBE} <= stages_done <= {w.stage for w in work}
        assert not work or any(f"{part}.{name}" in w.why for w in work)


def messages(report: BuildReport) -> list[str]:
    return [failure.message for failure in report.failed]


@pytest.fixture(scope="module")
def arm(tmp_path_factory) -> Arm:
    return Arm(tmp_path_factory.mktemp("settings"))


def marked(names: Mapping[str, Any]) -> list[Any]:
    return [pytest.param(name, marks=MARKS.get(name, pytest.mark.long)) for name in names]


@pytest.mark.parametrize("name", marked(ENTRY))
def test_each_field_of_a_registry_entry_counts_after_a_build(arm, name):
    checked(arm, name, nested(name, ENTRY[name]), {})


@pytest.mark.parametrize("name", marked(STAGES))
def test_each_field_of_a_builds_configuration_counts_after_a_build(arm, name):
    checked(arm, name, {}, nested(name, STAGES[name]))


def checked(arm: Arm, name: str, entry: Mapping[str, Any], stages: Mapping[str, Any]) -> None:
    if name in REFUSED:
        with pytest.raises(UserError, match=REFUSED[name]):
            arm.build("base", entry, stages)
    else:
        arm.check(name, entry, stages)


def test_a_build_of_the_same_settings_does_nothing(arm):
    dataset = DatasetConfig(name="arm", source=str(arm.source), chunk_size=500)
    build = DatasetBuild(dataset=dataset, stages=StageConfigs(**BASE))
    assert run_build(Workspace(arm.root / "base"), [build], 1).done == []
