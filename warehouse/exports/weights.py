"""Weights per frame for cloning a policy: `weights.parquet` for any learner, and a file that LeRobot reads to them.

What the weights are says warehouse.exports.weights. Frames that are not selected weigh 0 in both files, and so do
stretches with a fault that are asked to. LeRobot's own class reads its file back where LeRobot is installed, and what
it makes of it is compared with the weights.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, starmap
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from annotate.conventions.sidecars import KEYS
from core.domain.episode import Episode
from core.domain.label import IDLE
from core.errors import UserError
from warehouse.exports.export import PLACE, README, Export, ExportFolder
from warehouse.exports.frame_weights import (
    TRIED_LEROBOT,
    WeighedRun,
    Weighting,
    as_progress,
    balancing_gains,
    frame_weights,
    gains_of,
)
from warehouse.exports.lerobot import LerobotExport
from warehouse.exports.options import LEROBOT, SIZES, Selection
from warehouse.exports.rabc import PROGRESS, FrameExport, FrameRows, configuration, write_frames
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

Key = tuple[str, int]  # dataset, episode_index
Stretches = Mapping[Key, Sequence[tuple[int, int]]]  # half-open, of frames with faults, by run
# The global index of an episode's first frame, its number, and its frames' weights [n]
EpisodeWeights = tuple[int, int, np.ndarray]


def _weighed(x: ExportedEpisode, chunk_size: int) -> WeighedRun:
    e = x.episode
    gains = np.full(e.num_frames, np.nan, np.float32)
    is_useful = np.ones(e.num_frames, bool)
    if x.label is not None:
        gains = gains_of(ramp(x.label), chunk_size)
        useful = [s.kind != IDLE and s.completed for s in x.label.segments]
        is_useful = np.repeat(useful, [len(s) for s in x.label.segments])
    return WeighedRun(e.task, gains, is_useful, e.success is False)


def weights_by_episode(
    selected: Selected, options: Any, stretches: Stretches
) -> dict[Key, np.ndarray]:
    """The weights [n] of each selected run's frames, 0 in `stretches`. Raises UserError where all weigh 0."""
    runs = {x.episode.key: _weighed(x, options.chunk_size) for x in selected.each()}
    weights = frame_weights([*runs.values()], options.weighting)
    for run, run_weights in zip(runs, weights, strict=True):
        for start, end in stretches.get(run, ()):
            run_weights[start:end] = 0.0
    if not any(w.any() for w in weights):
        raise UserError(
            f"nothing to export: no frame of the {len(runs)} episodes selected would weigh more than 0 by "
            f"--kind {options.weighting}"
        )
    return dict(zip(runs, weights, strict=True))


def write_weights(
    folder: ExportFolder, episodes: Iterable[EpisodeWeights], weighting: Weighting, chunk_size: int
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
    path = folder.path(LEROBOT_FILE)
    maker = {"reward_model_path": "proccorpus:weights"}
    for file, schema, of_file, facts in (
        (folder.path(FILE), SCHEMA, runs, ours),
        (path, LEROBOT_SCHEMA, _for_lerobot(runs, chunk_size), maker | ours),
    ):
        names = schema.names[len(KEYS) :]
        rows = (
            FrameRows(start, number, np.arange(len(values)), dict.fromkeys(names, values))
            for start, number, values in of_file
        )
        write_frames(file, schema, rows, lambda facts=facts: facts)
    index = np.concatenate([first + np.arange(len(weights)) for first, _, weights in runs])
    weights = np.concatenate([weights for *_, weights in runs])
    facts = metadata | {"mean_weight": float(weights.mean())}
    return facts | verified(path, index, weights, chunk_size)


def _for_lerobot(runs: Sequence[EpisodeWeights], chunk_size: int) -> Iterator[EpisodeWeights]:
    """Progress whose gains LeRobot weighs as the frames weigh, and the made-up run."""
    heaviest = max(float(weights.max()) for *_, weights in runs)
    scaled = [weights / heaviest for *_, weights in runs]
    total = sum(float(w.sum()) for w in scaled)
    squares = sum(float((w**2).sum()) for w in scaled)
    made_up = balancing_gains(sum(map(len, scaled)), total, squares)
    for (start, number, _), weights in zip(runs, scaled, strict=True):
        yield start, number, as_progress(weights, chunk_size)
    yield -len(made_up), MADE_UP, as_progress(made_up, chunk_size)


def lerobot_version() -> str | None:
    """None where LeRobot is not installed."""
    try:
        return version("lerobot")
    except PackageNotFoundError:
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


class _ExportOfStretches(Export):
    """An export that gives frames in stretches with faults no weight."""

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


class WeightsExport(_ExportOfStretches, FrameExport):
    """Both files for the LeRobot dataset that a dataset was built from, with a row for each of its frames. All gains
    are in memory at a time."""

    def write_rest(self) -> Mapping[str, Any]:
        options = self.options
        weights = weights_by_episode(self.selected, options, self.stretches)
        episodes = (
            (
                place.start,
                place.number,
                weights[place.exported.episode.key] if place.exported else np.zeros(place.length),
            )
            for place in chain.from_iterable(self.chunk_places())
        )
        facts = self.folder.part(
            "weights", write_weights, self.folder, episodes, options.weighting, options.chunk_size
        )
        lines = usage(options.chunk_size)
        notes = [*self.notes(), *notes_on(self.selected, options, facts, self.stretches)]
        noted = "".join(f"\n{note}.\n" for note in notes)
        self.folder.write(
            README, f"# Weights of the frames of {self.dataset}\n{noted}\n{section(facts, lines)}"
        )
        return {"weights": facts, "notes": notes, "use": lines}


class WeightedDatasetExport(_ExportOfStretches, LerobotExport):
    """A LeRobot dataset with a column of weights, and both files by its own numbers of frames."""

    added = MappingProxyType({WEIGHT: "float32"})

    def added_columns(self, e: Episode) -> dict[str, np.ndarray]:
        return {WEIGHT: self.weights[e.key].astype(np.float32)}

    def write_rest(self) -> dict[str, Any]:
        options = self.options
        self.weights = weights_by_episode(self.selected, options, self.stretches)
        episodes = (
            (self.starts[n], n, self.weights[e.key]) for n, e in enumerate(self.selected.episodes)
        )
        facts = self.folder.part(
            "weights", write_weights, self.folder, episodes, options.weighting, options.chunk_size
        )
        lines = usage(options.chunk_size, PLACE)
        self.added_notes = notes_on(self.selected, options, facts, self.stretches)
        self.added_section = f"\n{section(facts, lines)}"
        return {**super().write_rest(), "weights": facts, "use": lines}


def weights_export(kind: str, lake: Lake, selection: Selection, options: Any) -> Export:
    """Files beside a dataset, or a dataset with them. Raises UserError for options that shape a dataset without one."""
    if options.in_dataset:
        return WeightedDatasetExport(kind, lake, selection, options)
    unused = options.model_dump(include={*LEROBOT, *SIZES}, exclude_defaults=True)
    if unused:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise UserError(f"{flags}: only a dataset is shaped so; add --in-dataset")
    return WeightsExport(kind, lake, selection, options)
