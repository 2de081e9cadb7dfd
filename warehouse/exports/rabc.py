"""Reward-aligned behaviour cloning: `sarm_progress.parquet` for a LeRobot dataset that is there already.

LeRobot (0.6) reads one row per frame, keyed by the dataset's global frame index, and weighs a frame by how much
progress the next action chunk brings: more than kappa counts in full, a loss not at all. Frames without a label are NaN
and count in full, too; then LeRobot scales the weights of a batch to a mean of 1. Progress is the active label's, or a
reward model's for the frames it was asked about, with straight lines between them; an answer at the last frame that
cannot be read is taken to be the one before it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise, product
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from annotate.conventions.sidecars import KEYS
from annotate.samples.procvqa import task_text
from core.domain.label import Episode
from core.errors import UserError
from core.values import grouped
from ingest.formats.tables import read_columns
from ingest.source import list_episodes
from warehouse.exports.export import PLACE, README, Export
from warehouse.exports.options import Selection
from warehouse.exports.selection import ExportedEpisode, Selected, counted, outcome_assumed, ramp
from warehouse.lake import Lake
from warehouse.lake.stored import numbers_in_source
from warehouse.releases.contents import listed_numbers
from warehouse.releases.release import markdown_table

# Frames int64 [k], progress and probability of success [k]
Scored = tuple[np.ndarray, np.ndarray, np.ndarray]
# Dataset, number, contents, instruction and camera of an episode that a model scored
RewardKey = tuple[str, int, str | None, str | None, str | None]


class Place(NamedTuple):
    """Where an episode is in its dataset: its number there, the global index of its first frame, and how many it has.
    `exported`: None where it is not selected."""

    number: int
    start: int
    length: int
    exported: ExportedEpisode | None


class FrameRows(NamedTuple):
    """Rows of some frames of an episode: the global index of its first frame, its number,
    the `frames` int64 [k], and columns of values [k]."""

    start: int
    number: int
    frames: np.ndarray
    values: dict[str, Any]


def write_frames(
    path: Path,
    schema: pa.Schema,
    episodes: Iterable[FrameRows],
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write rows, an episode's at a time in memory; then `metadata`, which may be filled meanwhile."""
    with pq.ParquetWriter(path, schema, compression="snappy") as writer:
        for start, number, frames, values in episodes:
            keys = (frames + start, np.full(len(frames), number), frames)
            columns = dict(zip(KEYS, keys, strict=True)) | values
            writer.write_table(pa.table(columns, schema=schema))
        writer.add_key_value_metadata(dict(metadata))


def reward_keys(e: Episode) -> set[RewardKey]:
    """How rewards that count are known; those of earlier versions name no camera, or no instruction either."""
    texts = (None, task_text(e.task))
    cameras = (None, *e.cameras[:1])
    return {
        (e.dataset, e.episode_index, e.content_hash, text, camera)
        for text, camera in product(texts, cameras)
    }


def the_dataset(selected: Selected) -> tuple[str, str, float]:
    """Name, format and frame rate of the one LeRobot dataset of a selection. Raises UserError for anything else."""
    dataset, *other_datasets = selected.datasets
    if other_datasets:
        raise UserError(
            f"the file belongs to one dataset, not to {', '.join(selected.datasets)}: add --dataset NAME"
        )
    ((kind, fps),) = selected.lake.rows(
        "SELECT format, fps FROM datasets WHERE dataset = ?", [dataset]
    )
    if not kind.startswith("lerobot"):
        raise UserError(
            f"{dataset} is no LeRobot dataset ({kind}): proccorpus export lerobot makes one, with its progress in it"
        )
    return dataset, kind, fps


class FrameExport(Export):
    """An export that goes with one LeRobot dataset that is there already, by its own numbers of
    episodes and frames."""

    dataset: str
    format: str
    fps: float

    def select(self, lake: Lake, selection: Selection) -> Selected:
        selected = super().select(lake, selection)
        self.dataset, self.format, self.fps = the_dataset(selected)
        self._scores = lru_cache(maxsize=1)(self._read_scores)
        return selected

    @cached_property
    def in_source(self) -> dict[int, int]:
        """The number of each episode in the source, by ours. Raises UserError where a selected episode is another
        recording by now."""
        reader = self.selected.readers[self.dataset]
        for e in self.selected.episodes:
            reader.episode(e)  # refuses another recording's rows
        return numbers_in_source(self.lake, self.dataset)

    def places(self) -> Iterator[Place]:
        """The episodes of the source in its order."""
        facts = self.lake.rows(
            "SELECT episode_index, chunk, num_rows FROM episode_facts WHERE dataset = ?",
            [self.dataset],
        )
        facts.sort(key=lambda row: self.in_source[row[0]])
        lengths = {episode: length for episode, _, length in facts}
        starts = self._counted_starts(lengths) | self._stated_starts(facts)
        selected = {e.episode_index: e for e in self.selected.episodes}
        reader = self.selected.readers[self.dataset]
        for number, length in lengths.items():
            e = selected.get(number)
            exported = ExportedEpisode(e, reader) if e else None
            yield Place(self.in_source[number], starts[number], length, exported)

    def _counted_starts(self, lengths: Mapping[int, int | None]) -> dict[int, int]:
        """By the lengths of all episodes of the source before it."""
        in_order: dict[int, Any] = {self.in_source[e]: length for e, length in lengths.items()}
        [config] = self.lake.column(
            "SELECT config FROM build_configs WHERE dataset = ?", [self.dataset]
        )
        # A lake that was built from some episodes only does not know the others'
        if json.loads(config).get("episodes") is not None:
            listing = list_episodes(self.selected.readers[self.dataset].source)
            in_order = {r.episode_index: r.num_rows for r in listing.records}
        order = sorted(in_order)
        for episode in order:
            if in_order[episode] is None:
                raise UserError(
                    f"the rows of {self.dataset} episode {episode} cannot be read, so later frames have no index"
                )
        counts = accumulate(map(in_order.__getitem__, order), initial=0)
        starts = dict(zip(order, counts, strict=False))
        return {episode: starts[number] for episode, number in self.in_source.items()}

    def _stated_starts(self, facts: Sequence[tuple[int, int, int | None]]) -> dict[int, int]:
        """As the rows of the source state them, which those of LeRobot do; else empty, also where two episodes would
        have the same frames, as where each counts from 0. `facts`: number, chunk and length of each episode.

        LeRobot's converter to v3.0 keeps them as they are, also where episodes were taken out of a
        v2.1 dataset.
        """
        if not self.format.startswith("lerobot_"):
            return {}
        reader = self.selected.readers[self.dataset]
        stated: dict[int, tuple[int, int]] = {}
        for episode, chunk, length in facts:
            record = reader.records(chunk)[episode]
            if record.data_uri is not None:
                data = reader.source.resolve(record.data_uri)
                index = read_columns(data, record.row_start, 1, ("index",))
                # One file without the column: the counted index holds for the whole dataset, not a mixture of both
                if not index.num_columns:
                    return {}
                stated[episode] = index["index"][0].as_py(), length or 0
        overlaps = (
            start + n > later for (start, n), (later, _) in pairwise(sorted(stated.values()))
        )
        return {} if any(overlaps) else {episode: start for episode, (start, _) in stated.items()}

    def scored(self, e: Episode) -> Scored:
        """What a model said of the frames of an episode that it scored, NaN where it gave no number; by now, not as it
        was then. Raises UserError for an episode that was not scored."""
        key, scored = self._scores(e.chunk).get(e.episode_index, (None, None))
        # Rewards of other contents, another instruction or camera than the episode has by now do not count
        if scored is None or key not in reward_keys(e):
            raise UserError(
                f"{self.dataset} episode {e.episode_index} has no rewards of this model: export rabc --from-model "
                "makes them"
            )
        return scored

    @cached_property
    def _numbers_by_chunk(self) -> dict[int, list[int]]:
        return grouped((e.chunk, e.episode_index) for e in self.selected.episodes)

    def _read_scores(self, chunk: int) -> dict[int, tuple[RewardKey, Scored]]:
        """Of each selected episode of a chunk that a model scored, its key, and what it said."""
        episodes = self._numbers_by_chunk[chunk]
        rows = self.now.rows(
            "SELECT dataset, episode_index, any_value(content_hash), any_value(instruction), any_value(camera), "
            "list(frame_index ORDER BY frame_index), list(prediction ORDER BY frame_index), "
            "list(done ORDER BY frame_index) FROM eval_predictions "
            "WHERE eval_run = ? AND dataset = ? AND list_contains(?, episode_index) GROUP BY 1, 2",
            [self.options.rewards, self.dataset, episodes],
        )
        scores = {}
        for *key, frames, progress, success in rows:
            values = np.array([progress, success], np.float64)
            scores[key[1]] = tuple(key), (np.array(frames), *values)
        return scores


def between(frames: np.ndarray, progress: np.ndarray, num_frames: int) -> np.ndarray:
    """float32 [num_frames]: straight lines between the scored `frames` [k] that follow each other and have a number.

    Example: between([0, 2, 4], [0.0, 0.5, nan], 6) == [0.0, 0.25, 0.5, nan, nan, nan]
    """
    line = np.interp(np.arange(num_frames), frames, progress, left=np.nan, right=np.nan).astype(
        np.float32
    )
    line[frames] = progress  # also where the next one is NaN
    return line


FILE = "sarm_progress.parquet"
TRIED_LEROBOT = "0.6.1"  # printed commands were tried with
EPSILON = 1e-6  # LeRobot's
KAPPA_SHARE = 0.1  # of the frames that gain, so many are to fall below the suggested kappa
USUAL_CHUNK = "50"  # frames in an action chunk of LeRobot's policies
BINS = 100_000  # steps of a gain in progress, over 0..1
PROGRESS = ("progress_sparse", "progress_dense")
# LeRobot's parser takes the whole mapping alone
FALLBACK = "extra_params='{\"fallback_weight\": 0.0}'"
MOST_ALIKE = 0.8  # of the frames may weigh the same
SCHEMA = pa.schema(
    dict.fromkeys(KEYS, pa.int64())
    | dict.fromkeys(PROGRESS, pa.float32())
    | {"outcome_assumed": pa.bool_()}
)


def progress_of(x: ExportedEpisode) -> dict[str, Any]:
    """An episode's columns of progress by its label, NaN without one."""
    sparse = dense = np.full(x.episode.num_frames, np.nan, np.float32)
    if x.label is not None:
        sparse = ramp(x.label)
        dense = x.label.progress
    return progress_columns(sparse, dense, outcome_assumed(x.episode))


def progress_columns(sparse: np.ndarray, dense: np.ndarray, assumed: bool | None) -> dict[str, Any]:
    """Columns of the file after KEYS, of progress [n]."""
    return dict(zip(PROGRESS, (sparse, dense), strict=True)) | {
        "outcome_assumed": [assumed] * len(sparse)
    }


def gains_of(progress: np.ndarray, chunk_size: int) -> np.ndarray:
    """Progress that the next frames bring, at most to the last one, as LeRobot takes it: of [n] the same [n]."""
    ends = np.minimum(np.arange(len(progress)) + chunk_size, len(progress) - 1)
    return progress[ends] - progress


def suggested_kappa(progress: Iterable[np.ndarray], chunk_size: int) -> float | None:
    """What most of the frames of some runs that gain exceed, in steps of 1 / BINS; None where no
    frame gains."""
    gains = np.concatenate([gains_of(curve, chunk_size) for curve in progress])
    rising = (gains[gains > 0] * BINS).astype(np.int64)
    if not len(rising):
        return None
    bins = np.minimum(rising, BINS - 1)
    return int(np.quantile(bins, KAPPA_SHARE, method="inverted_cdf")) / BINS


def rabc_weights(gains: np.ndarray, kappa: float) -> np.ndarray:
    """As LeRobot's RA-BC weighs gains [n], before it scales a batch to a mean of 1."""
    mean = max(float(gains.mean()), 0.0)
    deviation = max(float(gains.std()), EPSILON)
    soft = np.clip((gains - mean + 2 * deviation) / (4 * deviation + EPSILON), 0, 1)
    return np.where(gains > kappa, 1.0, np.where(gains >= 0, soft, 0.0))


def weights_apart(
    gains: Sequence[tuple[bool | None, np.ndarray]], kappa: float | None
) -> dict[str, float | None]:
    """How LeRobot's RA-BC tells frames apart, of runs' outcomes and gains [n]: `alike`, the share
    of frames that weigh exactly 1; `failed`, the mean weight in failed runs to that in the others.
    Empty where no frame gains.
    """
    if kappa is None:
        return {}
    all_gains = np.concatenate([values for _, values in gains])
    in_failed = np.repeat(
        [success is False for success, _ in gains], [len(values) for _, values in gains]
    )
    is_known = np.isfinite(all_gains)
    weights = rabc_weights(all_gains[is_known], kappa)
    in_failed = in_failed[is_known]
    has_both = in_failed.any() and not in_failed.all()
    ratio = float(weights[in_failed].mean() / weights[~in_failed].mean()) if has_both else None
    return {"alike": float((weights == 1).mean()), "failed": ratio}


def provenance(
    selected: Selected, options: Any, runs: Sequence[str], **settings: Any
) -> dict[str, Any]:
    """What progress was made of: the state of the corpus, settings, and a model's rewards or the
    runs of its labels."""
    facts = {"release": selected.selection.release, "snapshot": selected.snapshot, **settings}
    if getattr(options, "rewards", None):
        return facts | {"model": options.model, "rewards": options.rewards}
    return facts | {"label_runs": runs}


def write_progress(
    path: Path,
    episodes: Iterable[FrameRows],
    selected: Selected,
    options: Any,
) -> dict[str, Any]:
    """Write the file an episode at a time, NaN where one has no progress; returns how many frames have one, and the
    suggested kappa by action chunk."""
    ramps: list[np.ndarray] = []
    kappas: dict[str, float | None] = {}
    facts = provenance(selected, options, selected.active_runs)
    model = facts.get("model") or ",".join(selected.active_runs)
    # `reward_model_path` is the key under which LeRobot's own tools name the maker; ours comes when all ramps are there
    metadata = {"reward_model_path": f"proccorpus:{model}"}

    def collected() -> Iterator[FrameRows]:
        """Kappa is suggested from all ramps of the dataset, so they are collected as rows go by."""
        for episode in episodes:
            ramps.append(episode.values[PROGRESS[0]])
            yield episode
        kappas.update({str(size): suggested_kappa(ramps, size) for size in options.chunk_sizes})
        metadata["proccorpus"] = json.dumps(facts | {"suggested_kappa": kappas}, sort_keys=True)

    write_frames(path, SCHEMA, collected(), metadata)
    labelled = sum(int(np.isfinite(curve).sum()) for curve in ramps)
    return {"labelled_frames": labelled, "suggested_kappa": kappas}


class RabcExport(FrameExport):
    """The file has a row for each frame of the dataset as its source numbers them, also of episodes that are not
    selected (NaN); one chunk of the lake is in memory at a time."""

    def write_rest(self) -> Mapping[str, Any]:
        # A model's rewards do not hang on labels
        notes: list[str] = []
        if not self.options.rewards:
            unlabelled = sum(e.label_run is None for e in self.selected.episodes)
            reason = (
                "episodes have no label: their frames are NaN, to which LeRobot gives the weight 1"
            )
            notes = self.notes() + counted(unlabelled, reason)
        facts = self.folder.part("progress", self._write)
        notes += self._warnings(facts)
        if ends := facts["held_ends"]:
            notes.append(
                f"the model's answer at the last frame of {len(ends)} episodes cannot be read, so their progress stays "
                f"at the answer before it (episodes {listed_numbers(ends)})"
            )
        self.folder.write(README, self._readme(facts, notes))
        return facts | {"notes": notes}

    def _write(self) -> dict[str, Any]:
        size = example_size([*map(str, self.options.chunk_sizes)])
        self.held_ends: list[int] = []
        self._dropped = 0
        self._gains: list[tuple[bool | None, np.ndarray]] = []
        path = self.folder.path(FILE)
        facts = write_progress(path, self._rows(int(size)), self.selected, self.options)
        return facts | {
            "held_ends": self.held_ends,
            "dropped_frames": self._dropped,
            "told_apart": weights_apart(self._gains, facts["suggested_kappa"][size]),
        }

    def _rows(self, chunk_size: int) -> Iterator[FrameRows]:
        """On the way frames that are not selected are counted, and gains are kept."""
        for place in self.places():
            columns = self._columns(place)
            if place.exported is None:
                self._dropped += place.length
            else:
                gains = gains_of(columns[PROGRESS[0]], chunk_size)
                self._gains.append((place.exported.episode.success, gains))
            yield FrameRows(place.start, place.number, np.arange(place.length), columns)

    def _warnings(self, facts: Mapping[str, Any]) -> list[str]:
        """Where the weights would mislead."""
        difference = facts["told_apart"]
        notes = list[str]()
        if facts["dropped_frames"]:
            notes.append(
                f"{facts['dropped_frames']} frames that are not selected are NaN, and LeRobot gives NaN the weight 1, "
                f"the most there is: train with the flag --sample_weighting.{FALLBACK}"
            )
        if difference and difference["alike"] > MOST_ALIKE:
            share = difference["failed"]
            of_failed = f"; those of failed runs weigh {share or 0:.2f} of the others"
            notes.append(
                f"these weights hardly tell frames apart: {difference['alike']:.0%} weigh 1 (chunks of "
                f"{example_size(facts['suggested_kappa'])} frames){of_failed * (share is not None)}. proccorpus export "
                "weights makes better ones of the same labels"
            )
        return notes

    def _columns(self, place: Place) -> dict[str, Any]:
        x = place.exported
        if x is None:
            unknown = np.full(place.length, np.nan, np.float32)
            return progress_columns(unknown, unknown, None)
        if self.options.rewards is None:
            return progress_of(x)
        frames, progress, _ = self.scored(x.episode)
        # LeRobot takes a gain at most to the last frame: without a number there alone, after one with a number, a
        # whole action chunk has no weight
        is_end_scored = len(frames) > 1 and frames[-1] == x.episode.num_frames - 1
        if is_end_scored and np.isnan(progress[-1]) and np.isfinite(progress[-2]):
            progress = np.r_[progress[:-1], progress[-2]]
            self.held_ends.append(x.episode.episode_index)
        line = between(frames, progress, x.episode.num_frames)
        return progress_columns(line, line, None)

    def _readme(self, facts: Mapping[str, Any], notes: Sequence[str]) -> str:
        kappas = facts["suggested_kappa"]
        size = example_size(kappas)
        if self.options.rewards is None:
            columns = (
                "`progress_sparse` rises\nevenly inside each segment; `progress_dense` is the label itself, "
                "which follows "
                "the motion. NaN: no label\nthat is sure enough; the frame counts in full. "
                "`outcome_assumed`: the label takes the run\nfor complete, and nobody says how it ended."
            )
        else:
            columns = (
                f"Both columns are what the\nreward model `{self.options.model}` said, with straight lines between "
                "the frames it was asked about. NaN: it gave\nno number; the frame counts in full."
            )
        noted = "".join(f"\n{note}.\n" for note in notes)
        return f"""# Progress of {self.dataset} for LeRobot's RA-BC

`{FILE}` has one row per frame of the dataset, by its global `index`. {columns}
{noted}
Put it into the dataset's root, or name it. For a policy with chunks of {size} frames (tried with LeRobot
{TRIED_LEROBOT}):

    lerobot-train ... \\
{configuration(kappas[size], f"{PLACE}/{FILE}", without_progress_0=facts["dropped_frames"] > 0)}

A frame counts in full when its chunk gains more than kappa. Suggested is what {1 - KAPPA_SHARE:.0%} of the frames
that gain exceed.

{kappa_table(kappas, self.fps)}

At the end of an episode chunks are cut off, so its last frames gain little, and the last one nothing.
"""


def configuration(
    kappa: float | None, progress_path: str | None = None, *, without_progress_0: bool = False
) -> str:
    """What a training configuration of LeRobot needs, as flags; the last says that frames without
    progress weigh 0."""
    flags = ["type=rabc", "head_mode=sparse", f"kappa={kappa}"]
    flags += [f"progress_path={progress_path}"] if progress_path else []
    flags += [FALLBACK] if without_progress_0 else []
    return " \\\n".join(f"        --sample_weighting.{flag}" for flag in flags)


def example_size(sizes: Iterable[str]) -> str:
    """The action chunk that an example shows: LeRobot's usual one where it is among them, else the
    first."""
    size, *other_sizes = sizes
    if USUAL_CHUNK in other_sizes:
        return USUAL_CHUNK
    return size


def kappa_table(kappas: Mapping[str, float | None], fps: float) -> str:
    seconds = [(size, f"{int(size) / fps:.2f}", kappa) for size, kappa in kappas.items()]
    return markdown_table(("action chunk (frames)", "seconds", "kappa"), seconds)
