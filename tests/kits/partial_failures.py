"""One episode of seven fails: in each way that is known, under each annotator.

FAILURES and ANNOTATORS are the rows and columns of a table; docs/partial_failures.md says what becomes of each row.
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
from reference_pages import PARTIAL_FAILURES, PartialFailure

from annotate.config import EmbeddingsConfig, SamplesConfig, VlmConfig
from core.paths import Workspace
from pipeline.build import BuildListener, BuildReport, run_build
from pipeline.chunk import StageMoment
from pipeline.config import DatasetBuild, source_build, with_annotator
from pipeline.imports import Imported, import_annotations
from tests.kits import hdf5_writer, tiny_lerobot
from tests.kits.lake_kit import opened, say
from tests.kits.lerobot_writer import edit_info, edit_parquet, write_json_lines, write_parquet
from tests.kits.made_corpus import with_stages
from tests.kits.tiny_lerobot import CAMERA, FPS, TASKS, rows_path, signals, video_path
from tests.kits.vlm_standin import Fault, StandIn, serving
from warehouse.lake import Lake
from warehouse.lake.corrections import newest_id, reject_label

NAME = "tiny"
BAD = 3
LENGTHS = (24, 18, 20, 24, 18, 20, 18)  # frames; the grippers of all go from end to end
EVERY = tuple(range(len(LENGTHS)))
OTHERS = tuple(k for k in EVERY if k != BAD)
REFERENCES = (0, 4)  # runs that others are labelled like, one of each task
# Each label makes samples, few and quickly drawn
SAMPLES = SamplesConfig(
    min_confidence=0, min_name_confidence=0, progress_per_episode=4, actions_per_episode=2, text_demo_per_episode=1,
    visual_demo_per_episode=1, cross_view_per_episode=0, unanswerable_per_episode=0,
)  # fmt: skip
STEPS = ("Reach for it", "Bring it there")


@dataclass(frozen=True)
class Annotator:
    """`name`: in a configuration. `with_steps`: the source has some. `corrected`: what a person said after a first
    build, before anything fails. `imports`: labels from elsewhere come last. `falls_back`: where its label is rejected,
    motion's counts."""

    name: str
    with_steps: bool = False
    corrected: tuple[int, ...] = ()
    imports: bool = False
    falls_back: bool = False


ANNOTATORS = {
    "motion": Annotator("motion"),
    "native": Annotator("native", with_steps=True),
    "vlm": Annotator("vlm"),
    "transfer": Annotator("transfer", corrected=REFERENCES, falls_back=True),
    "imported": Annotator("motion", imports=True),
    "people": Annotator("motion", corrected=EVERY),
}


# Sources


def task_of(episode: int) -> int:
    """The failing episode shares its task with a reference alone: runs of a task are labelled together."""
    return int(episode in (BAD, REFERENCES[1]))


def write_lerobot(root: Path, with_steps: bool) -> Path:
    tiny_lerobot.make_dataset(root, LENGTHS)
    for k, n in enumerate(LENGTHS):
        edit_line(root, k, tasks=[TASKS[task_of(k)]])
        columns = {"task_index": pa.array([task_of(k)] * n)}
        if with_steps:
            columns["subtask_index"] = pa.array(np.arange(n) * len(STEPS) // n)
        edit_parquet(rows_path(root, k), **columns)
    if with_steps:
        features = json.loads((root / "meta/info.json").read_text())["features"]
        features["subtask_index"] = {"dtype": "int64", "shape": [1], "names": None}
        edit_info(root, features=features)
        texts = {"subtask_index": range(len(STEPS)), "__index_level_0__": STEPS}
        write_parquet(root / "meta/subtasks.parquet", texts)
    return root


def write_hdf5(root: Path, with_steps: bool) -> Path:
    """The same recordings as ALOHA stores them, with a JPEG for each frame."""
    for k, n in enumerate(LENGTHS):
        jpegs = [hdf5_writer.jpeg(picture) for picture in tiny_lerobot.pictures(k, n)]
        parts = {
            "language_instruction": TASKS[task_of(k)],
            "timestamps": np.arange(n) / FPS,
            f"observations/images/{CAMERA}": hdf5_writer.padded_rows(jpegs),
        }
        if with_steps:
            parts["subtask"] = [STEPS[frame * len(STEPS) // n] for frame in range(n)]
        with h5py.File(
            hdf5_writer.write_aloha(hdf5(root, k), k, n, cameras=(), **parts), "a"
        ) as file:
            del file["observations/qvel"]
            for name in ("observations/qpos", "action"):
                del file[name]
                file[name] = signals(k, n)
    return root


def hdf5(root: Path, episode: int) -> Path:
    return root / f"episode_{episode:03d}.hdf5"


# What fails of a source


def edit_line(root: Path, episode: int, **facts: Any) -> None:
    path = root / "meta/episodes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[episode] |= facts
    write_json_lines(path, lines)


def spoil_rows(root: Path) -> None:
    states = signals(BAD, LENGTHS[BAD])
    states[5:9, 0] = np.inf
    cells = pa.array(states.tolist(), pa.list_(pa.float32(), 3))
    edit_parquet(rows_path(root, BAD), **{"observation.state": cells})


def cut_video(root: Path) -> None:
    data = video_path(root, BAD).read_bytes()
    video_path(root, BAD).write_bytes(data[: len(data) // 2])


def remove_video(root: Path) -> None:
    video_path(root, BAD).unlink()


def shorten_video(root: Path) -> None:
    tiny_lerobot.write_video(root, BAD, LENGTHS[BAD] // 2)


def spoil_picture(root: Path) -> None:
    with h5py.File(hdf5(root, BAD), "a") as file:
        jpegs: Any = file[f"observations/images/{CAMERA}"]
        jpegs[LENGTHS[BAD] // 2] = 0


def leave_one_frame(root: Path) -> None:
    edit_line(root, BAD, length=1)
    exchange(root, length=1)


def remove_text(root: Path) -> None:
    edit_line(root, BAD, tasks=[])
    edit_parquet(rows_path(root, BAD), task_index=pa.array([len(TASKS)] * LENGTHS[BAD]))


def exchange(root: Path, length: int = LENGTHS[BAD]) -> None:
    """Another recording, of the same task."""
    tiny_lerobot.write_rows(root, BAD, length, source_episode=9)
    edit_parquet(rows_path(root, BAD), task_index=pa.array([task_of(BAD)] * length))
    tiny_lerobot.write_video(root, BAD, length, grey=150)


@dataclass(frozen=True)
class Failure:
    """How an episode comes to fail.

    spoils: changes its part of the source, which `write` wrote; before the build, or, `is_fleeting`, when its listing
    is done. fault: of the server, when it is asked about the episode. settings: of the model. rejects: a person does,
    the label. The page says what becomes of it.
    """

    name: str
    spoils: Callable[[Path], None] = lambda root: None
    write: Callable[[Path, bool], Path] = write_lerobot
    is_fleeting: bool = False
    fault: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    rejects: bool = False

    @property
    def row(self) -> PartialFailure:
        return PARTIAL_FAILURES[self.name]


FAILURES = {
    failure.name: failure
    for failure in (
        Failure("bad reply", fault="not_json"),
        Failure("cut reply", fault="cut"),
        Failure("refused reply", fault="refusal"),
        Failure("filtered reply", fault="filtered"),
        Failure("server gone", fault="gone"),
        Failure("budget spent", settings={"max_calls": 1}),
        Failure("label rejected", rejects=True),
        Failure("infinity in rows", spoil_rows),
        Failure("video cut", cut_video),
        Failure("video missing", remove_video),
        Failure("video short", shorten_video),
        Failure("picture unreadable", spoil_picture, write_hdf5),
        Failure("one frame", leave_one_frame),
        Failure("text missing", remove_text),
        Failure("source changed", exchange, is_fleeting=True),
    )
}
FIRST = next(iter(FAILURES))


# Workspaces


@dataclass
class Cell:
    """A workspace in which an episode failed; without a failure one that never had it.

    whole: the source as it would be; url: of a server that answers. outcomes: what followed of it, by what it is.
    """

    folder: Path
    annotator: Annotator
    failure: Failure | None
    build: DatasetBuild
    whole: Path
    url: str
    report: BuildReport = field(default_factory=BuildReport)
    imported: Imported | None = None
    outcomes: dict[Any, Any] = field(default_factory=dict)

    @property
    def is_labelled(self) -> bool:
        """Has the episode that failed a label all the same?"""
        failure = self.failure
        return failure is not None and (
            failure.row.is_labelled or (failure.rejects and self.annotator.falls_back)
        )

    @property
    def space(self) -> Workspace:
        return Workspace(self.folder / "workspace")

    def rows(self, sql: str) -> list[tuple]:
        with opened(self.space, read_only=True) as lake:
            return lake.rows(sql)

    def outcome(self, follows: Callable[..., Any], all_labelled: bool) -> Any:
        """What `follows` gives, asked once."""
        key = follows.__name__, all_labelled
        if key not in self.outcomes:
            folder = self.folder / f"{key[0]}-{key[1]}"
            self.outcomes[key] = follows(self, all_labelled, folder)
        return self.outcomes[key]

    def copy(self, folder: Path) -> Workspace:
        """The workspace, for changing; its source stays where it is."""
        return Workspace(Path(shutil.copytree(self.space.root, folder)))

    def moved(self, folder: Path) -> DatasetBuild:
        """The build with a copy of the source, for changing."""
        source = str(shutil.copytree(self.build.dataset.source, folder))
        dataset = self.build.dataset.model_copy(update={"source": source})
        return self.build.model_copy(update={"dataset": dataset})

    def mended(self, build: DatasetBuild) -> DatasetBuild:
        """A build after what the page says to do: its source is whole, its server answers, its budget is none."""
        shutil.copytree(self.whole, build.dataset.source, dirs_exist_ok=True)
        return with_stages(build, vlm=model_of(self.url))


class Workshop:
    """Makes cells, each once; the servers run until it is closed."""

    def __init__(self, folder: Path, servers: ExitStack) -> None:
        self.folder = folder
        self.servers = servers
        self.cells: dict[str, Cell] = {}
        self.url = servers.enter_context(serving(StandIn())).url

    def reference(self, name: str, write: Callable[[Path, bool], Path]) -> Cell:
        """The same source, of which the build leaves the episode out."""
        key = f"{name}-{write.__name__}"
        if key not in self.cells:
            whole = self.folder / f"source-{key}"
            write(whole, ANNOTATORS[name].with_steps)
            build = build_of(whole, name, self.url).model_copy(update={"episodes": OTHERS})
            self.cells[key] = self._made(
                Cell(self.folder / key, ANNOTATORS[name], None, build, whole, self.url)
            )
        return self.cells[key]

    def cell(self, name: str, failure_name: str) -> Cell:
        key = f"{name}-{failure_name}"
        if key not in self.cells:
            failure = FAILURES[failure_name]
            reference = self.reference(name, failure.write)
            folder = self.folder / key
            source = folder / "source"
            shutil.copytree(reference.whole, source)
            url = self.url
            if failure.fault:
                server = StandIn(faults=[Fault(failure.fault, about=TASKS[task_of(BAD)])])
                url = self.servers.enter_context(serving(server)).url
            if failure.row.asks and failure_name != FIRST:
                # After the first failure the next build asks again, and fails otherwise
                self.cell(name, FIRST).copy(folder / "workspace")
            elif failure.row.asks:
                # The others' answers are there: which are under way when a server goes is chance
                shutil.copytree(reference.space.responses, folder / "workspace/responses")
            build = build_of(source, name, url, **failure.settings)
            cell = Cell(folder, ANNOTATORS[name], failure, build, reference.whole, self.url)
            self.cells[key] = self._made(cell)
        return self.cells[key]

    def _made(self, cell: Cell) -> Cell:
        annotator = cell.annotator
        failure = cell.failure or Failure("text missing")  # without what spoils it: nothing
        statements: list[Callable[[Lake], None]] = []
        if annotator.corrected:
            # A person's own label is taken back, not rejected
            has_it = cell.failure is not None and not failure.rejects
            episodes = set(annotator.corrected) & set((OTHERS, EVERY)[has_it])
            statements.append(lambda lake: correct(lake, sorted(episodes)))
        if failure.rejects:
            statements.append(reject)
        for state in statements:
            run_build(cell.space, [cell.build], workers=1)
            with opened(cell.space) as lake:
                state(lake)
        root = Path(cell.build.dataset.source)
        listener = BuildListener()
        if failure.is_fleeting:
            listener = Exchanger(failure, root)
        else:
            failure.spoils(root)
        cell.report = run_build(cell.space, [cell.build], 1, listener)
        if annotator.imports:
            cell.imported = imported(cell)
        return cell


class Exchanger(BuildListener):
    """Spoils the source when the pass over its pictures begins, after it was listed; once."""

    def __init__(self, failure: Failure, root: Path) -> None:
        self.failure: Failure | None = failure
        self.root = root

    def moment(self, moment: StageMoment) -> None:
        if self.failure:
            self.failure.spoils(self.root)
            self.failure = None


def build_of(source: Path, name: str, url: str, **settings: Any) -> DatasetBuild:
    """All in one chunk, under an open licence."""
    build = with_annotator(source_build(source, NAME, None, None), ANNOTATORS[name].name)
    facts = {"license": "cc-by-4.0", "chunk_size": len(LENGTHS)}
    build = build.model_copy(update={"dataset": build.dataset.model_copy(update=facts)})
    unseen = EmbeddingsConfig(when="never")
    return with_stages(build, embeddings=unseen, samples=SAMPLES, vlm=model_of(url, **settings))


def model_of(url: str, **settings: Any) -> VlmConfig:
    limits = {"runs_per_task": "all", "max_concurrency": 2, "max_attempts": 1}
    return VlmConfig(model="stand-in", endpoints=(url,), **limits | settings)


def correct(lake: Lake, episodes: Sequence[int]) -> None:
    """A person says that each has STEPS, the second from its middle on."""
    for episode in episodes:
        n = LENGTHS[episode]
        spans = ((STEPS[0], 0, n // 2), (STEPS[1], n // 2, n))
        keys = ("name", "start_frame", "end_frame")
        say(lake, [dict(zip(keys, span, strict=True)) for span in spans], episode)


def reject(lake: Lake) -> None:
    """A person rejects the label of the episode that counts."""
    (run,) = lake.column("SELECT label_run FROM active_runs WHERE episode_index = ?", [BAD])
    reject_label(lake, NAME, BAD, run, author="ada", follows=newest_id(lake, NAME, BAD))


def imported(cell: Cell) -> Imported:
    """What a file says of each frame of all episodes, whatever has failed."""
    path = cell.folder / "steps.jsonl"
    lines = []
    for k, n in enumerate(LENGTHS):
        lines += [
            {"episode_index": k, "frame_id": frame, "sub_task": STEPS[2 * frame // n]}
            for frame in range(n)
        ]
    write_json_lines(path, lines)
    with opened(cell.space) as lake:
        return import_annotations(lake, path, NAME)
