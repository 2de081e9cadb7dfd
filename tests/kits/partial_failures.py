"""One episode of seven fails: in each way that is known, under each annotator; the workspaces, and what they rest on.

FAILURES and ANNOTATORS are the table's rows and columns; docs/partial_failures.md says the same to people.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

from annotate.config import EmbeddingsConfig, SamplesConfig
from core.paths import Workspace
from pipeline.build import BuildReport, run_build
from pipeline.config import DatasetBuild, source_build, with_annotator
from pipeline.imports import Imported, import_annotations
from tests.kits import hdf5_writer, tiny_lerobot
from tests.kits.lake_kit import opened, say
from tests.kits.lerobot_writer import edit_parquet, write_json_lines, write_parquet
from tests.kits.made_corpus import with_stages
from tests.kits.tiny_lerobot import FPS, rows_path, signals, video_path
from tests.kits.vlm_standin import Fault, StandIn, serving
from warehouse.lake.corrections import reject_label

NAME = "tiny"
BAD = 3
LENGTHS = (24, 18, 20, 24, 18, 20, 18)
EVERY = tuple(range(len(LENGTHS)))
OTHERS = tuple(k for k in EVERY if k != BAD)
REFERENCES = (0, 4)  # runs that others are labelled like, one of each task
BAD_TASK = "open the drawer"
TASKS = ("put the cube on the plate", BAD_TASK)
# Each label makes samples, few and quickly drawn
SAMPLES = SamplesConfig(
    min_confidence=0, min_name_confidence=0, progress_per_episode=4, actions_per_episode=2, text_demo_per_episode=1,
    visual_demo_per_episode=1, cross_view_per_episode=0, unanswerable_per_episode=0,
)  # fmt: skip
STEPS = ("reach for it", "move it")
PEOPLES_STEPS = ("Reach for it", "Bring it there")


@dataclass(frozen=True)
class Annotator:
    """How a dataset is built for its labels.

    name: as the configuration has it. with_steps: the source brings steps. corrected: episodes that a person corrected
    after a first build, which is before an episode fails. imports: labels from elsewhere come last.
    """

    name: str
    with_steps: bool = False
    corrected: tuple[int, ...] = ()
    imports: bool = False


ANNOTATORS = {
    "motion": Annotator("motion"),
    "native": Annotator("native", with_steps=True),
    "vlm": Annotator("vlm"),
    "transfer": Annotator("transfer", corrected=REFERENCES),
    "imported": Annotator("motion", imports=True),
    "people": Annotator("motion", corrected=EVERY),
}


# Sources


def task_of(episode: int) -> int:
    """The failing episode's task is that of one other run: of nothing else do labels of runs of a task rest on it."""
    return int(episode in (BAD, REFERENCES[1]))


def write_lerobot(root: Path, with_steps: bool) -> Path:
    tiny_lerobot.make_dataset(root, LENGTHS)
    lines = [
        {"episode_index": k, "tasks": [TASKS[task_of(k)]], "length": n}
        for k, n in enumerate(LENGTHS)
    ]
    write_json_lines(root / "meta/episodes.jsonl", lines)
    write_json_lines(
        root / "meta/tasks.jsonl", [{"task_index": k, "task": t} for k, t in enumerate(TASKS)]
    )
    for k, n in enumerate(LENGTHS):
        columns = {"task_index": pa.array([task_of(k)] * n)}
        if with_steps:
            columns["subtask_index"] = pa.array(np.arange(n) * len(STEPS) // n)
        edit_parquet(rows_path(root, k), **columns)
    if with_steps:
        info = json.loads((root / "meta/info.json").read_text())
        info["features"]["subtask_index"] = {"dtype": "int64", "shape": [1], "names": None}
        (root / "meta/info.json").write_text(json.dumps(info))
        steps = {"subtask_index": range(len(STEPS)), "__index_level_0__": STEPS}
        write_parquet(root / "meta/subtasks.parquet", steps)
    return root


def hdf5_path(root: Path, episode: int) -> Path:
    return root / f"episode_{episode:03d}.hdf5"


def write_hdf5(root: Path, with_steps: bool) -> Path:
    """The same recordings as ALOHA stores them, with a JPEG for each frame."""
    for k, n in enumerate(LENGTHS):
        jpegs = [hdf5_writer.jpeg(picture) for picture in tiny_lerobot.pictures(k, n)]
        stored = {
            "language_instruction": TASKS[task_of(k)],
            "timestamps": np.arange(n) / FPS,
            "observations/images/front": hdf5_writer.padded_rows(jpegs),
        }
        if with_steps:
            stored["subtask"] = [STEPS[frame * len(STEPS) // n] for frame in range(n)]
        path = hdf5_writer.write_aloha(hdf5_path(root, k), k, n, cameras=(), **stored)
        with h5py.File(path, "a") as file:
            for name in ("observations/qpos", "observations/qvel", "action"):
                del file[name]
            file["observations/qpos"] = signals(k, n)
            file["action"] = signals(k, n)
    return root


# What fails


def nan_rows(root: Path) -> None:
    states = signals(BAD, LENGTHS[BAD])
    states[5:9, 0] = np.nan
    edit_parquet(
        rows_path(root, BAD),
        **{"observation.state": pa.array(states.tolist(), pa.list_(pa.float32(), 3))},
    )


def cut_video(root: Path) -> None:
    data = video_path(root, BAD).read_bytes()
    video_path(root, BAD).write_bytes(data[: len(data) // 2])


def missing_video(root: Path) -> None:
    video_path(root, BAD).unlink()


def short_video(root: Path) -> None:
    tiny_lerobot.write_video(root, BAD, LENGTHS[BAD] // 2)


def unreadable_picture(root: Path) -> None:
    with h5py.File(hdf5_path(root, BAD), "a") as file:
        stored = file["observations/images/front"]
        stored[LENGTHS[BAD] // 2] = 0


def one_frame(root: Path) -> None:
    rewritten(root, length=1)
    tiny_lerobot.write_rows(root, BAD, 1)
    edit_parquet(rows_path(root, BAD), task_index=pa.array([task_of(BAD)]))
    tiny_lerobot.write_video(root, BAD, 1)


def missing_text(root: Path) -> None:
    rewritten(root, tasks=[])
    edit_parquet(rows_path(root, BAD), task_index=pa.array([len(TASKS)] * LENGTHS[BAD]))


def rewritten(root: Path, **changes: Any) -> None:
    """Other facts in the line of the episode."""
    path = root / "meta/episodes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[BAD] |= changes
    write_json_lines(path, lines)


def rejected_label(lake: Any) -> None:
    sql = "SELECT label_run FROM active_runs WHERE episode_index = ?"
    (run,) = lake.column(sql, [BAD])
    follows = lake.column(
        "SELECT correction_id FROM current_corrections WHERE episode_index = ?", [BAD]
    )
    reject_label(lake, NAME, BAD, run, author="ada", follows=next(iter(follows), None))


@dataclass(frozen=True)
class Failure:
    """What fails for one episode.

    reason: code of the finding that names it. is_usable: it still counts as an episode of the corpus. is_labelled: it
    has a label all the same. exit_code: of the build. spoils: its part of the source. fault: what the server does when
    it is asked about the episode. settings: of the model, beside.
    """

    reason: str
    is_usable: bool = False
    is_labelled: bool = False
    exit_code: int = 0
    write: Callable[[Path, bool], Path] = write_lerobot
    spoils: Callable[[Path], None] | None = None
    fault: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    rejects: bool = False

    @property
    def asks(self) -> bool:
        """Is it a model that fails?"""
        return bool(self.fault or self.settings)


def _reply(reason: str, fault: str, **settings: Any) -> Failure:
    return Failure(reason, is_usable=True, exit_code=3, fault=fault, settings=settings)


FAILURES = {
    "bad reply": _reply("bad_reply", "not_json"),
    "cut reply": _reply("cut", "cut"),
    "refused reply": _reply("refusal", "refusal"),
    "filtered reply": _reply("filtered", "filtered"),
    "server gone": _reply("refused", "gone"),
    "budget spent": _reply("refused", "", max_calls=1),
    "label rejected": Failure("label_rejected", is_usable=True, rejects=True),
    "NaN in rows": Failure("nan_state", spoils=nan_rows),
    "video cut": Failure("undecodable_video", spoils=cut_video),
    "video missing": Failure("no_video", spoils=missing_video),
    "video short": Failure("frame_count", spoils=short_video),
    "picture unreadable": Failure("undecodable_video", write=write_hdf5, spoils=unreadable_picture),
    "one frame": Failure("too_short", spoils=one_frame),
    "text missing": Failure("no_task", is_usable=True, is_labelled=True, spoils=missing_text),
}


# Workspaces


@dataclass
class Cell:
    """A workspace in which an episode failed, or, without a failure, one that never had it: the reference."""

    folder: Path
    annotator: Annotator
    failure: Failure | None
    build: DatasetBuild
    report: BuildReport
    imported: Imported | None = None

    @property
    def space(self) -> Workspace:
        return Workspace(self.folder / "workspace")

    def rows(self, sql: str) -> list[tuple]:
        with opened(self.space, read_only=True) as lake:
            return lake.rows(sql)

    def copy(self, folder: Path) -> Workspace:
        """The workspace, for changing; its source stays where it is."""
        return Workspace(Path(shutil.copytree(self.space.root, folder)))


class Workshop:
    """Makes cells, each once; the servers run until it is closed."""

    def __init__(self, folder: Path, servers: ExitStack) -> None:
        self.folder = folder
        self.servers = servers
        self.cells: dict[tuple[str, str], Cell] = {}
        self.references: dict[tuple[str, str], Cell] = {}
        self.sources: dict[tuple[str, bool], Path] = {}
        self.healthy = servers.enter_context(serving(StandIn()))

    def source(self, write: Callable[[Path, bool], Path], annotator: Annotator) -> Path:
        """The whole source, not for changing."""
        key = write.__name__, annotator.with_steps
        if key not in self.sources:
            self.sources[key] = write(self.folder / "sources" / f"{key[0]}-{key[1]}", key[1])
        return self.sources[key]

    def build(
        self,
        source: Path,
        annotator: Annotator,
        url: str,
        settings: Mapping[str, Any] | None = None,
    ) -> DatasetBuild:
        build = source_build(source, NAME, None, None)
        facts = {"license": "cc-by-4.0", "chunk_size": len(LENGTHS)}
        build = build.model_copy(update={"dataset": build.dataset.model_copy(update=facts)})
        build = with_stages(build, embeddings=EmbeddingsConfig(when="never"), samples=SAMPLES)
        build = with_annotator(build, annotator.name, [url], "stand-in")
        changes = {
            "runs_per_task": "all",
            "max_concurrency": 2,
            "max_attempts": 1,
            **(settings or {}),
        }
        return with_stages(build, vlm=build.stages.vlm.model_copy(update=changes))

    def reference(self, name: str, write: Callable[[Path, bool], Path]) -> Cell:
        """The same source without the episode: the build leaves it out."""
        key = name, write.__name__
        if key not in self.references:
            annotator = ANNOTATORS[name]
            folder = self.folder / "references" / "-".join(key)
            build = self.build(self.source(write, annotator), annotator, self.healthy.url)
            build = build.model_copy(update={"episodes": OTHERS})
            self.references[key] = self._made(folder, annotator, None, build)
        return self.references[key]

    def cell(self, name: str, failure_name: str) -> Cell:
        key = name, failure_name
        if key not in self.cells:
            self.cells[key] = self._failed(self.folder / "cells" / "-".join(key), *key)
        return self.cells[key]

    def _failed(self, folder: Path, name: str, failure_name: str) -> Cell:
        annotator = ANNOTATORS[name]
        failure = FAILURES[failure_name]
        source = shutil.copytree(self.source(failure.write, annotator), folder / "source")
        url = self.healthy.url
        if failure.fault:
            server = StandIn(faults=[Fault(failure.fault, about=BAD_TASK)])
            url = self.servers.enter_context(serving(server)).url
        if failure.asks:
            # What was answered about the others is kept: which of them are under way when a server goes is chance
            kept = self.reference(name, failure.write).space.responses
            shutil.copytree(kept, folder / "workspace" / "responses")
        build = self.build(source, annotator, url, failure.settings)
        return self._made(folder, annotator, failure, build)

    def _made(
        self, folder: Path, annotator: Annotator, failure: Failure | None, build: DatasetBuild
    ) -> Cell:
        space = Workspace(folder / "workspace")
        if annotator.corrected or (failure and failure.rejects):
            assert run_build(space, [build], workers=1).failed == []
            with opened(space) as lake:
                for k in annotator.corrected:
                    if build.episodes is None or k in build.episodes:
                        correct(lake, k)
                if failure and failure.rejects:
                    rejected_label(lake)
        if failure and failure.spoils:
            failure.spoils(Path(build.dataset.source))
        report = run_build(space, [build], workers=1)
        cell = Cell(folder, annotator, failure, build, report)
        if annotator.imports:
            cell.imported = imported(cell)
        return cell


def correct(lake: Any, episode: int) -> None:
    n = LENGTHS[episode]
    half = n // 2
    steps = [
        {"name": PEOPLES_STEPS[0], "start_frame": 0, "end_frame": half},
        {"name": PEOPLES_STEPS[1], "start_frame": half, "end_frame": n},
    ]
    say(lake, steps, episode, NAME)


def imported(cell: Cell) -> Imported:
    """What a file says of all episodes, frame by frame, whatever has failed since."""
    lines: Sequence[dict[str, Any]] = [
        {"episode_index": k, "frame_id": frame, "sub_task": PEOPLES_STEPS[2 * frame // n]}
        for k, n in enumerate(LENGTHS)
        for frame in range(n)
    ]
    write_json_lines(cell.folder / "steps.jsonl", lines)
    with opened(cell.space) as lake:
        return import_annotations(lake, cell.folder / "steps.jsonl", NAME)
