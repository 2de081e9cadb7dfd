"""EasyR1 and verl: Parquet with a prompt, its pictures and what a reward function compares an answer with.

Both trainers' names for things stand side by side: EasyR1 reads `problem` (text) and `answer`, verl reads `prompt`
(messages) and `reward_model`. The ground truth is the same JSON in both, keys and types as ProgressLM's reward function
reads them: numbers are strings, since a column of numbers and "n/a" is none that Arrow has, but for `demo_count`.
"""

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pyarrow as pa

from core.errors import UserError
from warehouse.exports.hub import PICTURE
from warehouse.exports.options import Selection
from warehouse.exports.samples import ParquetSampleExport, SamplePart, shown_pictures
from warehouse.exports.selection import Selected
from warehouse.lake import Lake
from warehouse.shards import Sample
from warehouse.shards.ground_truth import ground_truth

STR = pa.string()
MESSAGE = pa.struct([("role", STR), ("content", STR)])
REWARD = pa.struct([("style", STR), ("ground_truth", STR)])
EXTRA = pa.struct(
    [("index", pa.int64()), ("split", STR), ("sample_id", STR), ("dataset", STR), ("episode_index", pa.int64())]
    + [(name, STR) for name in ("variant", "form", "label_run")]
)


class EasyR1Export(ParquetSampleExport):
    """A folder of Parquet per split. Where no families or forms are named: ProgressLM's, in think form."""

    families = ("progresslm_text", "progresslm_visual", "progresslm_cross_view", "progresslm_unanswerable")
    forms = ("think",)
    schema = pa.schema(
        [
            ("problem", STR),
            ("prompt", pa.list_(MESSAGE)),
            ("images", pa.list_(PICTURE)),
            ("answer", STR),
            ("reward_model", REWARD),
            ("data_source", STR),
            ("ability", STR),
            ("extra_info", EXTRA),
        ]
    )

    def select(self, lake: Lake, selection: Selection) -> Selected:
        odd = [family for family in self.which.families if family not in self.families]
        if odd:
            raise UserError(
                f"{odd[0]} has no reference and score to reward: an easyr1 export takes {', '.join(self.families)}"
            )
        return super().select(lake, selection)

    def rows(self, part: SamplePart) -> Iterator[list[dict[str, Any]]]:
        # Rows are counted through a split: those of the parts before this one come first
        [(before,)] = self.lake.rows(
            "SELECT count(*) FROM export_samples WHERE NOT withheld AND split = ? AND (dataset, chunk) < (?, ?)",
            [part.split, part.dataset, part.chunk],
        )
        numbers = count(before)
        for episode in self.read(part):
            yield [_row(sample, next(numbers)) for sample in episode]


def _row(sample: Sample, index: int) -> dict[str, Any]:
    row, truth = sample.row, json.dumps(ground_truth(sample), sort_keys=True, ensure_ascii=False)
    return {
        "problem": row["question"],
        "prompt": [{"role": "user", "content": row["question"]}],
        "images": shown_pictures(sample),
        "answer": truth,
        "reward_model": {"style": "rule", "ground_truth": truth},
        "data_source": row["family"],
        "ability": "progress",
        "extra_info": {"index": index} | {f.name: row[f.name] for f in EXTRA if f.name != "index"},
    }
