"""One episode fails; the others are built, whoever labels them: FAILURES x ANNOTATORS x what follows of a build.

A cell of the table holds where the others are complete and equal to those of a build without that episode, and a
finding names it. A few cells are tried always: each failure with the next annotator, each thing that follows once.
"""

import json
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import dagster as dg
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reference_pages import PARTIAL_FAILURES, PartialFailure

from annotate.config import EmbeddingsConfig, SamplesConfig, VlmConfig
from core.errors import UserError
from core.paths import Workspace
from pipeline.build import BuildListener, BuildReport, run_build
from pipeline.config import DatasetBuild, source_build, with_annotator
from pipeline.imports import Imported, import_annotations
from pipeline.release import release_step
from pipeline.reward_model import reward_model_step
from pipeline.stage import StageMoment
from tests.assets.defs.corpus.test_assets import ASSETS, CHAIN, materialize
from tests.kits import hdf5_writer, tiny_lerobot
from tests.kits.cli_kit import run_here
from tests.kits.files import files_of
from tests.kits.lake_kit import opened, say
from tests.kits.laptop_kit import recipe
from tests.kits.lerobot_writer import edit_info, edit_parquet, write_json_lines, write_parquet
from tests.kits.made_corpus import Made, with_stages
from tests.kits.tiny_lerobot import CAMERA, FPS, TASKS, rows_path, signals, video_path
from tests.kits.vlm_standin import Fault, StandIn, serving
from training.laptop.model import WEIGHTS
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.export import MANIFEST
from warehouse.exports.options import Selection
from warehouse.lake import Lake, open_lake
from warehouse.lake.corrections import newest_id, reject_label
from warehouse.releases.release import create_release, get_release

# One episode of seven fails: in each way that is known, under each annotator


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
    """`name`: in a configuration. `with_steps`: the source has some. `corrected`: what a person
    said after a first build, before anything fails. `imports`: labels from elsewhere come last.
    `falls_back`: where its label is rejected, motion's counts."""

    name: str
    with_steps: bool = False
    corrected: tuple[int, ...] = ()
    imports: bool = False
    falls_back: bool = False

    @property
    def is_slow(self) -> bool:
        return bool(self.corrected or self.imports)


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
    """The failing episode shares its task with a reference alone: runs of a task are labelled
    together."""
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

    spoils: changes its part of the source, which `write` wrote; before the build, or,
    `is_fleeting`, when its listing is done. fault: of the server, when it is asked about the
    episode. settings: of the model. rejects: a person does, the label. The page says what becomes
    of it.
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

    whole: the source as it would be; url: of a server that answers. outcomes: what followed of it,
    by what it is.
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
        return open_lake(self.space).rows(sql)

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
        """A build after what the page says to do: its source is whole, its server answers, its
        budget is none."""
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


# The tests


SHARDS = "SELECT split, shard, sha256 FROM shards ORDER BY 1, 2"
# Kinds that go with a dataset which is there, so that an episode without a label has rows that say nothing of it
KEEPS = ("weights", "rabc", "robometer")
# Exports of labels, which those of samples rest on as they were made
OF_A_LABEL_RUN = ("frame-signals", "robo-dopamine", "annotations-json", "robometer", "opensarm")
FACTS = re.compile(rb'"(ts|snapshot|identity)": *("[^"]*"|\d+)')  # of a moment, not of the data


# What follows of a build: each gives what it comes to for the other episodes, of a cell or of a build without the
# episode, which has to be the same. `all_labelled`: the failing one has a label, too, so that it is cut out


def samples(cell: Cell, all_labelled: bool, folder: Path) -> Any:
    tables = ("episode_labels", "segments", "progress", "samples", "splits")
    sql = "FROM {} WHERE episode_index <> {} ORDER BY ALL"
    labelled = cell.rows("SELECT DISTINCT episode_index FROM samples ORDER BY 1")
    if cell.failure:
        assert labelled == [(k,) for k in (OTHERS, EVERY)[all_labelled]]
        check_findings(cell)
    return {table: cell.rows(sql.format(table, BAD)) for table in tables}


def check_findings(cell: Cell) -> None:
    """The failure is named, and nothing else."""
    failure = cell.failure
    assert failure
    assert cell.report.failed == []
    assert cell.report.is_partial == (failure.row.exit_code == 3)
    severity = ("unusable", "warning")[failure.row.is_usable]
    sql = f"SELECT DISTINCT severity FROM findings WHERE (episode_index, reason) = ({BAD}, '{failure.row.code}')"
    assert cell.rows(sql) == [(severity,)]
    left_out = cell.rows("SELECT dataset, episode_index, reason, severity FROM quarantine")
    assert left_out == [(NAME, BAD, failure.row.code, severity)] * (not cell.is_labelled)
    unlabelled = cell.rows("SELECT unlabelled FROM coverage")
    assert unlabelled == [(int(failure.row.is_usable and not cell.is_labelled),)]
    if cell.imported:
        assert cell.imported.episodes == len(OTHERS) + failure.row.is_usable
        refused = [text.split(":")[0] for text in cell.imported.refused]
        assert refused == [f"episode {BAD}"] * (not failure.row.is_usable)


def shards(cell: Cell, all_labelled: bool, folder: Path) -> Any:
    return entries(cell.space, all_labelled)


def entries(space: Workspace, all_labelled: bool) -> Any:
    """The listed tars; where the episode is in them, all but its own entry."""
    with opened(space) as lake:
        listed = lake.rows(SHARDS)
        if not all_labelled:
            return listed
    members = {}
    for split, shard, _ in listed:
        with tarfile.open(space.shard(split, shard, None)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file
                members[member.name] = file.read()
    return {
        name: data for name, data in members.items() if not name.startswith(f"{NAME}-{BAD:06d}.")
    }


def release(cell: Cell, all_labelled: bool, folder: Path) -> Any:
    space = cell.copy(folder)
    with opened(space) as lake:
        files = [(s.split, s.shard, s.sha256) for s in create_release(lake, "r1").shard_list]
        assert files == lake.rows(SHARDS)
    return entries(space, all_labelled)


def exports(cell: Cell, all_labelled: bool, folder: Path) -> Any:
    """By kind the content of its files, of the whole dataset."""
    found = {}
    with opened(cell.space) as lake:
        for name, kind in EXPORT_KINDS.items():
            label_run = None
            has_it = all_labelled
            if cell.imported and name in OF_A_LABEL_RUN:
                label_run = cell.imported.label_run
                has_it |= bool(cell.failure and cell.failure.rejects)  # not this label
            episodes = (None, OTHERS)[has_it]
            selection = Selection(datasets=(NAME,), episodes=episodes, label_run=label_run)
            place = folder.joinpath(name, *["file"] * kind.is_file)
            try:
                kind.export(lake, selection, place, kind.read_options({}))
            except UserError as e:
                found[name] = str(e)
                continue
            found[name] = contents(folder / name, name)
            assert found[name], name
    refusals = [text for text in found.values() if isinstance(text, str)]
    assert all("is no LeRobot dataset" in text for text in refusals), refusals
    return found


def contents(folder: Path, kind: str) -> dict[str, object]:
    """Rows of tables, hashes of other files; a recording of Rerun has ids and times of its own."""
    found: dict[str, object] = {}
    for name, data in files_of(folder).items():
        if data[:4] == b"PAR1":
            table = pq.read_table(folder / name)
            # Places in the dataset, in which the failing episode may be shorter
            rows = table.select([c for c in table.column_names if c != "index"]).to_pylist()
            found[name] = repr([row for row in rows if kind not in KEEPS or is_of_others(row)])
        elif name not in (MANIFEST, "README.md") and not (kind in KEEPS and f"{BAD:06d}" in name):
            found[name] = None if kind == "rerun" else sha256(FACTS.sub(b"", data)).hexdigest()
    return found


def is_of_others(row: dict[str, object]) -> bool:
    """Of a table of KEEPS; LeRobot's weights have rows of no episode beside."""
    return row.get("episode_index") not in (BAD, -1) and f"/{BAD:06d}/" not in str(row.get("id"))


def train_laptop(cell: Cell, all_labelled: bool, folder: Path) -> Any:
    with opened(cell.copy(folder)) as lake:
        release_step(lake, "r1")
        outcome = reward_model_step(lake, get_release(lake, "r1"), recipe(train={"steps": 2}))
        weights = (outcome.files[0] / WEIGHTS).read_bytes()
    assert weights
    return all_labelled or sha256(weights).hexdigest()


def dagster_checks(cell: Cell, all_labelled: bool, folder: Path) -> Any:
    """The assets that rest on labels, each made again alone, and what their checks say."""
    made = Made(cell.copy(folder), cell.build, cell.report)
    evaluations = []
    with dg.DagsterInstance.ephemeral() as instance:
        if cell.failure and cell.failure.is_fleeting:
            assert materialize([ASSETS["episodes"]], NAME, made, instance).success
            materialize((*CHAIN, ASSETS["reasoning"]), f"{NAME}:00000", made, instance)
        for name in ("progress", "samples", "shards"):
            result = materialize([ASSETS[name]], f"{NAME}:00000", made, instance)
            assert result.success, name
            evaluations += result.get_asset_check_evaluations()
    assert all(e.passed for e in evaluations if e.blocking)
    return [(e.check_name, e.passed) for e in evaluations]


def nightly(cell: Cell, all_labelled: bool, folder: Path) -> Any:
    space = cell.copy(folder)
    code = run_here("nightly", "--workers", 1, "--workspace", space.root)
    if cell.failure:
        assert code == cell.failure.row.exit_code * (not cell.failure.is_fleeting)
    with opened(space) as lake:
        assert lake.rows(SHARDS.replace("shards", "release_shards")) == lake.rows(SHARDS)
    return entries(space, all_labelled)


def next_build(cell: Cell, all_labelled: bool, folder: Path) -> Any:
    """It makes again only what lacks an answer."""
    space = cell.copy(folder / "workspace")
    failure = cell.failure
    build = cell.moved(folder / "source")
    again = run_build(space, [build], workers=1)
    same = entries(space, all_labelled)
    if failure and not failure.is_fleeting:
        assert bool(again.done) == failure.row.asks
    if failure and not failure.rejects:
        mended = run_build(space, [cell.mended(build)], workers=1)
        assert (mended.failed, mended.is_partial) == ([], False)
        with opened(space) as lake:
            assert lake.column("SELECT DISTINCT episode_index FROM samples ORDER BY 1") == [*EVERY]
            assert lake.rows("FROM quarantine") == []
    return same


FOLLOWS: tuple[Callable[[Cell, bool, Path], Any], ...] = (
    samples, shards, release, exports, train_laptop, dagster_checks, nightly, next_build,
)  # fmt: skip

# They read a source that changed anew, so that what it holds now has a label
RENEWING = (dagster_checks, nightly, next_build)


# The table


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with ExitStack() as servers, pytest.MonkeyPatch.context() as patch:
        patch.setattr("annotate.model_client.client.FIRST_PAUSE_S", 0.002)
        patch.setattr("annotate.model_client.client.LONGEST_PAUSE_S", 0.02)
        yield Workshop(tmp_path_factory.mktemp("partial"), servers)


def can_happen(failure: Failure, annotator: Annotator) -> bool:
    """A model alone replies; the build after a person's statement does not look at the pictures
    again."""
    if failure.row.asks:
        return annotator.name == "vlm"
    return not (failure.is_fleeting and annotator.corrected)


def cells() -> Iterator[object]:
    """(failure, annotator, follows); of each failure one annotator is tried always, of every second
    by one thing more than samples. Slow: several builds, Dagster, all exports. Long: a model that
    learns of shards which are equal, and replies that fail as the first failure's does, which
    model_client/test_reading.py tells apart."""
    for k, (failure_name, failure) in enumerate(FAILURES.items()):
        names = [name for name, annotator in ANNOTATORS.items() if can_happen(failure, annotator)]
        is_reply = failure.fault not in ("", "gone") and failure_name != FIRST
        for name in names:
            for follows in FOLLOWS:
                further = FOLLOWS[(1 + k // 2 % (len(FOLLOWS) - 1)) * (k % 2 == 0)]
                is_next = follows in (samples, further) and name == names[k % len(names)]
                marks = []
                if not is_next or is_reply or follows is train_laptop:
                    marks = [pytest.mark.long]
                elif ANNOTATORS[name].is_slow or follows in (exports, dagster_checks):
                    marks = [pytest.mark.slow]
                key = "-".join((failure_name, name, follows.__name__)).replace(" ", "_")
                yield pytest.param(failure_name, name, follows, marks=marks, id=key)


@pytest.mark.parametrize(("failure_name", "name", "follows"), cells())
def test_the_others_are_as_without_it(
    failure_name: str, name: str, follows: Callable[..., Any], workshop: Workshop, tmp_path: Path
) -> None:
    failure = FAILURES[failure_name]
    cell = workshop.cell(name, failure_name)
    reference = workshop.reference(name, failure.write)
    all_labelled = cell.is_labelled or (failure.is_fleeting and follows in RENEWING)
    expected = reference.outcome(follows, all_labelled)
    outcome = follows(cell, all_labelled, tmp_path / "cell")
    if isinstance(outcome, dict):  # of many parts: the names of those that differ say more
        assert [
            k for k in outcome.keys() | expected.keys() if outcome.get(k) != expected.get(k)
        ] == []
    assert outcome == expected


def test_the_page_has_all_rows() -> None:
    assert PARTIAL_FAILURES.keys() == FAILURES.keys()
