"""Pairs of parts of episodes of one task, one further or better, as a folder that Hugging Face's `load_dataset` opens.

A row shows two episodes, A and B, in an order drawn by seed, each by pictures from its start to where it is compared.
Columns `images`, `prompt`, `chosen` and `rejected` are TRL's preference type with pictures (conversations, explicit
prompt). `chosen_trajectory` and `rejected_trajectory` are what Robometer's PreferenceSample is made of, under its names
for fields; `image_index` says which of the pictures are whose. `why`, `margin`, episodes, frames and label run say what
a preference rests on. Splits are apart: no pair lies across two.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from annotate.preferences import WHYS, ComparedRun, Pair, draw_pairs
from annotate.samples.procvqa import PROGRESS, task_text
from core.errors import UserError
from warehouse.exports.hub import PICTURE, README, card_head, write_rows
from warehouse.exports.options import SampleOptions
from warehouse.exports.samples import SampleExport, shown_pictures
from warehouse.lake.stored import RunFacts, run_facts
from warehouse.releases.release import markdown_table

MOST_PICTURES = 8  # of a part
KEPT_EPISODES = 64  # whose pictures are held at a time
STR = pa.string()
WHOLE = pa.int64()
TRAJECTORY = pa.struct(
    [
        *((name, STR) for name in ("id", "task", "data_source", "quality_label")),
        ("target_progress", pa.list_(pa.float32())),
        ("episode_index", WHOLE),
        ("frame_index", pa.list_(WHOLE)),
        ("label_run", STR),
        ("image_index", pa.list_(WHOLE)),
    ]
)
CONTENT = pa.struct([("type", STR), ("text", STR)])
MESSAGES = pa.list_(pa.struct([("role", STR), ("content", pa.list_(CONTENT))]))
SCHEMA = pa.schema(
    [
        ("why", STR),
        ("margin", pa.float32()),
        ("task", STR),
        ("images", pa.list_(PICTURE)),
        *((name, MESSAGES) for name in ("prompt", "chosen", "rejected")),
        *((f"{side}_trajectory", TRAJECTORY) for side in ("chosen", "rejected")),
    ]
)
QUESTIONS = {
    "further": "Which of the two runs is further along the task?",
    "outcome": "Which of the two runs has reached the goal of the task?",
    "quality": "Which of the two runs does the task better?",
}
LACKING = {
    "further": "no two labelled moments of a task are far enough apart",
    "outcome": "no task has both a run that succeeded and one that failed",
    "quality": "no task has runs of which one was demonstrated much more as is usual",
}
Key = tuple[str, int]  # dataset, episode
# Where a question about progress lies, and its label: split, frame, progress, sample_id, shard, offset
Moment = Mapping[str, Any]


class PreferencesExport(SampleExport):
    families = (PROGRESS,)

    @property
    def which(self) -> SampleOptions:
        return SampleOptions()

    def chunks(self) -> list[tuple[str, int]]:
        return []

    def write_rest(self) -> Mapping[str, Any]:
        runs: dict[str, list[ComparedRun]] = defaultdict(list)
        for key, moments in self._moments.items():
            episode_facts = self._facts[key]
            frames = np.array([m["frame"] for m in moments])
            # A run without a text is compared with no other one
            run = ComparedRun(
                *key,
                episode_facts.same_as or f"run {key[1]}",
                frames,
                np.array([m["progress"] for m in moments]),
                episode_facts.success,
                episode_facts.quality,
                episode_facts.label_run,
            )
            runs[moments[0]["split"]].append(run)
        counts: dict[str, dict[str, int]] = {}
        for split, of_split in sorted(runs.items()):
            # Those with the same chosen episode stand together, so that a row group holds a picture once
            pairs = draw_pairs(of_split, self.options.per_run, self.options.seed)
            pairs.sort(key=lambda pair: pair.chosen.key)
            if pairs:
                counts[split] = self.folder.part(split, self._write_split, split, pairs)
        if not counts:
            raise UserError(
                f"nothing to export: none of the {len(self._moments)} episodes selected can be compared with another "
                "of its task"
            )
        total = sum(map(Counter, counts.values()), Counter[str]())
        notes = self.selected.label_notes()
        notes += [
            f"no pair of the kind {criterion}: {LACKING[criterion]}"
            for criterion in WHYS
            if not total[criterion]
        ]
        self.folder.write(README, self._readme(counts, notes))
        return {"samples": total.total(), "pairs": counts, "notes": notes}

    @cached_property
    def _facts(self) -> dict[Key, RunFacts]:
        return run_facts(self.lake.con)

    @cached_property
    def _moments(self) -> dict[Key, list[Moment]]:
        """The labelled moments of each episode in order of time, each frame once."""
        rows = self.lake.dicts(
            "SELECT DISTINCT ON (s.dataset, s.episode_index, frame) s.dataset, s.episode_index, x.split, "
            's.frames[-1] AS frame, s.progress, s.sample_id, x.shard, x."offset" FROM export_samples x '
            "JOIN lake.samples s ON s.dataset = x.dataset AND s.chunk = x.chunk AND s.sample_id = x.sample_id "
            "WHERE NOT x.withheld AND s.progress IS NOT NULL ORDER BY s.dataset, s.episode_index, frame, s.sample_id"
        )
        return {
            key: list(of_run)
            for key, of_run in groupby(rows, itemgetter("dataset", "episode_index"))
        }

    def _write_split(self, split: str, pairs: Sequence[Pair]) -> dict[str, int]:
        """Returns how many there are of each kind."""
        pictures = lru_cache(maxsize=KEPT_EPISODES)(self._pictures)
        chosen_first = np.random.default_rng(self.options.seed).random(len(pairs)) < 0.5
        rows = (
            [self._row(*drawn, pictures)]
            for drawn in zip(pairs, chosen_first.tolist(), strict=True)
        )
        write_rows(self.folder, f"pairs/{split}/part", SCHEMA, rows)
        return dict(Counter(pair.why for pair in pairs))

    def _row(
        self, pair: Pair, chosen_first: bool, pictures: Callable[..., dict[int, dict]]
    ) -> dict[str, Any]:
        sides = {"chosen": pair.chosen, "rejected": pair.rejected}
        first, second = sides if chosen_first else reversed(sides)
        task = task_text(self._facts[pair.chosen.key].same_as)
        side_moments = shown_moments(pair, self._moments)
        begin = {first: 0, second: len(side_moments[first])}
        trajectories: dict[str, dict[str, Any]] = {}
        for side, part in sides.items():
            moments = side_moments[side]
            trajectories[f"{side}_trajectory"] = {
                "id": f"{part.dataset}/{part.episode_index:06d}",
                "task": task,
                "data_source": part.dataset,
                "quality_label": quality_label(pair, side, self._facts[part.key].success),
                "target_progress": [m["progress"] for m in moments],
                "episode_index": part.episode_index,
                "frame_index": [m["frame"] for m in moments],
                "label_run": part.label_run,
                "image_index": list(range(begin[side], begin[side] + len(moments))),
            }
        images: list[dict[str, Any]] = []
        for side in (first, second):
            by_frame = pictures(*sides[side].key)
            images += [by_frame[m["frame"]] for m in side_moments[side]]
        # Pictures are marked by None
        content = [
            f"The task: {task}\nRun A:",
            *([None] * len(side_moments[first])),
            "Run B:",
            *([None] * len(side_moments[second])),
            QUESTIONS[pair.why],
        ]
        return {
            "why": pair.why,
            "margin": pair.margin,
            "task": task,
            "images": images,
            "prompt": [_message("user", content)],
            first: [_message("assistant", ["Run A"])],
            second: [_message("assistant", ["Run B"])],
            **trajectories,
        }

    def _pictures(self, dataset: str, episode: int) -> dict[int, dict[str, Any]]:
        """By frame, the last picture of the question about it. Raises ShardError."""
        by_entry: dict[tuple[str, int], set[str]] = defaultdict(set)
        for moment in self._moments[dataset, episode]:
            by_entry[moment["shard"], moment["offset"]].add(moment["sample_id"])
        entries = (self.of_entry(*place, ids) for place, ids in by_entry.items())
        samples = chain.from_iterable(entries)
        return {sample.row["frames"][-1]: shown_pictures(sample)[-1] for sample in samples}

    def _readme(self, counts: Mapping[str, Mapping[str, int]], notes: Sequence[str]) -> str:
        title = f"Preferences of {self.selected.title}"
        options = self.options
        files = {"pairs": {split: f"pairs/{split}/*.parquet" for split in counts}}
        table: list[tuple[str | int, ...]] = []
        for split, of_split in counts.items():
            table.append((split, *(of_split.get(criterion, 0) for criterion in WHYS)))
        noted = "".join(f"\n- {note}" for note in notes)
        return f"""{card_head(self.selected, files, title)}
# {title}

Pairs of runs of one task, one of which came further (`further`), succeeded where the other failed (`outcome`), or was
demonstrated much more as is usual (`quality`). Drawn with seed {options.seed}, at most {options.per_run} of a kind for
each run. No pair lies across two splits; train on none whose name begins with `test`.

{markdown_table(("split", *WHYS), table)}
{noted}

```python
from datasets import load_dataset

pairs = load_dataset("THIS_FOLDER", split="train")  # prompt, chosen, rejected, images: TRL's preference type
row = pairs[0]
chosen = [row["images"][k] for k in row["chosen_trajectory"]["image_index"]]  # the pictures of the preferred run
```
"""


def shown_moments(pair: Pair, moments: Mapping[Key, Sequence[Moment]]) -> dict[str, list[Moment]]:
    """The moments by which each part is shown: evenly spread from the episode's start to the last
    frame that it is compared by, as many of both, or who counts pictures would know which came
    further."""
    sides = {"chosen": pair.chosen, "rejected": pair.rejected}
    until: dict[str, list[Moment]] = {}
    for side, part in sides.items():
        until[side] = [m for m in moments[part.key] if m["frame"] <= part.frames[-1]]
    count = min(MOST_PICTURES, *map(len, until.values()))
    return {side: _spread_to_end(side_moments, count) for side, side_moments in until.items()}


def _spread_to_end(moments: Sequence[Moment], count: int) -> list[Moment]:
    """So many moments, evenly spread; a single one is the last."""
    from_end = np.linspace(len(moments) - 1, 0, count).round().astype(int)
    return [moments[k] for k in from_end[::-1].tolist()]


def quality_label(pair: Pair, side: str, success: bool | None) -> str | None:
    """Robometer's word for how an episode was done; None where nobody says how it ended."""
    if success is None:
        return None
    if not success:
        return "failure"
    if pair.why == "quality" and side == "rejected":
        return "suboptimal"
    return "successful"


def _message(role: str, content: Sequence[str | None]) -> dict[str, Any]:
    return {
        "role": role,
        "content": [{"type": "image" if t is None else "text", "text": t} for t in content],
    }
