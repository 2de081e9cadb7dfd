"""Which episodes an export takes, and the lake as it was at that moment; and their sources, read again.

An export is a pure function of a snapshot of the lake, a selection and options.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache, partial
from itertools import groupby, islice
from typing import Any

import numpy as np
import pyarrow as pa

from annotate.quality import ASSUMED
from core.domain.label import Episode, Label
from core.domain.label_run import GateCounts, LabelGate
from core.errors import UserError
from core.tables import SPLITS
from core.values import grouped
from ingest.episode import EpisodeData, EpisodeRecord, TimedPicture, record_from_row
from ingest.formats import LEROBOT, Format
from ingest.formats.lerobot_meta import read_info
from ingest.reasons import DataError
from ingest.registry import DatasetConfig
from ingest.source import format_of
from ingest.sources.files import Source, cache_folder
from warehouse.exports.options import KindSettings, Selection
from warehouse.lake import Lake, content_key
from warehouse.lake.acceptances import runs_with
from warehouse.lake.connection import temp_table
from warehouse.lake.statements import taken_down
from warehouse.lake.stored import EPISODES_SQL, dataset_gates, episode_from_row, labels_of
from warehouse.measured import MeasuredSource
from warehouse.releases.contents import MOST_LISTED, classify, held_episodes_sql, listed_numbers
from warehouse.releases.release import get_release
from warehouse.sql_process import LakeState, SqlProcess

FORMAT = 1  # of the manifest
KEPT_EPISODES = 64  # of a dataset, whose rows are in memory
QUERY_WORDS = ("select ", "with ", "from ", "(select ")
WHERE_MEMORY, WHERE_S = "4GB", 600.0  # of a user's condition on episodes

FITTING_SQL = f"""
    SELECT * FROM ({EPISODES_SQL})
    WHERE (len($1::VARCHAR[]) = 0 OR list_contains($1, dataset))
      AND ($2::BIGINT[] IS NULL OR list_contains($2, episode_index))
      AND (len($3::VARCHAR[]) = 0 OR list_contains($3, split))
    ORDER BY dataset, episode_index"""


def counted(count: int, text: str) -> list[str]:
    """A note on how many of something there are; none where there are none."""
    return [f"{count} {text}"] if count else []


def outcome_assumed(episode: Episode) -> bool | None:
    """Does its label take it for complete though nobody says how it ended? None without a label."""
    if episode.label_run is None:
        return None
    return episode.end_by == ASSUMED


def as_sure(episode: Episode, gate: LabelGate) -> Episode:
    """The episode with what of its label is sure enough."""
    if episode.label_run is None:
        return episode
    if not gate.admits(episode.confidence):
        return replace(episode, label_run=None, is_unsure=True)
    is_sure_of_names = gate.admits_names(episode.confidence, is_named=True)
    return replace(episode, sure_of_names=is_sure_of_names)


@dataclass(frozen=True)
class Selected:
    """The episodes of a selection in order of (dataset, episode_index), and the lake as it was at `snapshot`.

    The lake's connection has them as the temporary table `selected` (dataset, episode_index), too.

    `left_out` says in sentences what was selected and must not be given on. `content` is the release's hash.
    """

    lake: Lake = field(repr=False)
    selection: Selection
    snapshot: int
    content: str | None
    episodes: tuple[Episode, ...]
    left_out: tuple[str, ...]
    licences: Mapping[str, str | None]
    gates: Mapping[str, LabelGate] = field(default_factory=dict)

    @cached_property
    def by_dataset(self) -> dict[str, list[Episode]]:
        """The episodes of each dataset, in order."""
        return grouped((e.dataset, e) for e in self.episodes)

    @property
    def datasets(self) -> list[str]:
        return sorted(self.by_dataset)

    @property
    def title(self) -> str:
        """What the export is of, in words."""
        return self.selection.release or f"snapshot {self.snapshot}"

    def chunks(self) -> Iterator[tuple[str, int, list[Episode]]]:
        """(dataset, chunk, its episodes), in order."""
        of_chunks = groupby(self.episodes, key=lambda e: (e.dataset, e.chunk))
        return ((dataset, chunk, list(episodes)) for (dataset, chunk), episodes in of_chunks)

    def identity(self, kind: str, options: KindSettings) -> str:
        """What the bytes of an export depend on, hashed."""
        episodes = [
            [e.dataset, e.episode_index, e.label_run, e.content_hash] for e in self.episodes
        ]
        parts = [kind, FORMAT, self.snapshot, self.selection.stated(), options.stated(), episodes]
        return content_key(json.dumps(parts, sort_keys=True, default=str))

    def facts(self) -> dict[str, Any]:
        """The part of the manifest that says where the data came from."""
        return {
            "release": self.selection.release,
            "snapshot": self.snapshot,
            "content": self.content,
            "selection": self.selection.stated(),
            "datasets": [self._dataset_facts(dataset) for dataset in self.datasets],
            "label_runs": label_runs(self.lake, self.active_runs),
            "left_out": list(self.left_out),
        }

    @property
    def active_runs(self) -> list[str]:
        """The label runs of the episodes' active labels, in order."""
        return sorted({e.label_run for e in self.episodes if e.label_run})

    def _dataset_facts(self, dataset: str) -> dict[str, Any]:
        episodes = self.by_dataset[dataset]
        counts = self._counts(dataset)
        return {
            "dataset": dataset,
            "license": self.licences.get(dataset),
            "episodes": len(episodes),
            "frames": sum(e.num_frames for e in episodes),
            "labelled_episodes": sum(e.label_run is not None for e in episodes),
            **asdict(counts.gate),
            **counts.numbers(),
        }

    def _counts(self, dataset: str) -> GateCounts:
        """Of its labels, those that are left out as a whole, too."""
        episodes = self.by_dataset[dataset]
        labels = [e for e in episodes if e.label_run is not None or e.is_unsure]
        gate = self.gates.get(dataset, LabelGate())
        return GateCounts(gate, [(e.confidence, e.named is not False) for e in labels])

    def labelled(self) -> "Selected":
        """Without episodes that have no label, unless they were named by their numbers. Raises UserError for none."""
        if self.selection.episodes is not None:
            return self
        labelled = {e.key for e in self.episodes if e.label_run is not None or e.is_unsure}
        remedy = "proccorpus show quarantine says why; --episodes N takes one all the same"
        return self.only(labelled, f"without a label ({remedy})")

    def only(self, keys: Collection[tuple[str, int]], reason: str) -> "Selected":
        """These episodes alone; `reason` says of the others what they are. Raises UserError where none is left."""
        other_keys = [e.key for e in self.episodes if e.key not in keys]
        if not other_keys:
            return self
        exclusion = f"{len(other_keys)} episodes {reason}"
        episodes = tuple(e for e in self.episodes if e.key in keys)
        if not episodes:
            raise UserError(f"nothing to export: {exclusion}")
        self.lake.con.executemany(
            "DELETE FROM selected WHERE dataset = ? AND episode_index = ?", other_keys
        )
        return replace(self, episodes=episodes, left_out=(*self.left_out, exclusion))

    @cached_property
    def readers(self) -> dict[str, "SourceReader"]:
        """By dataset."""
        return {dataset: SourceReader(self, dataset) for dataset in self.datasets}

    def exported(self, episodes: Iterable[Episode]) -> Iterator["ExportedEpisode"]:
        return (ExportedEpisode(e, self.readers[e.dataset]) for e in episodes)

    def label_notes(self) -> list[str]:
        """How many labels are left out, give no names of steps, or assume an outcome, and why, in
        sentences."""
        notes: list[str] = []
        for dataset in self.datasets:
            notes += [f"{dataset}: {text}" for text in self._counts(dataset).sentences()]
        for dataset, episodes in sorted(self.by_dataset.items()):
            labelled = [e for e in episodes if e.label_run is not None]
            assumed = sum(outcome_assumed(e) is True for e in labelled)
            if assumed:
                problem = (
                    "labels take for complete what nobody says the outcome of (outcome_assumed)"
                )
                notes.append(f"{dataset}: {assumed} of {len(labelled)} {problem}")
        return notes


def select(lake: Lake, selection: Selection) -> Selected:
    """The episodes to export: usable, not taken down, of an allowed licence.

    Raises UserError, SqlError. Of a release those that it holds, as it froze them; else of the lake as it is now, which
    is then read at this snapshot whatever is built meanwhile.
    """
    snapshot = lake.snapshot()
    content = None
    shards = None
    if selection.release:
        release = get_release(lake, selection.release)
        selection = selection.model_copy(update={"release": release.name})
        snapshot = release.snapshot
        content = release.config_hash
        shards = [s.shard for s in release.shard_list]
    snapshot_lake = Lake(lake.workspace, read_only=True, snapshot=snapshot)
    licences = dict(snapshot_lake.rows("SELECT dataset, license FROM datasets"))
    _check(selection, licences)

    # The episodes that were asked for, less those that must not be given on
    rows = _rows(snapshot_lake, selection.datasets, selection.episodes, selection.splits)
    if shards is not None:
        in_shards = set(snapshot_lake.rows(held_episodes_sql(), [shards]))
        rows = [row for row in rows if _key(row) in in_shards]
    missing = sorted({*(selection.episodes or ())} - {row["episode_index"] for row in rows})
    where = "in the release" if shards is not None else "there"
    numbers = listed_numbers(missing)
    unknown = counted(
        len(missing), f"episodes that are not {where}, not usable or of another split ({numbers})"
    )
    if selection.where is not None:
        fitting = _episodes_where(snapshot_lake, selection.where, snapshot)
        rows = [row for row in rows if _key(row) in fitting]
    rows, faulty = _without_faults(lake, rows, selection.without)
    rows, exclusions = _allowed(lake, rows, licences, selection.allow)
    num_allowed = len(rows)
    rows = [row for row in rows if row["num_frames"]]
    reason = "runs whose frames no build has counted yet: build them"
    exclusions = unknown + faulty + exclusions + counted(num_allowed - len(rows), reason)
    if not rows:
        none = "no usable episode fits the selection (proccorpus sql 'FROM episodes' lists them)"
        raise UserError(f"nothing to export: {'. '.join(exclusions) or none}")

    temp_table(
        snapshot_lake.con,
        "selected",
        pa.Table.from_pylist(rows).select(["dataset", "episode_index"]),
    )
    gates = dataset_gates(
        snapshot_lake.con, selection.min_confidence, selection.min_name_confidence
    )
    episodes = [_shown_by(episode_from_row(row), selection.cameras) for row in rows]
    if selection.label_run is None:
        episodes = [as_sure(e, gates.get(e.dataset, LabelGate())) for e in episodes]
    else:
        gates = {}
        episodes = _labelled_by(snapshot_lake, episodes, selection.label_run)
    return Selected(
        lake=snapshot_lake,
        selection=selection,
        snapshot=snapshot,
        content=content,
        episodes=tuple(episodes),
        left_out=tuple(exclusions),
        licences=licences,
        gates=gates,
    )


def _shown_by(e: Episode, cameras: Collection[str]) -> Episode:
    """The episode with these cameras alone; none: with all. Raises UserError where it has none of them."""
    chosen = tuple(camera for camera in e.cameras if not cameras or camera in cameras)
    if e.cameras and not chosen:
        raise UserError(
            f"{e.dataset} episode {e.episode_index} has no camera {' or '.join(cameras)}; it has {', '.join(e.cameras)}"
        )
    return replace(e, cameras=chosen)


def _labelled_by(lake: Lake, episodes: Iterable[Episode], label_run: str) -> list[Episode]:
    """The episodes as a label run labels them; its labels count as they are. Raises UserError where it has none."""
    rows = lake.dicts(
        "SELECT l.label_run, l.dataset, l.episode_index, COLUMNS('^(confidence|named|end_by)$') FROM episode_labels l "
        "SEMI JOIN selected USING (dataset, episode_index) LEFT JOIN label_quality q ON q.dataset = l.dataset "
        "AND q.episode_index = l.episode_index AND q.label_run = l.label_run ORDER BY ALL"
    )
    counts = Counter(row["label_run"] for row in rows)
    if label_run not in counts:
        runs = ", ".join(f"{name} ({n} episodes)" for name, n in counts.items()) or "no labels"
        raise UserError(
            f"no episode selected has a label of the run {label_run!r}; there is {runs}"
        )
    facts = {_key(row): row for row in rows if row["label_run"] == label_run}
    unlabelled = {"label_run": None, "confidence": None, "named": None, "end_by": None}
    return [replace(e, **facts.get(e.key, unlabelled)) for e in episodes]


def _rows(
    lake: Lake,
    datasets: Sequence[str],
    episodes: Sequence[int] | None = None,
    splits: Sequence[str] = (),
) -> list[dict[str, Any]]:
    return lake.dicts(
        FITTING_SQL, [list(datasets), None if episodes is None else list(episodes), list(splits)]
    )


def select_episode(lake: Lake, dataset: str, episode_index: int) -> Selected:
    """One usable episode, to look at: of any licence, of the state that the connection reads. Raises UserError."""
    selection = Selection(datasets=(dataset,), episodes=(episode_index,))
    rows = _rows(lake, [dataset], [episode_index])
    if not rows:
        raise UserError(f"{dataset} {episode_index} cannot be used, so nothing of it is exported")
    licences = dict(lake.rows("SELECT dataset, license FROM datasets WHERE dataset = ?", [dataset]))
    return Selected(
        lake, selection, lake.snapshot(), None, (episode_from_row(rows[0]),), (), licences
    )


def _check(selection: Selection, datasets: Collection[str]) -> None:
    for name in sorted(set(selection.datasets) - set(datasets)):
        raise UserError(
            f"the corpus has no dataset {name!r}; it has {', '.join(sorted(datasets)) or 'none yet'}"
        )
    for split in sorted(set(selection.splits) - set(SPLITS)):
        raise UserError(f"there is no split {split!r}; splits are {', '.join(SPLITS)}")
    if selection.episodes is not None and len(selection.datasets) != 1:
        raise UserError("a list of episodes goes with one dataset: name it with --dataset")
    limits = (selection.min_confidence, selection.min_name_confidence)
    if selection.label_run is not None and limits != (None, None):
        raise UserError(
            "--label-run takes labels as they are, however sure: leave out --min-confidence and --min-name-confidence"
        )


def _key(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["dataset"], row["episode_index"]


def _episodes_where(lake: Lake, condition: str, snapshot: int) -> set[tuple[str, int]]:
    """(dataset, episode_index) of the episodes that a user's condition or query gives."""
    text = condition.strip().rstrip(";")
    is_query = text.lower().startswith(QUERY_WORDS)
    if is_query:
        sql = text
    else:
        sql = f"SELECT dataset, episode_index FROM ({EPISODES_SQL}) WHERE ({text})"
    with SqlProcess(WHERE_MEMORY) as process:
        state = LakeState(str(lake.workspace.root), snapshot, statements=lake.words.newest)
        table = process.query(state, sql, WHERE_S)
    names = table.schema.names
    if not {"dataset", "episode_index"} <= set(names):
        raise UserError(
            f"--where must give the columns dataset and episode_index; it gives {names}"
        )
    return set(zip(table["dataset"].to_pylist(), table["episode_index"].to_pylist(), strict=True))


def _without_faults(
    lake: Lake, rows: Sequence[dict], checks: Sequence[str]
) -> tuple[list[dict], list[str]]:
    """Rows of runs in which none of some checks found a fault, as of today, and a sentence about
    others for each."""
    faulty = runs_with(lake, checks) if checks else {}
    exclusions = []
    for check in dict.fromkeys(checks):
        keys = sorted({_key(row) for row in rows if check in faulty.get(_key(row), ())})
        runs = [f"{dataset} {episode}" for dataset, episode in keys]
        ellipsis = ["..."] if len(runs) > MOST_LISTED else []
        listed = ", ".join([*runs[:MOST_LISTED], *ellipsis])
        exclusions.append(": ".join(filter(None, (f"{len(runs)} runs with {check}", listed))))
    return [row for row in rows if _key(row) not in faulty], exclusions


def _allowed(
    lake: Lake, rows: Sequence[dict], licences: Mapping[str, str | None], allow: Collection[str]
) -> tuple[list[dict], list[str]]:
    """Rows that may be given on, and sentences about those that may not; takedowns are those of today."""
    down = taken_down(lake)
    allowed: list[dict] = []
    exclusions: list[str] = []
    for dataset, of_dataset in grouped((row["dataset"], row) for row in rows).items():
        licence = classify(licences.get(dataset))
        down_indices = down.get(dataset, frozenset())
        if not licence.allowed(allow):
            text = licences.get(dataset) or "none is stated"
            exclusions.append(
                f"{dataset}: its licence is {licence.kind} ({text}); to let it in: {licence.flag}"
            )
        elif down_indices is None:
            exclusions.append(f"{dataset}: all of it taken down")
        else:
            allowed += [row for row in of_dataset if row["episode_index"] not in down_indices]
            indices = [row["episode_index"] for row in of_dataset]
            numbers = ", ".join(str(index) for index in indices if index in down_indices)
            exclusions += [f"{dataset}: episodes {numbers} taken down"] if numbers else []
    return allowed, exclusions


def label_runs(lake: Lake, runs: Sequence[str]) -> list[dict[str, Any]]:
    """What the manifest says of label runs."""
    return lake.dicts(
        "SELECT label_run, annotator, model, model_revision, prompt_version, code_version, params FROM label_runs "
        "WHERE list_contains(?, label_run) ORDER BY 1",
        [list(runs)],
    )


def ramp(label: Label) -> np.ndarray:
    """Progress that rises evenly inside each segment, through the label's values where segments
    begin and end.

    float32 [num_frames]. The label itself stands still while the arm does, so a reward for the gain
    over the next few frames would take every pause for a stall.
    """
    knots = [s.start_frame for s in label.segments] + [len(label.progress) - 1]
    frames = np.arange(len(label.progress))
    return np.interp(frames, knots, label.progress[knots]).astype(np.float32)


@dataclass(frozen=True)
class ExportedEpisode:
    """An episode of an export. Its label, and `rows` and `pictures` of its source are read when they are asked for; one
    chunk's labels are in memory at a time."""

    episode: Episode
    reader: "SourceReader"

    @cached_property
    def label(self) -> Label | None:
        """None without one. Raises UserError where it does not cover every frame exactly: it is of other pictures."""
        e = self.episode
        if e.label_run is None:
            return None
        label = self.reader.labels(e.chunk).get(e.episode_index)
        covered = 0 if label is None else len(label.progress)
        if covered != e.num_frames or label is None or label.num_frames != e.num_frames:
            raise UserError(
                f"the label of {e.dataset} episode {e.episode_index} covers {covered} frames, the episode has "
                f"{e.num_frames}: build the dataset again"
            )
        return replace(label, sure_of_names=e.sure_of_names)

    @property
    def rows(self) -> EpisodeData:
        """Raises UserError where the source is not as it was."""
        return self.reader.episode(self.episode)

    def pictures(self, camera: str) -> Iterator[np.ndarray]:
        """uint8 [h, w, 3] of each frame. Raises UserError where there are fewer than rows."""
        return counted_pictures(self.rows.frames(camera), camera, self.episode)


def counted_pictures(
    frames: Iterable[TimedPicture], camera: str, e: Episode
) -> Iterator[np.ndarray]:
    """uint8 [h, w, 3], as many as the episode has rows. Raises UserError where there are fewer."""
    count = 0
    for _, _, picture in islice(frames, e.num_frames):
        yield picture.rgb()
        count += 1
    if count != e.num_frames:
        location = f"{camera} of {e.dataset} episode {e.episode_index}"
        raise UserError(
            f"{location} shows {count} frames, its rows are {e.num_frames}: build the dataset again"
        )


class SourceReader:
    """What is read of one dataset's source. Raises UserError where the source is not there or has changed."""

    def __init__(self, selected: Selected, dataset: str) -> None:
        self.dataset = dataset
        self._lake = selected.lake
        self._release = selected.selection.release
        self.records = lru_cache(maxsize=2)(self._records)
        # A chunk's labels are asked for by several parts, an episode by each of its cameras
        self.labels = lru_cache(maxsize=1)(partial(self._labels, selected.selection.label_run))
        self.episode = lru_cache(maxsize=KEPT_EPISODES)(self._episode)

    @cached_property
    def source(self) -> Source:
        """What the dataset was built from, to read only."""
        rows = self._lake.rows("SELECT config FROM build_configs WHERE dataset = ?", [self.dataset])
        if not rows:
            raise UserError(
                f"the lake does not say what {self.dataset} was built from: build it again"
            )
        build = json.loads(rows[0][0])
        config = DatasetConfig(**build["dataset"])
        return Source(
            config, None, cache_folder(self._lake.workspace.sources, config), build.get("commit")
        )

    @cached_property
    def format(self) -> Format:
        return format_of(self.source)

    @cached_property
    def info(self) -> dict[str, Any] | None:
        """info.json of a LeRobot source; None of others."""
        if self.format != LEROBOT:
            return None
        try:
            return read_info(self.source)
        except DataError as e:
            raise UserError(
                f"the source of {self.dataset} has changed ({e}): build it again"
            ) from e

    def record(self, e: Episode) -> EpisodeRecord:
        return self.records(e.chunk)[e.episode_index]

    @cached_property
    def _measured(self) -> MeasuredSource:
        return MeasuredSource(self._lake, self.source)

    def _episode(self, e: Episode) -> EpisodeData:
        """Raises UserError, as its frames do, where it is another recording than was measured."""
        record = self.record(e)
        # Videos of LeRobot are copied without being decoded
        if self.info and record.source_stamp != self.source.stamp(
            [*(video.uri for video in record.videos), record.data_uri or ""], record.num_rows
        ):
            remedy = "build the dataset again"
            if self._release:  # which no build changes
                remedy = f"export what the corpus has now, not release {self._release}"
            raise UserError(
                f"the files of {e.dataset} episode {e.episode_index} have changed: {remedy}"
            )
        return self._measured.episode(record)

    def _labels(self, label_run: str | None, chunk: int) -> Mapping[int, Label]:
        con = self._lake.con
        return labels_of(con, self.dataset, chunk, label_run=label_run, whole=True)

    def _records(self, chunk: int) -> Mapping[int, EpisodeRecord]:
        """Of a chunk's episodes."""
        rows = self._lake.dicts(
            "SELECT * FROM episode_facts WHERE dataset = ? AND chunk = ?", [self.dataset, chunk]
        )
        return {row["episode_index"]: record_from_row(row) for row in rows}
