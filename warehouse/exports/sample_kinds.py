"""Exports of samples: for Hugging Face's `load_dataset`, for EasyR1 and verl, for LLaMA-Factory; and pairs of runs.

Preferences are pairs of parts of episodes of one task, one further or better, for `load_dataset`. A row shows two
episodes, A and B, in an order drawn by seed, each by pictures from its start to where it is compared. Columns `images`,
`prompt`, `chosen` and `rejected` are TRL's preference type with pictures (conversations, explicit prompt).
`chosen_trajectory` and `rejected_trajectory` are what Robometer's PreferenceSample is made of, under its names for
fields; `image_index` says which of the pictures are whose. `why`, `margin`, episodes, frames and label run say what a
preference rests on. Splits are apart: no pair lies across two."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from annotate.preferences import WHYS, ComparedRun, Pair, draw_pairs
from annotate.samples.procvqa import PROGRESS, task_text
from core.errors import UserError
from core.tables import TABLES
from core.values import grouped
from warehouse.exports.export import PICTURE, README, Columns, card_head, write_rows
from warehouse.exports.options import Selection
from warehouse.exports.samples import SampleExport, SamplePart, shown_pictures
from warehouse.exports.selection import Selected
from warehouse.lake import Lake
from warehouse.lake.connection import literal
from warehouse.lake.stored import RunFacts, run_facts
from warehouse.releases.publish import LABELS
from warehouse.releases.release import markdown_table
from warehouse.shards.progresslm import ground_truth
from warehouse.shards.shard import Sample, ShardError

LABEL_TABLES = ("episodes", "segments", "progress")
COLUMNS = (
    *(
        "sample_id",
        "dataset",
        "episode_index",
        "family",
        "variant",
        "form",
        "question",
        "answer",
        "progress",
    ),
    *("reference", "state", "reason", "label_run", "camera", "frames", "num_tokens"),
)


def _of_row(name: str) -> Callable[[Sample], Any]:
    """The value of a sample's own column."""
    return lambda sample: sample.row[name]


class DatasetsExport(SampleExport):
    """A folder that `datasets.load_dataset` opens, here or as a repository of the hub.

    The configuration `samples` has one split per split of ours, questions with their pictures; `episodes`, `segments`
    and `progress` are the labels of the same episodes as tables. README.md says so in its head, which is where the hub
    and `load_dataset` look.
    """

    columns: ClassVar[Columns] = {
        name: (TABLES["samples"].schema.field(name).type, _of_row(name)) for name in COLUMNS
    } | {
        "outcome_assumed": (pa.bool_(), _of_row("outcome_assumed")),
        "images": (pa.list_(PICTURE), shown_pictures),
    }
    place = "samples/"

    def write_rest(self) -> Mapping[str, Any]:
        """The labels, and the card."""
        # the queries of LABELS are over the episodes in the table `held`
        self.lake.con.execute(
            "CREATE OR REPLACE TEMP TABLE held AS SELECT DISTINCT dataset, episode_index FROM export_samples "
            "WHERE NOT withheld"
        )
        for name in LABEL_TABLES:
            self.folder.part(name, self._write_labels, name)
        self.folder.write(README, self._readme())
        return self.sample_facts

    def _write_labels(self, name: str) -> None:
        path = literal(str(self.folder.path(f"{name}/part-000.parquet")))
        self.lake.con.execute(f"COPY ({LABELS[name]}) TO {path} (FORMAT parquet, COMPRESSION zstd)")

    def _readme(self) -> str:
        # The labels have the split of an episode in a column, or are joined with `episodes`
        files = {
            "samples": {split: f"samples/{split}/*.parquet" for split in self.splits},
            **{table: {"all_splits": f"{table}/*.parquet"} for table in LABEL_TABLES},
        }
        facts = self.sample_facts
        selected = self.selected
        of_all = "FROM export_samples WHERE NOT withheld GROUP BY ALL ORDER BY ALL"
        kinds = self.lake.rows(f"SELECT split, family, coalesce(form, ''), count(*) {of_all}")
        datasets = [
            (dataset, selected.licences.get(dataset) or "none is stated", episodes, samples)
            for dataset, episodes, samples in self.lake.rows(
                f"SELECT dataset, count(DISTINCT episode_index), count(*) {of_all}"
            )
        ]
        notes = "".join(f"- {note}\n" for note in facts["notes"])
        runs = ", ".join(
            f"{r['label_run']} ({r['annotator']}, {r['code_version']})" for r in facts["label_runs"]
        )
        state = f"Snapshot {selected.snapshot}, content {json.dumps(selected.content)}"
        return f"""{card_head(selected, files, selected.title)}
# {selected.title}

{facts["samples"]} samples of {len(selected.episodes)} episodes, with the labels they rest on.

```python
from datasets import load_dataset

samples = load_dataset("THIS_FOLDER")
progress = load_dataset("THIS_FOLDER", "progress")["all_splits"]
```

{markdown_table(("dataset", "licence", "episodes", "samples"), datasets)}

{markdown_table(("split", "family", "form", "samples"), kinds)}

{notes}{"" if not notes else chr(10)}Label runs: {runs}. {state}.
"""


STR = pa.string()
WHOLE = pa.int64()
MESSAGE = pa.struct([("role", STR), ("content", STR)])
REWARD = pa.struct([("style", STR), ("ground_truth", STR)])
EXTRA = pa.struct(
    [
        *(("index", WHOLE), ("split", STR), ("sample_id", STR), ("dataset", STR)),
        ("episode_index", WHOLE),
        *((name, STR) for name in ("variant", "form", "label_run")),
    ]
)


def _truth(sample: Sample) -> str:
    return json.dumps(ground_truth(sample), sort_keys=True, ensure_ascii=False)


class EasyR1Export(SampleExport):
    """Parquet with a prompt, its pictures and what a reward function compares an answer with; a folder per split. Where
    no families or forms are named: ProgressLM's, in think form.

    Both trainers' names for things stand side by side: EasyR1 reads `problem` (text) and `answer`, verl reads `prompt`
    (messages) and `reward_model`. The ground truth is the same JSON in both, keys and types as ProgressLM's reward
    function reads them: numbers are strings, since a column of numbers and "n/a" is none that Arrow has, but for
    `demo_count`.
    """

    families = (
        "progresslm_text",
        "progresslm_visual",
        "progresslm_cross_view",
        "progresslm_unanswerable",
    )
    forms = ("think",)
    columns: ClassVar[Columns] = {
        "problem": (STR, _of_row("question")),
        "prompt": (
            pa.list_(MESSAGE),
            lambda sample: [{"role": "user", "content": sample.row["question"]}],
        ),
        "images": (pa.list_(PICTURE), shown_pictures),
        "answer": (STR, _truth),
        "reward_model": (REWARD, lambda s: {"style": "rule", "ground_truth": _truth(s)}),
        "data_source": (STR, _of_row("family")),
        "ability": (STR, lambda sample: "progress"),
        "extra_info": (EXTRA, lambda sample: {f.name: sample.row[f.name] for f in EXTRA}),
    }

    def select(self, lake: Lake, selection: Selection) -> Selected:
        misfits = [family for family in self.options.families if family not in self.families]
        if misfits:
            raise UserError(
                f"{misfits[0]} has no reference and score to reward: an easyr1 export takes {', '.join(self.families)}"
            )
        return super().select(lake, selection)


INFO = "dataset_info.json"
PREFIX = "proccorpus_"  # of the names of datasets
ROLES = {"user": "question", "assistant": "answer"}
# What LLaMA-Factory has to know of a dataset: what its columns and roles are called
SHAREGPT = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}


class LlamaFactoryExport(SampleExport):
    """Conversations in ShareGPT's form, a folder of JSON files per split, with the pictures beside.

    `dataset_info.json` at the root names each split as a dataset of its own, so the root is what LLaMA-Factory calls
    `dataset_dir`. It reads every file of a folder that an entry names, so a chunk is a file. In memory: one episode's
    pictures, and the hashes of a chunk's.
    """

    def write_part(self, part: SamplePart) -> None:
        """A sample as one turn of question and answer, after its pictures were written. Parts share no episode."""
        written: dict[str, str] = {}  # the hash of each picture
        path = self.folder.path(f"{part.split}/part-{part.number:05d}.json")
        with path.open("w", encoding="utf-8") as f:
            separator = "[\n"
            for sample in chain.from_iterable(self.read(part)):
                row = {
                    "messages": [{"role": r, "content": sample.row[n]} for r, n in ROLES.items()],
                    "images": [self._keep(part, p, written) for p in shown_pictures(sample)],
                }
                f.write(separator + json.dumps(row, ensure_ascii=False))
                separator = ",\n"
            f.write("\n]\n")

    def _keep(self, part: SamplePart, picture: Mapping[str, Any], written: dict[str, str]) -> str:
        """A picture's path, and its file where it is new."""
        path = f"images/{part.split}/{picture['path']}"
        sha256 = hashlib.sha256(picture["bytes"]).hexdigest()
        if path not in written:
            self.folder.path(path).write_bytes(picture["bytes"])
        if written.setdefault(path, sha256) != sha256:
            raise ShardError(
                f"the shards of {part.name} hold two different pictures of {path}: build the dataset again"
            )
        return path

    def write_rest(self) -> Mapping[str, Any]:
        info = {PREFIX + split: {"file_name": split, **SHAREGPT} for split in self.splits}
        self.folder.write_json(INFO, info)
        return self.sample_facts


MOST_PICTURES = 8  # of a part
KEPT_EPISODES = 64  # whose pictures are held at a time
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
TYPES = {
    "why": STR,
    "margin": pa.float32(),
    "task": STR,
    "images": pa.list_(PICTURE),
    **dict.fromkeys(("prompt", "chosen", "rejected"), MESSAGES),
    **dict.fromkeys(("chosen_trajectory", "rejected_trajectory"), TRAJECTORY),
}
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
    only_pairs = True
    columns: ClassVar[Columns] = {name: (type_, itemgetter(name)) for name, type_ in TYPES.items()}

    def chunk_parts(self) -> Iterator[Any]:
        """A pair shows episodes of several chunks."""
        return iter(())

    def write_rest(self) -> Mapping[str, Any]:
        runs = grouped(
            (moments[0]["split"], self._compared(key, moments))
            for key, moments in self._moments.items()
        )
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
        notes = [
            *self.notes(),
            *(f"no pair of the kind {why}: {LACKING[why]}" for why in WHYS if not total[why]),
        ]
        self.folder.write(README, self._readme(counts, notes))
        return {"samples": total.total(), "pairs": counts, "notes": notes}

    def _compared(self, key: Key, moments: Sequence[Moment]) -> ComparedRun:
        facts = self._facts[key]
        frames = np.array([moment["frame"] for moment in moments])
        progress = np.array([moment["progress"] for moment in moments])
        # A run without a text is compared with no other one
        task = facts.same_as or f"run {key[1]}"
        return ComparedRun(
            *key, task, frames, progress, facts.success, facts.quality, facts.label_run
        )

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
        drawn = zip(pairs, chosen_first.tolist(), strict=True)
        rows = ([self._row(*pair, pictures)] for pair in drawn)
        write_rows(self.folder, f"pairs/{split}/part", self.columns, rows)
        return dict(Counter(pair.why for pair in pairs))

    def _row(
        self, pair: Pair, chosen_first: bool, pictures: Callable[..., dict[int, dict]]
    ) -> dict[str, Any]:
        sides = {"chosen": pair.chosen, "rejected": pair.rejected}
        order = tuple(sides) if chosen_first else tuple(reversed(sides))
        first, second = order
        task = task_text(self._facts[pair.chosen.key].same_as)
        side_moments = shown_moments(pair, self._moments)
        trajectories: dict[str, dict[str, Any]] = {}
        images: list[dict[str, Any]] = []
        for side in order:
            part = sides[side]
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
                "image_index": list(range(len(images), len(images) + len(moments))),
            }
            by_frame = pictures(*part.key)
            images += [by_frame[m["frame"]] for m in moments]
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
        moments = self._moments[dataset, episode]
        by_entry = grouped(((m["shard"], m["offset"]), m["sample_id"]) for m in moments)
        entries = (self.of_entry(*place, set(ids)) for place, ids in by_entry.items())
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
