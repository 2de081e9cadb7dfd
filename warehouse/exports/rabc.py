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
from itertools import accumulate, groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.domain.episode import Episode
from core.errors import UserError
from ingest.source import list_episodes
from warehouse.exports.export import PLACE, Export
from warehouse.exports.frame_weights import KAPPA_SHARE, gains_of, rabc_weights
from warehouse.exports.hub import README
from warehouse.exports.options import LerobotOptions, RabcOptions, RewardOptions, Selection
from warehouse.exports.selection import Selected, chunk_labels, outcome_assumed, ramp
from warehouse.lake import Lake
from warehouse.lake.stored import numbers_in_source, rows_of_episode
from warehouse.releases.contents import listed_numbers
from warehouse.releases.release import markdown_table

FILE = "sarm_progress.parquet"
USUAL_CHUNK = "50"  # frames in an action chunk of LeRobot's policies
BINS = 100_000  # of the histogram of gains in progress, over 0..1
INDEX = ("index", "episode_index", "frame_index")
PROGRESS = ("progress_sparse", "progress_dense")
ASSUMED = "outcome_assumed"
# LeRobot's parser takes the whole mapping alone
FALLBACK = "extra_params='{\"fallback_weight\": 0.0}'"
MOST_ALIKE = 0.8  # of the frames may weigh the same
SCHEMA = pa.schema(
    dict.fromkeys(INDEX, pa.int64()) | dict.fromkeys(PROGRESS, pa.float32()) | {ASSUMED: pa.bool_()}
)
# Frames int64 [k], progress and probability of success [k]
Scored = tuple[np.ndarray, np.ndarray, np.ndarray]


def suggested_kappa(progress: Iterable[np.ndarray], chunk_size: int) -> float | None:
    """What most of the frames of some runs that gain exceed, in steps of 1 / BINS; None where no frame gains."""
    counts = np.zeros(BINS, np.int64)
    for curve in progress:
        gains = gains_of(curve, chunk_size)
        rising = (gains[gains > 0] * BINS).astype(np.int64)
        np.add.at(counts, np.minimum(rising, BINS - 1), 1)
    cumulated = np.cumsum(counts)
    if not cumulated[-1]:
        return None
    return int(np.searchsorted(cumulated, KAPPA_SHARE * int(cumulated[-1]))) / BINS


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


# Both columns of an episode's progress, and whether it assumes an outcome that nobody says; None: it is no label
FrameProgress = tuple[np.ndarray, np.ndarray, bool | None]
# The global index of an episode's first frame, its number, its frames, and its progress, if it has one
EpisodeProgress = tuple[int, int, int, FrameProgress | None]


def frame_progress(
    selected: Selected, dataset: str, chunk: int, episodes: Sequence[Episode]
) -> dict[int, FrameProgress]:
    """Of each labelled episode of a chunk: sparse and dense progress, float32 [num_frames]."""
    labels = chunk_labels(selected, dataset, chunk, episodes)
    assumed = {e.episode_index: outcome_assumed(e) for e in episodes}
    return {e: (ramp(label), label.progress, assumed[e]) for e, label in labels.items()}


def provenance(
    selected: Selected, options: Any, runs: Sequence[str], **settings: Any
) -> dict[str, Any]:
    """What progress was made of: the state of the corpus, settings, and a model's rewards or the runs of its labels."""
    facts = {"release": selected.selection.release, "snapshot": selected.snapshot, **settings}
    if isinstance(options, RewardOptions) and options.rewards:
        return facts | {"model": options.model, "rewards": options.rewards}
    return facts | {"label_runs": runs}


def write_progress(
    path: Path,
    chunks: Iterable[Sequence[EpisodeProgress]],
    selected: Selected,
    options: RabcOptions | LerobotOptions,
) -> dict[str, Any]:
    """Write the file a chunk at a time, NaN where an episode has no progress; returns how many frames have one, and the
    suggested kappa by action chunk."""
    # Kappa is suggested from all ramps of the dataset, so they are collected while the rows go by
    ramps = list[np.ndarray]()
    with pq.ParquetWriter(path, SCHEMA, compression="snappy") as writer:
        for episodes in chunks:
            ramps += [progress[0] for *_, progress in episodes if progress]
            writer.write_table(pa.concat_tables(episode_rows(*episode) for episode in episodes))
        kappas = {str(size): suggested_kappa(ramps, size) for size in options.chunk_sizes}
        facts = provenance(selected, options, selected.active_runs)
        model = facts.get("model") or ",".join(selected.active_runs)
        metadata = json.dumps(facts | {"suggested_kappa": kappas}, sort_keys=True)
        # `reward_model_path` is the key under which LeRobot's own tools name the maker
        writer.add_key_value_metadata(
            {"reward_model_path": f"proccorpus:{model}", "proccorpus": metadata}
        )
    labelled = sum(int(np.isfinite(curve).sum()) for curve in ramps)
    return {"labelled_frames": labelled, "suggested_kappa": kappas}


def episode_rows(index: int, episode: int, n: int, progress: FrameProgress | None) -> pa.Table:
    """The file's rows of one episode."""
    frames = np.arange(n)
    unknown = np.full(n, np.nan, np.float32)
    sparse, dense, assumed = progress or (unknown, unknown, None)
    is_assumed = pa.array([assumed] * n, pa.bool_())
    return pa.table(
        [frames + index, np.full(n, episode), frames, sparse, dense, is_assumed], schema=SCHEMA
    )


def _apart(starts: dict[int, int], lengths: Mapping[int, int | None]) -> dict[int, int]:
    """Stated starts of episodes; none where two episodes would have the same frames, as where each counts from 0."""
    in_order = sorted((start, lengths.get(episode) or 0) for episode, start in starts.items())
    if any(start + length > later for (start, length), (later, _) in pairwise(in_order)):
        return {}
    return starts


class OneDatasetExport(Export):
    """An export that goes with one LeRobot dataset that is there already, by its own numbers of episodes and frames."""

    dataset: str
    format: str
    fps: float

    def select(self, lake: Lake, selection: Selection) -> Selected:
        selected = super().select(lake, selection)
        self.dataset, self.format, self.fps = the_dataset(selected)
        return selected

    @cached_property
    def in_source(self) -> dict[int, int]:
        """The number of each episode in the source, by ours."""
        return numbers_in_source(self.lake, self.dataset)

    def dataset_chunks(
        self,
    ) -> Iterator[tuple[int, list[Episode], dict[int, int], dict[int, int]]]:
        """(chunk, its episodes that are selected, frames of each episode of the source, the global index of each
        one's first frame), by our numbers, in the order of the source.

        Where recordings moved in it, a chunk comes in several parts.
        """
        facts = self.lake.rows(
            "SELECT episode_index, chunk, num_rows FROM episode_facts WHERE dataset = ?",
            [self.dataset],
        )
        facts.sort(key=lambda row: self.in_source[row[0]])
        chosen = {e.episode_index: e for e in self.selected.episodes}
        counted = self._counted_starts()
        for chunk, rows in groupby(facts, itemgetter(1)):
            lengths = {episode: length for episode, _, length in rows}
            episodes = [chosen[episode] for episode in lengths if episode in chosen]
            stated = self._stated_starts(chunk, episodes)
            yield chunk, episodes, lengths, counted | _apart(stated, lengths)

    def _counted_starts(self) -> dict[int, int]:
        """By the lengths of all episodes of the source before it."""
        sql = "SELECT episode_index, num_rows FROM episode_facts WHERE dataset = ?"
        facts = self.lake.rows(sql, [self.dataset])
        lengths: dict[int, Any] = {self.in_source[episode]: length for episode, length in facts}
        [config] = self.lake.column(
            "SELECT config FROM build_configs WHERE dataset = ?", [self.dataset]
        )
        # A lake that was built from some episodes only does not know the others'
        if json.loads(config).get("episodes") is not None:
            lengths = {
                r.episode_index: r.num_rows
                for r in list_episodes(self.readers[self.dataset].source).records
            }
        if None in lengths.values():
            episode = min(e for e, length in lengths.items() if length is None)
            raise UserError(
                f"the rows of {self.dataset} episode {episode} cannot be read, so later frames have no index"
            )
        order = sorted(lengths)
        starts = dict(
            zip(order, accumulate(map(lengths.__getitem__, order), initial=0), strict=False)
        )
        return {episode: starts[number] for episode, number in self.in_source.items()}

    def _stated_starts(self, chunk: int, chosen: Sequence[Episode]) -> dict[int, int]:
        """As the rows of the source state them, which those of LeRobot do; else empty.

        LeRobot's converter to v3.0 keeps them as they are, also where episodes were taken out of a
        v2.1 dataset. Raises UserError where a chosen episode is another recording by now.
        """
        if not self.format.startswith("lerobot_"):
            return {}
        reader = self.readers[self.dataset]
        for e in chosen:
            reader.episode(e)  # refuses another recording's rows
        starts = dict[int, int]()

        @lru_cache(maxsize=2)
        def column(path: Path) -> np.ndarray | None:
            with pq.ParquetFile(path) as file:
                if "index" in file.schema_arrow.names:
                    return file.read(["index"])["index"].to_numpy()
                return None

        for episode, record in reader.records(chunk).items():
            if (uri := record.data_uri) is not None:
                index = column(reader.source.resolve(uri))
                # One file without the column: the counted index holds for the whole chunk, not a mixture of both
                if index is None:
                    return {}
                starts[episode] = int(index[record.row_start])
        return starts

    def scored_frames(self, episodes: Sequence[Episode]) -> dict[int, Scored]:
        """What a model said of each episode's scored frames, NaN where it gave no number; by now,
        not as it was then.

        Raises UserError for an episode that was not scored.
        """
        table = self.now.arrow(
            "SELECT episode_index, frame_index, prediction, done, content_hash FROM eval_predictions WHERE eval_run = ?"
            " AND dataset = ? AND list_contains(?, episode_index) ORDER BY episode_index, frame_index",
            [self.options.rewards, self.dataset, [e.episode_index for e in episodes]],
        )
        index = table["episode_index"].to_numpy()
        frames, progress, success_probability = (
            table[name].to_numpy() for name in ("frame_index", "prediction", "done")
        )
        hashes = table["content_hash"].to_pylist()
        scored_by_episode = {}
        for e in episodes:
            rows = rows_of_episode(index, e.episode_index)
            # rewards of other contents than the episode has by now do not count
            if hashes[rows][:1] != [e.content_hash]:
                raise UserError(
                    f"{self.dataset} episode {e.episode_index} has no rewards of this model: export rabc --from-model "
                    "makes them"
                )
            scored_by_episode[e.episode_index] = (
                frames[rows],
                progress[rows],
                success_probability[rows],
            )
        return scored_by_episode


def between(frames: np.ndarray, progress: np.ndarray, num_frames: int) -> np.ndarray:
    """float32 [num_frames]: straight lines between the scored `frames` [k] that follow each other and have a number.

    Example: between([0, 2, 4], [0.0, 0.5, nan], 6) == [0.0, 0.25, 0.5, nan, nan, nan]
    """
    line = np.interp(np.arange(num_frames), frames, progress, left=np.nan, right=np.nan).astype(
        np.float32
    )
    line[frames] = progress  # also where the next one is NaN
    return line


def ends_unread(frames: np.ndarray, progress: np.ndarray, num_frames: int) -> bool:
    """Is an episode's last frame the only one of its scored `frames` [k], after one with a number, that has none?"""
    if len(frames) < 2 or frames[-1] != num_frames - 1:
        return False
    return bool(np.isnan(progress[-1]) and np.isfinite(progress[-2]))


class RabcExport(OneDatasetExport):
    """The file has a row for each frame of the dataset as its source numbers them, also of episodes that are not
    selected (NaN); one chunk of the lake is in memory at a time."""

    def write_rest(self) -> Mapping[str, Any]:
        # A model's rewards do not hang on labels
        notes = [] if self.options.rewards else self.selected.label_notes()
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
        self.held_ends: list[int] = []
        self._dropped = 0
        self._gains: list[tuple[bool | None, np.ndarray]] = []
        facts = write_progress(
            self.folder.path(FILE), self._of_chunks(), self.selected, self.options
        )
        told_apart = weights_apart(self._gains, facts["suggested_kappa"][str(self._example_size)])
        return facts | {
            "held_ends": self.held_ends,
            "dropped_frames": self._dropped,
            "told_apart": told_apart,
        }

    @property
    def _example_size(self) -> int:
        return int(example_size(dict.fromkeys(map(str, self.options.chunk_sizes))))

    def _of_chunks(self) -> Iterator[list[EpisodeProgress]]:
        """The rows of each chunk; on the way frames that are not selected are counted, and gains are kept."""
        for chunk, episodes, lengths, starts in self.dataset_chunks():
            progress = self._progress(chunk, episodes)
            selected = {e.episode_index: e.success for e in episodes}
            self._dropped += sum(n for e, n in lengths.items() if e not in selected)
            self._gains += [
                (selected[e], gains_of(columns[0], self._example_size))
                for e, columns in progress.items()
            ]
            yield [(starts[e], self.in_source[e], n, progress.get(e)) for e, n in lengths.items()]

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
            if difference["failed"] is None:
                failed = ""
            else:
                failed = f"; those of failed runs weigh {difference['failed']:.2f} of the others"
            notes.append(
                f"these weights hardly tell frames apart: {difference['alike']:.0%} weigh 1 (chunks of "
                f"{self._example_size} "
                f"frames){failed}. proccorpus export weights makes better ones of the same labels"
            )
        return notes

    def _progress(self, chunk: int, episodes: Sequence[Episode]) -> dict[int, FrameProgress]:
        """The columns of each episode that has any: sparse and dense, float32 [num_frames]."""
        if self.options.rewards is None:
            return frame_progress(self.selected, self.dataset, chunk, episodes)
        lengths = {e.episode_index: e.num_frames for e in episodes}
        scored = self.scored_frames(episodes)
        lines = {}
        for e, (frames, progress, _) in scored.items():
            # LeRobot takes a gain at most to the last frame: without a number there, a whole action chunk has no weight
            if ends_unread(frames, progress, lengths[e]):
                progress = np.r_[progress[:-1], progress[-2]]
                self.held_ends.append(e)
            lines[e] = between(frames, progress, lengths[e])
        return {e: (line, line, None) for e, line in lines.items()}

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
Put it into the dataset's root, or name it. For a policy with chunks of {size} frames:

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
    """What a training configuration of LeRobot needs, as flags; the last says that frames without progress weigh 0."""
    flags = ["type=rabc", "head_mode=sparse", f"kappa={kappa}"]
    flags += [f"progress_path={progress_path}"] if progress_path else []
    flags += [FALLBACK] if without_progress_0 else []
    return " \\\n".join(f"        --sample_weighting.{flag}" for flag in flags)


def example_size(kappas: Mapping[str, float | None]) -> str:
    """The action chunk that an example shows: LeRobot's usual one where it is among them."""
    if USUAL_CHUNK in kappas:
        return USUAL_CHUNK
    return next(iter(kappas))


def kappa_table(kappas: Mapping[str, float | None], fps: float) -> str:
    seconds = [(size, f"{int(size) / fps:.2f}", kappa) for size, kappa in kappas.items()]
    return markdown_table(("action chunk (frames)", "seconds", "kappa"), seconds)
