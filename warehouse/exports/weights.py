"""Weights per frame for cloning a policy: `weights.parquet` for any learner, and a file that LeRobot reads to them.

Frames that are not selected weigh 0 in both files, and so do stretches with a fault that are asked to. LeRobot's own
class reads its file back where LeRobot is installed, and what it makes of it is compared with the weights.

A frame's gain is the progress that the next action chunk brings. `awr`: exp of the gain, standardised within its task,
at most CAP (advantage-weighted regression). `segments`: 0 where a segment fails or stands still, else 1. `top-half`:
1 for the half of the frames that gains most, else 0. `rabc`: as LeRobot's RA-BC weighs. `combined`: `awr`, and 0 where
a segment fails or stands still and in a run that failed. A frame without a label counts as one of mean gain. The last
frame of a run weighs 0: nothing follows that could be learnt.

LeRobot 0.6.1 reads no weights, but progress: its RABCWeights takes the gain r over a chunk, and below `kappa` weighs it
clip((r - mean + 2 std) / (4 std), 0, 1), with mean and standard deviation of all gains of the file. `as_progress` makes
progress whose gains are weights of 0 to 1, and `balancing_gains` those of a made-up run beside them, so that mean and
deviation become 1/2 and 1/4: then LeRobot's weight of a frame is ours.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, starmap
from math import ceil, sqrt
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from annotate.conventions.sidecars import KEYS
from core.domain.label import IDLE, Episode
from core.errors import UserError
from warehouse.exports.export import PLACE, README, Export, ExportFolder
from warehouse.exports.lerobot import LerobotExport
from warehouse.exports.options import LEROBOT, SIZES, Selection, Weighting
from warehouse.exports.rabc import (
    EPSILON,
    KAPPA_SHARE,
    PROGRESS,
    TRIED_LEROBOT,
    FrameExport,
    FrameRows,
    configuration,
    gains_of,
    rabc_weights,
    write_frames,
)
from warehouse.exports.selection import ExportedEpisode, Selected, counted, ramp
from warehouse.lake import Lake, content_key
from warehouse.lake.acceptances import stretches_with

FILE = "weights.parquet"
LEROBOT_FILE = "lerobot_weights.parquet"
WEIGHT = "sample_weight"  # the column of a LeRobot dataset
SCHEMA = pa.schema(dict.fromkeys(KEYS, pa.int64()) | {"weight": pa.float32()})
# float64: LeRobot takes differences of sums over a whole run
LEROBOT_SCHEMA = pa.schema(dict.fromkeys(KEYS, pa.int64()) | dict.fromkeys(PROGRESS, pa.float64()))
# Number of the run that is none; its frames count backwards from -1, as no dataset's do
MADE_UP = -1
KAPPA = 2.0  # above every gain of the file, which are at most 1: what exceeds it would weigh 1
# Of what LeRobot reads; the second as a share of the mean weight
LEAST_CORRELATION, MOST_OFF = (0.9999, 1e-3)
TAKE_WEIGHTS = ("evo1", "molmoact2", "pi0", "pi05", "smolvla")  # LeRobot 0.6.1's policies
EXAMPLE_POLICY = "smolvla"
CAP = 20.0  # of AWR: times the weight of a frame of mean gain
TOP = 0.5  # of the frames: by what gains most
MEAN, DEVIATION = 0.5, 0.25  # of all gains that LeRobot reads
SQUARES_PER_FRAME = MEAN**2 + DEVIATION**2  # the mean of the squares of these

Key = tuple[str, int]  # dataset, episode_index
Stretches = Mapping[Key, Sequence[tuple[int, int]]]  # half-open, of frames with faults, by run


class WeighedRun(NamedTuple):
    """What weights hang on, of one run: `gains` float [n], NaN without a label; `is_useful` bool [n]: is the frame in a
    segment that neither fails nor stands still?"""

    task: str | None
    gains: np.ndarray
    is_useful: np.ndarray
    has_failed: bool


def frame_weights(runs: Sequence[WeighedRun], weighting: Weighting) -> list[np.ndarray]:
    """The weight of each frame of each run, float64 [n], 0 or more."""
    gains = np.concatenate([run.gains for run in runs]).astype(np.float64)
    lengths = [len(run.gains) for run in runs]
    names = dict.fromkeys(run.task for run in runs)
    numbers = {task: number for number, task in enumerate(names)}
    tasks = np.repeat([numbers[run.task] for run in runs], lengths)
    is_useful = np.concatenate([run.is_useful for run in runs])
    if weighting == "segments":
        weights = is_useful.astype(np.float64)
    elif weighting == "rabc":
        filled = _filled(gains, tasks)
        rising = filled[filled > 0]
        kappa = float(np.quantile(rising, KAPPA_SHARE)) if len(rising) else 0.0
        weights = rabc_weights(filled, kappa)
    else:
        standard = _standardised(gains, tasks)
        weights = np.minimum(np.exp(standard), CAP)
        if weighting == "top-half":
            weights = (standard >= np.quantile(standard, 1 - TOP)).astype(np.float64)
        if weighting == "combined":
            weights *= is_useful & ~np.repeat([run.has_failed for run in runs], lengths)
    ends = np.cumsum(lengths)
    weights[ends - 1] = 0.0
    return np.split(weights, ends[:-1])


def _standardised(gains: np.ndarray, tasks: np.ndarray) -> np.ndarray:
    """Gains less the mean of their task, in its standard deviations; 0 without a label, and where
    all gain alike."""
    is_known = np.isfinite(gains)
    above_mean = _filled(gains, tasks) - _mean_by_task(gains, tasks, is_known)[tasks]
    deviations = np.sqrt(_mean_by_task(above_mean**2, tasks, is_known))[tasks]
    has_spread = deviations > EPSILON
    return np.divide(above_mean, deviations, out=np.zeros_like(above_mean), where=has_spread)


def _filled(gains: np.ndarray, tasks: np.ndarray) -> np.ndarray:
    """Gains with the mean of their task where there is no label."""
    is_known = np.isfinite(gains)
    return np.where(is_known, gains, _mean_by_task(gains, tasks, is_known)[tasks])


def _mean_by_task(values: np.ndarray, tasks: np.ndarray, is_known: np.ndarray) -> np.ndarray:
    """The mean of the known values [n] of each task, float64 [tasks]; 0 where none is known."""
    counts = np.bincount(tasks[is_known], minlength=tasks.max() + 1)
    sums = np.bincount(tasks[is_known], values[is_known], minlength=tasks.max() + 1)
    return sums / np.maximum(counts, 1)


def as_progress(weights: np.ndarray, chunk_size: int) -> np.ndarray:
    """Progress of a run, float64 [n], whose gain over a chunk is the weight of each frame [n]; it ends at 0.

    The last frame's weight must be 0: it cannot gain.

    Example: as_progress([0.5, 1.0, 0.25, 0.0], 2) == [-0.75, -1.0, -0.25, 0.0]
    """
    last = len(weights) - 1
    progress = np.zeros(len(weights))
    for end in range(last, 0, -chunk_size):
        frames = np.arange(max(0, end - chunk_size), end)
        progress[frames] = progress[np.minimum(frames + chunk_size, last)] - weights[frames]
    return progress


def balancing_gains(count: int, total: float, squares: float) -> np.ndarray:
    """Gains of a made-up run, float64 [m] with a last one of 0, with which all have the mean MEAN
    and the deviation DEVIATION; there are `count` others, with their sum and the sum of their
    squares.

    Of m that are equal but for a little the mean and the deviation can both be had as soon as m is
    large enough: m is the least even number, 2 to 4 times the count.
    """
    count += 1  # the made-up run's last frame
    missing = MEAN * count - total
    linear = SQUARES_PER_FRAME * count - squares - 2 * MEAN * missing
    m = 2 * ceil((sqrt(linear**2 + 4 * DEVIATION**2 * missing**2) - linear) / (4 * DEVIATION**2))
    m = max(m, 2)
    mean = (missing + MEAN * m) / m
    spread = sqrt(max(0.0, (SQUARES_PER_FRAME * (count + m) - squares) / m - mean**2))
    signs = np.resize([1.0, -1.0], m)
    return np.append(mean + spread * signs, 0.0)


def _weighed(x: ExportedEpisode, chunk_size: int) -> WeighedRun:
    e = x.episode
    gains = np.full(e.num_frames, np.nan, np.float32)
    is_useful = np.ones(e.num_frames, bool)
    if x.label is not None:
        gains = gains_of(ramp(x.label), chunk_size)
        useful = [s.kind != IDLE and s.completed for s in x.label.segments]
        is_useful = np.repeat(useful, [len(s) for s in x.label.segments])
    return WeighedRun(e.task, gains, is_useful, e.success is False)


def weight_rows(start: int, number: int, weights: np.ndarray) -> FrameRows:
    """Rows of an episode's weights [n]; `start`: the global index of its first frame."""
    return FrameRows(start, number, np.arange(len(weights)), {"weight": weights})


def write_weights(
    folder: ExportFolder, episodes: Iterable[FrameRows], weighting: Weighting, chunk_size: int
) -> dict[str, Any]:
    """Write both files of some episodes' weights; returns facts. Raises UserError where LeRobot reads others."""
    runs = list(episodes)
    metadata = {
        "weighting": weighting,
        "chunk_size": chunk_size,
        "lerobot": lerobot_version(),
        "kappa": KAPPA,
    }
    ours = {"proccorpus": json.dumps(metadata)}
    write_frames(folder.path(FILE), SCHEMA, runs, ours)
    path = folder.path(LEROBOT_FILE)
    maker = {"reward_model_path": "proccorpus:weights"}
    write_frames(path, LEROBOT_SCHEMA, _for_lerobot(runs, chunk_size), maker | ours)
    index = np.concatenate([run.start + run.frames for run in runs])
    weights = np.concatenate([run.values["weight"] for run in runs])
    facts = metadata | {"mean_weight": float(weights.mean())}
    return facts | verified(path, index, weights, chunk_size)


def _for_lerobot(runs: Sequence[FrameRows], chunk_size: int) -> Iterator[FrameRows]:
    """Progress whose gains LeRobot weighs as the frames weigh, and the made-up run."""
    heaviest = max(float(run.values["weight"].max()) for run in runs)
    scaled = [run.values["weight"] / heaviest for run in runs]
    total = sum(float(w.sum()) for w in scaled)
    squares = sum(float((w**2).sum()) for w in scaled)
    made_up = balancing_gains(sum(map(len, scaled)), total, squares)
    starts = [*((run.start, run.number) for run in runs), (-len(made_up), MADE_UP)]
    for (start, number), weights in zip(starts, [*scaled, made_up], strict=True):
        progress: dict[str, Any] = dict.fromkeys(PROGRESS, as_progress(weights, chunk_size))
        yield FrameRows(start, number, np.arange(len(weights)), progress)


def lerobot_version() -> str | None:
    """None where LeRobot is not installed."""
    try:
        return version("lerobot")
    except PackageNotFoundError:  # a folder of that name would be found as a module
        return None


def weights_by_lerobot(path: Path, index: np.ndarray, chunk_size: int) -> np.ndarray:
    """What LeRobot's class makes of the file for frames by their global index [n], as one batch:
    float64 [n], mean 1.

    Raises ModuleNotFoundError where LeRobot is not installed.
    """
    from lerobot.rewards.sarm.rabc import RABCWeights

    reader = RABCWeights(
        path, chunk_size=chunk_size, head_mode="sparse", kappa=KAPPA, fallback_weight=0.0
    )
    weights, _ = reader.compute_batch_weights({"index": index})
    return weights.cpu().numpy().astype(np.float64)


def verified(path: Path, index: np.ndarray, weights: np.ndarray, chunk_size: int) -> dict[str, Any]:
    """How what LeRobot reads fits the weights [n] of frames by their index [n]; without numbers where LeRobot is not
    installed. Raises UserError where it does not fit."""
    try:
        read = weights_by_lerobot(path, index, chunk_size)
    except ModuleNotFoundError:
        return {"correlation": None, "largest_difference": None}
    expected = weights / weights.mean()
    off = float(np.abs(read - expected).max())
    # Of weights that are all alike there is no correlation: the difference decides
    if np.ptp(read) and np.ptp(expected):
        correlation = float(np.corrcoef(read, expected)[0, 1])
    else:
        correlation = 1.0
    if correlation < LEAST_CORRELATION or off > MOST_OFF * expected.max():
        raise UserError(
            f"LeRobot {lerobot_version()} reads other weights from {path.name} than are written (correlation "
            f"{correlation:.6f}, largest difference {off:.4f} of the mean): install LeRobot {TRIED_LEROBOT}"
        )
    return {"correlation": round(correlation, 6), "largest_difference": round(off, 6)}


def usage(chunk_size: int, root: str = "") -> list[str]:
    """The lines that use an export; `root`: the LeRobot dataset that goes with it, where there is one."""
    dataset = [f"--dataset.repo_id=local/weighted --dataset.root={root}"] if root else []
    # LeRobot refuses a policy that acts for more steps than its chunk has
    policy = f"--policy.type={EXAMPLE_POLICY} --policy.chunk_size={chunk_size} --policy.n_action_steps={chunk_size}"
    flags = [*dataset, policy]
    weighting = configuration(KAPPA, f"{PLACE}/{LEROBOT_FILE}", without_progress_0=True)
    command = " \\\n".join(
        ["    lerobot-train ...", *(f"        {flag}" for flag in flags), weighting]
    )
    return [
        f"Policies of LeRobot {TRIED_LEROBOT} that take weights ({', '.join(TAKE_WEIGHTS)}), for chunks of "
        f"{chunk_size} frames:",
        *command.splitlines(),
        "Its other policies, such as act and diffusion, take none and end in a TypeError. For them: a dataset without",
        "failed runs (proccorpus export lerobot --where success), or a sampler in a training loop of your own:",
        f"    weights = pyarrow.parquet.read_table('{PLACE}/{FILE}')['weight'].to_numpy()",
        "    sampler = torch.utils.data.WeightedRandomSampler(weights, len(weights))",
    ]


def notes_on(
    selected: Selected, options: Any, facts: Mapping[str, Any], stretches: Stretches
) -> list[str]:
    """What a user should know of the weights."""
    unlabelled = sum(e.label_run is None for e in selected.episodes)
    unknown = sum(e.success is None for e in selected.episodes)
    notes = counted(
        unlabelled, "episodes have no label: their frames weigh as if they gained as the mean does"
    )
    if options.weighting == "combined":
        notes += counted(
            unknown, "episodes do not say how they ended: they weigh as if they had not failed"
        )
    if options.without_stretches:
        checks = " or ".join(options.without_stretches)
        frames = (set(chain.from_iterable(starmap(range, run))) for run in stretches.values())
        count = sum(map(len, frames))
        notes.append(
            f"{count} frames of {len(stretches)} runs are in stretches with {checks}: they weigh 0"
        )
    if facts["correlation"] is None:
        notes.append(
            f"LeRobot is not installed here, so how it reads {LEROBOT_FILE} was not looked at"
        )
    return notes


def section(facts: Mapping[str, Any], lines: Sequence[str]) -> str:
    """What a card says of the weights and of how to use them."""
    if facts["correlation"] is not None:
        read = (
            f"LeRobot {facts['lerobot']} reads it to these weights (correlation {facts['correlation']:.6f}, largest "
            f"difference {facts['largest_difference']:.6f} of the mean)."
        )
    else:
        read = "LeRobot was not installed where it was made, so how it reads the file was not looked at."
    return f"""## Weights

`{FILE}`: the `weight` of each frame by its global `index`, 0 or more (`--kind {facts["weighting"]}`; gains over
{facts["chunk_size"]} frames). What was not selected, and the last frame of a run, weighs 0.

`{LEROBOT_FILE}` holds the same for LeRobot, as made-up progress that is good for nothing else, and for chunks of
{facts["chunk_size"]} frames alone. {read}

{chr(10).join(lines)}
"""


class _WeighingExport(Export):
    """An export with both files of weights; frames in stretches with faults weigh nothing."""

    @cached_property
    def stretches(self) -> Stretches:
        """Of the selected runs, as checks and people say by now."""
        if not self.options.without_stretches:
            return {}
        stretches = stretches_with(self.now, self.options.without_stretches)
        return {e.key: stretches[e.key] for e in self.selected.episodes if e.key in stretches}

    @property
    def identity(self) -> str:
        """Also the stretches: people accept some while the snapshot of a release stays."""
        if not self.stretches:
            return super().identity
        return content_key(super().identity, repr(sorted(self.stretches.items())))

    @cached_property
    def weights(self) -> dict[Key, np.ndarray]:
        """Of each run's frames [n], 0 in `stretches`. Raises UserError where all weigh 0."""
        weighting = self.options.weighting
        runs = {x.episode.key: _weighed(x, self.options.chunk_size) for x in self.episodes()}
        weights = frame_weights([*runs.values()], weighting)
        for run, run_weights in zip(runs, weights, strict=True):
            for start, end in self.stretches.get(run, ()):
                run_weights[start:end] = 0.0
        if not any(w.any() for w in weights):
            raise UserError(
                f"nothing to export: no frame of the {len(runs)} episodes selected would weigh more than 0 by "
                f"--kind {weighting}"
            )
        return dict(zip(runs, weights, strict=True))

    def write_weights(
        self, episodes: Iterable[FrameRows], root: str = ""
    ) -> tuple[dict[str, Any], list[str], str]:
        """Both files; returns facts for the manifest, notes, and what a card says. `root` as of `usage`."""
        weighting, chunk_size = self.options.weighting, self.options.chunk_size
        facts = self.folder.part(
            "weights", write_weights, self.folder, episodes, weighting, chunk_size
        )
        lines = usage(chunk_size, root)
        notes = notes_on(self.selected, self.options, facts, self.stretches)
        return {"weights": facts, "use": lines}, notes, section(facts, lines)


class WeightsExport(_WeighingExport, FrameExport):
    """Both files for the LeRobot dataset that a dataset was built from, with a row for each of its frames. All gains
    are in memory at a time."""

    def write_rest(self) -> Mapping[str, Any]:
        weights = self.weights
        episodes = (
            weight_rows(start, number, weights[x.episode.key] if x else np.zeros(length))
            for number, start, length, x in self.places()
        )
        facts, notes, card = self.write_weights(episodes)
        notes = [*self.notes(), *notes]
        noted = "".join(f"\n{note}.\n" for note in notes)
        self.folder.write(README, f"# Weights of the frames of {self.dataset}\n{noted}\n{card}")
        return {"notes": notes, **facts}


class WeightedDatasetExport(_WeighingExport, LerobotExport):
    """A LeRobot dataset with a column of weights, and both files by its own numbers of frames."""

    added = MappingProxyType({WEIGHT: "float32"})

    def added_columns(self, e: Episode) -> dict[str, np.ndarray]:
        return {WEIGHT: self.weights[e.key].astype(np.float32)}

    def write_rest(self) -> dict[str, Any]:
        episodes = (
            weight_rows(self.starts[n], n, self.weights[e.key])
            for n, e in enumerate(self.selected.episodes)
        )
        facts, self.added_notes, card = self.write_weights(episodes, PLACE)
        self.added_section = f"\n{card}"
        return {**super().write_rest(), **facts}


def weights_export(kind: str, lake: Lake, selection: Selection, options: Any) -> Export:
    """Files beside a dataset, or a dataset with them. Raises UserError for options that shape a dataset without one."""
    if options.in_dataset:
        return WeightedDatasetExport(kind, lake, selection, options)
    unused = options.model_dump(include={*LEROBOT, *SIZES}, exclude_defaults=True)
    if unused:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise UserError(f"{flags}: only a dataset is shaped so; add --in-dataset")
    return WeightsExport(kind, lake, selection, options)
