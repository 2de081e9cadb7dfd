"""Reward-aligned behaviour cloning: `sarm_progress.parquet` for a LeRobot dataset that is there already.

LeRobot (0.6) reads one row per frame, keyed by the dataset's global frame index, and weighs a frame by how much
progress the next action chunk brings: more than kappa counts in full, a loss not at all. Frames without a label are NaN
and keep the weight 1. Progress is the active label's, or a reward model's for the frames it was asked about, with
straight lines between them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.files import write_file
from ingest.source import list_episodes
from warehouse.exports.common import (
    Exported,
    ExportEpisode,
    ExportError,
    Selected,
    open_folder,
    open_source,
    records,
    select,
)
from warehouse.exports.labels import chunk_labels, gains, histogram, percentile
from warehouse.exports.options import RabcOptions, Selection
from warehouse.lake import Lake

FILE = "sarm_progress.parquet"
USUAL_CHUNK = "50"  # frames in an action chunk of LeRobot's policies
KAPPA_SHARE = 0.1  # of the frames that gain, so many are to fall below the suggested kappa
SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("episode_index", pa.int64()),
        ("frame_index", pa.int64()),
        ("progress_sparse", pa.float32()),
        ("progress_dense", pa.float32()),
    ]
)


class Kappas:
    """Suggested kappas, gathered chunk by chunk in bounded memory."""

    def __init__(self, chunk_sizes: Sequence[int]) -> None:
        no_gains = histogram(np.zeros(0, np.float32))
        self.histograms: dict[int, np.ndarray] = {size: no_gains.copy() for size in chunk_sizes}

    def add(self, labels: Sequence[np.ndarray]) -> None:
        """Progress of some episodes; of many at once, since a histogram is larger than an episode."""
        if not labels:
            return
        for size, counts in self.histograms.items():
            counts += histogram(np.concatenate([gains(label, size) for label in labels]))

    def suggested(self) -> dict[str, float | None]:
        """By chunk size; None where no frame gains."""
        return {str(size): percentile(counts, KAPPA_SHARE) for size, counts in self.histograms.items()}


def rows(index: int, episode: int, ramp: np.ndarray, label: np.ndarray) -> pa.Table:
    """Rows of one episode whose first frame has the global index `index`."""
    n = len(ramp)
    frames = np.arange(n)
    return pa.table([frames + index, np.full(n, episode), frames, ramp, label], schema=SCHEMA)


def metadata(selected: Selected, kappas: Mapping[str, Any], options: RabcOptions = RabcOptions()) -> dict[str, str]:
    """Key-value metadata of the file; `reward_model_path` is the key under which LeRobot's own tools name the maker."""
    runs = selected.active_runs
    facts: dict[str, Any] = {"release": selected.selection.release, "snapshot": selected.snapshot}
    facts |= {"model": options.model, "rewards": options.rewards} if options.rewards else {"label_runs": runs}
    return {
        "reward_model_path": f"proccorpus:{options.model or ','.join(runs)}",
        "proccorpus": json.dumps(facts | {"suggested_kappa": dict(kappas)}, sort_keys=True),
    }


def export(
    lake: Lake, selection: Selection, out: Path, options: RabcOptions = RabcOptions(), *, overwrite: bool = False
) -> Exported:
    """Write progress of one LeRobot dataset. Raises ExportError and what `select` raises.

    The file has a row for each frame of the dataset as its source numbers them, also of episodes that are not selected
    (NaN); one chunk of the lake is in memory at a time.
    """
    selected = select(lake, selection)
    dataset, kind, fps = the_dataset(selected)
    folder = open_folder(out, "rabc", selected.identity("rabc", options), overwrite)
    if folder.manifest is not None:
        return folder.exported()
    # Kappa is suggested from all ramps of the dataset, so they are collected while the rows go by
    kappas = Kappas(options.chunk_sizes)
    labelled = 0
    path = folder.path(FILE)
    with pq.ParquetWriter(path, SCHEMA, compression="snappy") as writer:
        for table, ramps in _chunks(selected, dataset, kind, lake, options.rewards):
            labelled += sum(int(np.isfinite(r).sum()) for r in ramps)
            kappas.add(ramps)
            writer.write_table(table)
        writer.add_key_value_metadata(metadata(selected, kappas.suggested(), options))
    # A model's rewards do not hang on labels
    notes = [] if options.rewards else selected.label_notes()
    write_file(folder.root / "README.md", _readme(dataset, fps, kappas.suggested(), options, notes).encode())
    folder.finish_part("progress", [FILE, "README.md"])
    facts = {"labelled_frames": labelled, "suggested_kappa": kappas.suggested(), "notes": notes}
    return folder.finish(selected, options, facts)


def the_dataset(selected: Selected) -> tuple[str, str, float]:
    """Name, format and frame rate of the one LeRobot dataset of a selection. Raises ExportError for anything else."""
    dataset, *others = selected.datasets
    if others:
        raise ExportError(f"the file belongs to one dataset, not to {', '.join(selected.datasets)}: add --dataset NAME")
    ((kind, fps),) = selected.lake.rows("SELECT format, fps FROM datasets WHERE dataset = ?", [dataset])
    if not kind.startswith("lerobot"):
        raise ExportError(
            f"{dataset} is no LeRobot dataset ({kind}): proccorpus export lerobot makes one, with its progress in it"
        )
    return dataset, kind, fps


@dataclass(frozen=True)
class EpisodeProgress:
    """Both columns of an episode, float32 [num_frames]."""

    sparse: np.ndarray
    dense: np.ndarray


def _chunks(
    selected: Selected, dataset: str, kind: str, lake: Lake, rewards: str | None
) -> Iterator[tuple[pa.Table, list[np.ndarray]]]:
    """Rows of each chunk of the dataset, and the ramps in them. Rewards are read from `lake` as it is now."""
    selected_by_chunk = {chunk: episodes for _, chunk, episodes in selected.chunks()}
    for chunk, lengths, starts in chunk_starts(selected, dataset, kind):
        episodes = selected_by_chunk.get(chunk, [])
        if rewards is None:
            progress = _labelled_progress(selected, dataset, chunk, episodes)
        else:
            lines = chunk_rewards(lake, rewards, dataset, episodes)
            progress = {e: EpisodeProgress(line, line) for e, line in lines.items()}
        yield _chunk_rows(lengths, starts, progress)


def chunk_starts(selected: Selected, dataset: str, kind: str) -> Iterator[tuple[int, dict[int, int], dict[int, int]]]:
    """(chunk, rows of each of its episodes, the global index of each one's first row) of a LeRobot dataset."""
    rows = selected.lake.rows(
        "SELECT chunk, episode_index, num_rows FROM episode_facts WHERE dataset = ? ORDER BY episode_index", [dataset]
    )
    lengths_by_chunk: dict[int, dict[int, int]] = {}
    all_lengths: dict[int, int | None] = {}
    for chunk, episode, num_rows in rows:
        lengths_by_chunk.setdefault(chunk, {})[episode] = num_rows
        all_lengths[episode] = num_rows
    # Where an episode's rows begin: counted, but as the source states it where it does
    counted = _counted_starts(selected, dataset, all_lengths)
    for chunk, lengths in lengths_by_chunk.items():
        # The rows of a LeRobot v3.0 source state a global index; of other sources the counted one holds
        stated = _stated_starts(selected, dataset, chunk) if kind == "lerobot_v3.0" else {}
        yield chunk, lengths, {episode: stated.get(episode, counted[episode]) for episode in lengths}


def _labelled_progress(
    selected: Selected, dataset: str, chunk: int, episodes: list[ExportEpisode]
) -> dict[int, EpisodeProgress]:
    """The progress of the episodes of a chunk that have a label, by episode."""
    labels = chunk_labels(selected, dataset, chunk, episodes)
    return {e: EpisodeProgress(label.ramp(), label.progress) for e, label in labels.items()}


def _chunk_rows(
    lengths: Mapping[int, int], starts: Mapping[int, int], progress: Mapping[int, EpisodeProgress]
) -> tuple[pa.Table, list[np.ndarray]]:
    """Rows of the episodes of a chunk, NaN where an episode has no progress, and the sparse columns of the others.

    `lengths`: frames of each episode, in order; `starts`: the global index of its first one.
    """
    n = sum(lengths.values())
    index, frames = np.empty(n, np.int64), np.empty(n, np.int64)
    sparse, dense = np.full(n, np.nan, np.float32), np.full(n, np.nan, np.float32)
    ramps, first = [], 0
    for episode, length in lengths.items():
        here = slice(first, first + length)
        frames[here] = np.arange(length)
        index[here] = frames[here] + starts[episode]
        if episode in progress:
            sparse[here], dense[here] = progress[episode].sparse, progress[episode].dense
            ramps.append(sparse[here])
        first += length
    owners = np.repeat(list(lengths), list(lengths.values()))
    return pa.table([index, owners, frames, sparse, dense], schema=SCHEMA), ramps


def chunk_rewards(lake: Lake, rewards: str, dataset: str, episodes: Sequence[ExportEpisode]) -> dict[int, np.ndarray]:
    """A model's progress of each episode, float32 [num_frames]: straight between scored frames that follow each other,
    NaN where one of these has no number, and after the last. Raises ExportError for an episode that was not scored."""
    scored = scored_frames(lake, rewards, dataset, episodes)
    lengths = {e.episode_index: e.num_frames for e in episodes}
    return {e: between(frames, progress, lengths[e]) for e, (frames, progress, _) in scored.items()}


Scored = tuple[np.ndarray, np.ndarray, np.ndarray]  # frames int64 [k], progress and probability of success [k]


def scored_frames(lake: Lake, rewards: str, dataset: str, episodes: Sequence[ExportEpisode]) -> dict[int, Scored]:
    """What a model said of each episode's scored frames, NaN where it gave no number.

    Raises ExportError for an episode that was not scored.
    """
    table = lake.arrow(
        "SELECT episode_index, frame_index, prediction, done, content_hash FROM eval_predictions WHERE eval_run = ? "
        "AND dataset = ? AND list_contains(?, episode_index) ORDER BY episode_index, frame_index",
        [rewards, dataset, [e.episode_index for e in episodes]],
    )
    index = table["episode_index"].to_numpy()
    frames, progress, done = (table[name].to_numpy() for name in ("frame_index", "prediction", "done"))
    hashes = table["content_hash"].to_pylist()
    found = {}
    for e in episodes:
        first, last = np.searchsorted(index, [e.episode_index, e.episode_index + 1])
        # rewards of other contents than the episode has by now do not count
        if first == last or hashes[first] != e.content_hash:
            raise ExportError(
                f"{dataset} episode {e.episode_index} has no rewards of this model: export rabc --from-model makes them"
            )
        found[e.episode_index] = (frames[first:last], progress[first:last], done[first:last])
    return found


def between(frames: np.ndarray, progress: np.ndarray, num_frames: int) -> np.ndarray:
    """float32 [num_frames]: straight lines between the scored `frames` [k] that follow each other and have a number.

    Example: between([0, 2, 4], [0.0, 0.5, nan], 6) == [0.0, 0.25, 0.5, nan, nan, nan]
    """
    at = np.arange(num_frames)
    line = np.interp(at, frames, np.nan_to_num(progress)).astype(np.float32)
    # the scored frame at or after each frame; beyond the last one there is none
    right = np.searchsorted(frames, at)
    is_scored = right < len(frames)
    is_scored[is_scored] = frames[right[is_scored]] == at[is_scored]
    # has_number[k + 1]: has the k-th scored frame a number? What is before the first and after the last has none
    has_number = np.concatenate([[False], np.isfinite(progress), [False]])
    on_both_sides = has_number[right] & has_number[right + 1]
    line[~np.where(is_scored, has_number[right + 1], on_both_sides)] = np.nan
    return line


def _counted_starts(selected: Selected, dataset: str, lengths: Mapping[int, int | None]) -> dict[int, int]:
    """The global index of each episode's first frame, by the lengths of all episodes of the source before it.

    A lake that was built from some episodes only does not know the others': then the source is listed again.
    """
    ((config,),) = selected.lake.rows("SELECT config FROM build_configs WHERE dataset = ?", [dataset])
    if json.loads(config).get("episodes") is not None:
        listing = list_episodes(open_source(selected, dataset))
        lengths = {r.episode_index: r.num_rows for r in listing.records}
    starts: dict[int, int] = {}
    index = 0
    for episode, length in sorted(lengths.items()):
        if length is None:
            raise ExportError(f"the rows of {dataset} episode {episode} cannot be read, so later frames have no index")
        starts[episode] = index
        index += length
    return starts


def _stated_starts(selected: Selected, dataset: str, chunk: int) -> dict[int, int]:
    """The global index of each episode's first frame, as the rows of the source state it; empty where they do not."""
    source = open_source(selected, dataset)
    index_by_file: dict[str, np.ndarray] = {}
    starts = {}
    for episode, record in records(selected, dataset, chunk).items():
        uri = record.data_uri
        if uri is None:
            continue
        if uri not in index_by_file:
            index = _index_column(source.resolve(uri))
            # One file without the column: the counted index holds for the whole chunk, not a mixture of both
            if index is None:
                return {}
            index_by_file[uri] = index
        starts[episode] = int(index_by_file[uri][record.row_start])
    return starts


def _index_column(path: Path) -> np.ndarray | None:
    with pq.ParquetFile(path) as file:
        if "index" not in file.schema_arrow.names:
            return None
        return file.read(["index"])["index"].to_numpy()


def configuration(kappa: float | None, progress_path: str | None = None) -> str:
    """What a training configuration of LeRobot needs, as flags."""
    flags = ["type=rabc", "head_mode=sparse", f"kappa={kappa}"]
    flags += [f"progress_path={progress_path}"] if progress_path else []
    return " \\\n".join(f"        --sample_weighting.{flag}" for flag in flags)


def example_size(kappas: Mapping[str, float | None]) -> str:
    """The action chunk that an example shows: LeRobot's usual one where it is among them."""
    return USUAL_CHUNK if USUAL_CHUNK in kappas else next(iter(kappas))


def kappa_table(kappas: Mapping[str, float | None], fps: float) -> str:
    lines = ["| action chunk (frames) | seconds | kappa |", "|---|---|---|"]
    lines += [f"| {size} | {int(size) / fps:.2f} | {kappa} |" for size, kappa in kappas.items()]
    return "\n".join(lines)


def _readme(
    dataset: str, fps: float, kappas: Mapping[str, float | None], options: RabcOptions, notes: Sequence[str]
) -> str:
    size = example_size(kappas)
    columns = (
        "`progress_sparse` rises\nevenly inside each segment; `progress_dense` is the label itself, which follows the "
        "motion. NaN: no label\nthat is sure enough, the frame keeps weight 1."
        if options.rewards is None
        else f"Both columns are what the\nreward model `{options.model}` said, with straight lines between the frames "
        "it was asked about. NaN: it gave\nno number, the frame keeps weight 1."
    )
    noted = "".join(f"\n{note}.\n" for note in notes)
    return f"""# Progress of {dataset} for LeRobot's RA-BC

`{FILE}` has one row per frame of the dataset, by its global `index`. {columns}
{noted}
Put it into the dataset's root, or name it. For a policy with chunks of {size} frames:

    lerobot-train ... \\
{configuration(kappas[size], f"/path/to/{FILE}")}

A frame counts in full when its chunk gains more than kappa. Suggested is what {1 - KAPPA_SHARE:.0%} of the frames
that gain exceed.

{kappa_table(kappas, fps)}

At the end of an episode chunks are cut off, so its last frames gain little, and the last one nothing.
"""
