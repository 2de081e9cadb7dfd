"""Pairs of parts of runs of one task, one further or better, as a folder that Hugging Face's `load_dataset` opens.

A row shows two runs, A and B, in an order drawn by seed, each by pictures from its start as far as it is compared. Its
columns `images`, `prompt`, `chosen` and `rejected` are TRL's preference type with pictures (conversations, explicit
prompt). `chosen_trajectory` and `rejected_trajectory` are what Robometer's PreferenceSample is made of, under its names
for fields; `image_index` says which of the pictures are whose. `why`, `margin`, episodes, frames and label run say what
a preference rests on. Splits are apart: no pair lies across two.
"""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from annotate.preferences import WHYS, ComparedRun, Pair, RunPart, draw_pairs
from annotate.samples.procvqa import PROGRESS, task_text
from core.files import write_file
from warehouse.exports.common import Exported, ExportError, ExportFolder, open_folder
from warehouse.exports.options import PreferencesOptions, SampleOptions, Selection
from warehouse.exports.parquet import PICTURE, write_rows
from warehouse.exports.samples import Samples, open_samples, shown_frame
from warehouse.lake import Lake
from warehouse.lake.compared import RunFacts, run_facts
from warehouse.releases.licences import hub_licence

README = "README.md"
MOST_PICTURES = 8  # of a part
KEPT_EPISODES = 64  # whose pictures are held at a time
TRAJECTORY = pa.struct(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("data_source", pa.string()),
        ("quality_label", pa.string()),
        ("target_progress", pa.list_(pa.float32())),
        ("episode_index", pa.int64()),
        ("frame_index", pa.list_(pa.int64())),
        ("label_run", pa.string()),
        ("image_index", pa.list_(pa.int64())),
    ]
)
MESSAGES = pa.list_(
    pa.struct([("role", pa.string()), ("content", pa.list_(pa.struct([("type", pa.string()), ("text", pa.string())])))])
)
SCHEMA = pa.schema(
    [
        ("why", pa.string()),
        ("margin", pa.float32()),
        ("task", pa.string()),
        ("images", pa.list_(PICTURE)),
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("chosen_trajectory", TRAJECTORY),
        ("rejected_trajectory", TRAJECTORY),
    ]
)
QUESTIONS = {
    "further": "Which of the two runs is further along the task?",
    "outcome": "Which of the two runs has reached the goal of the task?",
    "quality": "Which of the two runs does the task better?",
}


@dataclass(frozen=True)
class _Moment:
    """Where the question about a run's progress at a frame lies, and its label."""

    frame: int
    progress: float
    sample_id: str
    shard: str
    offset: int


@dataclass(frozen=True)
class _Shown:
    """The last picture of a moment's question, and what it shows."""

    jpeg: bytes
    path: str


class _Pictures:
    """Pictures of episodes' moments, of a few episodes at a time."""

    def __init__(self, samples: Samples, moments: Mapping[tuple[str, int], Sequence[_Moment]]) -> None:
        self._samples, self._moments = samples, moments
        self._kept: OrderedDict[tuple[str, int], dict[int, _Shown]] = OrderedDict()

    def of(self, key: tuple[str, int]) -> dict[int, _Shown]:
        """By frame. Raises ShardError."""
        if key not in self._kept:
            self._kept[key] = self._read(key)
            if len(self._kept) > KEPT_EPISODES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _read(self, key: tuple[str, int]) -> dict[int, _Shown]:
        by_entry: dict[tuple[str, int], list[str]] = defaultdict(list)
        for moment in self._moments[key]:
            by_entry[moment.shard, moment.offset].append(moment.sample_id)
        found = {}
        for (shard, offset), sample_ids in by_entry.items():
            for sample in self._samples.of_entry(shard, offset, set(sample_ids)):
                path = shown_frame(sample.row, sample.row["pictures"][-1]).path
                found[sample.row["frames"][-1]] = _Shown(sample.pictures[-1], path)
        return found


def export(
    lake: Lake, selection: Selection, out: Path, options: PreferencesOptions, *, overwrite: bool = False
) -> Exported:
    """Write the pairs of each split; an export that broke off goes on.

    Raises ExportError, ShardError, and what `select` raises.
    """
    samples = open_samples(lake, selection, SampleOptions(), (PROGRESS,))
    folder = open_folder(out, "preferences", samples.identity("preferences", options), overwrite)
    if folder.manifest is not None:
        return folder.exported()
    facts, moments, splits = run_facts(samples.selected.lake.con), _moments(samples), _splits(samples)
    by_split = _pairs(facts, moments, splits, options)
    if not any(by_split.values()):
        raise ExportError(
            f"nothing to export: none of the {len(moments)} episodes selected can be compared with another of its task"
        )
    pictures = _Pictures(samples, moments)
    for split, pairs in by_split.items():
        if pairs and folder.done(split) is None:
            _write_split(folder, split, pairs, facts, moments, pictures, options.seed)
    counts = {split: dict(Counter(pair.why for pair in pairs)) for split, pairs in by_split.items() if pairs}
    notes = [*samples.selected.label_notes(), *_lacking(counts)]
    if folder.done(README) is None:
        write_file(folder.path(README), _readme(samples, counts, notes, options).encode())
        folder.finish_part(README, [README])
    total = sum(sum(of_split.values()) for of_split in counts.values())
    return folder.finish(samples.selected, options, {"samples": total, "pairs": counts, "notes": notes})


def _moments(samples: Samples) -> dict[tuple[str, int], list[_Moment]]:
    """The labelled moments of each episode in order of time, each frame once."""
    rows = samples.selected.lake.rows(
        "SELECT DISTINCT ON (s.dataset, s.episode_index, s.frames[-1]) s.dataset, s.episode_index, s.frames[-1], "
        's.progress, s.sample_id, x.shard, x."offset" FROM export_samples x '
        "JOIN lake.samples s ON s.dataset = x.dataset AND s.chunk = x.chunk AND s.sample_id = x.sample_id "
        "WHERE NOT x.withheld AND s.progress IS NOT NULL "
        "ORDER BY s.dataset, s.episode_index, s.frames[-1], s.sample_id"
    )
    found: dict[tuple[str, int], list[_Moment]] = defaultdict(list)
    for dataset, episode, *moment in rows:
        found[dataset, episode].append(_Moment(*moment))
    return dict(found)


def _splits(samples: Samples) -> dict[tuple[str, int], str]:
    rows = samples.selected.lake.rows(
        "SELECT DISTINCT dataset, episode_index, split FROM export_samples WHERE NOT withheld"
    )
    return {(dataset, episode): split for dataset, episode, split in rows}


def _pairs(
    facts: Mapping[tuple[str, int], RunFacts],
    moments: Mapping[tuple[str, int], Sequence[_Moment]],
    splits: Mapping[tuple[str, int], str],
    options: PreferencesOptions,
) -> dict[str, list[Pair]]:
    """By split; those with the same chosen run stand together, so that a row group holds a picture once."""
    runs_by_split: dict[str, list[ComparedRun]] = defaultdict(list)
    for key, of_run in moments.items():
        known = facts[key]
        run = ComparedRun(
            *key,
            known.same_as,
            np.array([m.frame for m in of_run]),
            np.array([m.progress for m in of_run]),
            known.success,
            known.quality,
            known.label_run,
        )
        runs_by_split[splits[key]].append(run)
    return {
        split: sorted(draw_pairs(runs, options.per_run, options.seed), key=lambda pair: pair.chosen.key)
        for split, runs in sorted(runs_by_split.items())
    }


def _write_split(
    folder: ExportFolder,
    split: str,
    pairs: Sequence[Pair],
    facts: Mapping[tuple[str, int], RunFacts],
    moments: Mapping[tuple[str, int], Sequence[_Moment]],
    pictures: _Pictures,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    chosen_first = rng.random(len(pairs)) < 0.5

    def rows() -> Iterator[list[dict]]:
        for pair, is_first in zip(pairs, chosen_first.tolist(), strict=True):
            yield [_row(pair, is_first, facts, moments, pictures)]

    folder.finish_part(split, write_rows(folder, f"pairs/{split}/part", SCHEMA, rows()), {"pairs": len(pairs)})


def _row(
    pair: Pair,
    chosen_first: bool,
    facts: Mapping[tuple[str, int], RunFacts],
    moments: Mapping[tuple[str, int], Sequence[_Moment]],
    pictures: _Pictures,
) -> dict[str, Any]:
    task = task_text(facts[pair.chosen.key].same_as)
    shown = _shown(pair, moments)
    first, second = ("chosen", "rejected") if chosen_first else ("rejected", "chosen")
    images = [
        {"bytes": of_run[m.frame].jpeg, "path": of_run[m.frame].path}
        for name in (first, second)
        for of_run in [pictures.of(_parts(pair)[name].key)]
        for m in shown[name]
    ]
    begin = {first: 0, second: len(shown[first])}
    trajectories = {
        f"{name}_trajectory": {
            "id": f"{part.dataset}/{part.episode_index:06d}",
            "task": task,
            "data_source": part.dataset,
            "quality_label": _quality_label(pair, name, facts[part.key].success),
            "target_progress": [m.progress for m in shown[name]],
            "episode_index": part.episode_index,
            "frame_index": [m.frame for m in shown[name]],
            "label_run": part.label_run,
            "image_index": list(range(begin[name], begin[name] + len(shown[name]))),
        }
        for name, part in _parts(pair).items()
    }
    picture = {"type": "image", "text": None}
    content = [
        _text(f"The task: {task}\nRun A:"),
        *([picture] * len(shown[first])),
        _text("Run B:"),
        *([picture] * len(shown[second])),
        _text(QUESTIONS[pair.why]),
    ]
    answers = {name: [_text("Run A" if name == first else "Run B")] for name in (first, second)}
    return {
        "why": pair.why,
        "margin": pair.margin,
        "task": task,
        "images": images,
        "prompt": [{"role": "user", "content": content}],
        "chosen": [{"role": "assistant", "content": answers["chosen"]}],
        "rejected": [{"role": "assistant", "content": answers["rejected"]}],
        **trajectories,
    }


def _parts(pair: Pair) -> dict[str, RunPart]:
    return {"chosen": pair.chosen, "rejected": pair.rejected}


def _shown(pair: Pair, moments: Mapping[tuple[str, int], Sequence[_Moment]]) -> dict[str, list[_Moment]]:
    """The moments by which each part is shown: evenly spread from the run's start to the last frame that it is compared
    by, as many of both, or who counts pictures would know which run came further."""
    until = {name: [m for m in moments[part.key] if m.frame <= part.frames[-1]] for name, part in _parts(pair).items()}
    count = min(MOST_PICTURES, *map(len, until.values()))
    # From the end: of a single picture it is the last one
    return {
        name: [found[k] for k in np.linspace(len(found) - 1, 0, count).round().astype(int)[::-1].tolist()]
        for name, found in until.items()
    }


def _quality_label(pair: Pair, name: str, success: bool | None) -> str | None:
    """Robometer's word for how a run was done; None where nobody says how it ended."""
    if success is None:
        return None
    if not success:
        return "failure"
    return "suboptimal" if pair.why == "quality" and name == "rejected" else "successful"


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _lacking(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Kinds that no pair is of, in sentences."""
    missing = [why for why in WHYS if not any(of_split.get(why) for of_split in counts.values())]
    reasons = {
        "further": "no two labelled moments of a task are far enough apart",
        "outcome": "no task has both a run that succeeded and one that failed",
        "quality": "no task has runs of which one was demonstrated much more as is usual",
    }
    return [f"no pair of the kind {why}: {reasons[why]}" for why in missing]


def _readme(
    samples: Samples, counts: Mapping[str, Mapping[str, int]], notes: Sequence[str], options: PreferencesOptions
) -> str:
    selected = samples.selected
    name = selected.selection.release or f"snapshot {selected.snapshot}"
    licence, licence_names = hub_licence([selected.licences.get(dataset) for dataset in selected.datasets])
    files = [{"split": split, "path": f"pairs/{split}/*.parquet"} for split in counts]
    head: dict[str, Any] = {"license": licence}
    if licence_names:
        head["license_name"] = licence_names
    head |= {"pretty_name": f"Preferences of {name}", "task_categories": ["robotics"]}
    head |= {"configs": [{"config_name": "pairs", "default": True, "data_files": files}]}
    lines = ["| split | " + " | ".join(WHYS) + " |", "|---" * (1 + len(WHYS)) + "|"]
    lines += [f"| {split} | " + " | ".join(str(c.get(why, 0)) for why in WHYS) + " |" for split, c in counts.items()]
    table, noted = "\n".join(lines), "".join(f"\n- {note}" for note in notes)
    return f"""---
{yaml.safe_dump(head, sort_keys=False).rstrip()}
---

# Preferences of {name}

Pairs of runs of one task, one of which came further (`further`), succeeded where the other failed (`outcome`), or was
demonstrated much more as is usual (`quality`). Drawn with seed {options.seed}, at most {options.per_run} of a kind for
each run. No pair lies across two splits; train on none whose name begins with `test`.

{table}
{noted}

```python
from datasets import load_dataset

pairs = load_dataset("THIS_FOLDER", split="train")  # prompt, chosen, rejected, images: TRL's preference type
row = pairs[0]
chosen = [row["images"][k] for k in row["chosen_trajectory"]["image_index"]]  # the pictures of the preferred run
```
"""
