"""What building datasets will cost at a model's server: `build --dry-run`.

Nothing is decoded and nothing is asked. The bill is what the episodes took that the model was asked about before in
this workspace, times those that are left.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from annotate.config import VlmConfig
from annotate.vlm.few_runs import num_asked_runs
from core.values import grouped, spread
from ingest.episode import EpisodeRecord
from ingest.episodes import settle, with_numbers
from ingest.source import list_episodes
from pipeline.config import DatasetBuild
from warehouse.lake import Lake

COUNTS = ("calls", "images", "prompt_tokens", "completion_tokens")
# A call that several builds sent counts once
ASKED_SQL = """
SELECT model, stage, count(*) AS calls, count(*) FILTER (status != 'ok') AS lost, sum(num_images)::BIGINT AS images,
    sum(prompt_tokens)::BIGINT AS prompt_tokens, sum(completion_tokens)::BIGINT AS completion_tokens
FROM (SELECT DISTINCT ON (call_key) * FROM vlm_calls WHERE {where} AND status != 'sent' ORDER BY call_key, status)
GROUP BY model, stage ORDER BY model, list_position(['plan', 'segment', 'refine', 'verify', 'reason'], stage)
"""
# Episodes that a label run has and that follow no others: the model was asked about these
ASKED_ABOUT_SQL = """
SELECT count(*) FROM (
    SELECT dataset, episode_index FROM episode_labels WHERE label_run = $1 AND dataset = ifnull($2, dataset)
    EXCEPT SELECT dataset, episode_index FROM alignments WHERE label_run = $1)
"""


def listed_records(
    lake: Lake | None, build: DatasetBuild, sources: Path
) -> dict[int, EpisodeRecord]:
    """The episodes that a build would annotate, as far as metadata tell: a fresh listing, less what is unusable."""
    source = build.source(sources)
    indices = dict[str, int]()
    rejected = set[int | None]()
    if lake is not None:
        indices |= lake.rows(
            "SELECT source_id, episode_index FROM recordings WHERE dataset = ? ORDER BY left_at IS NULL",
            [build.name],
        )
        sql = "SELECT DISTINCT episode_index FROM findings WHERE dataset = ? AND severity = 'unusable'"
        rejected |= set(lake.column(sql, [build.name]))
    # A fresh listing may find what no build has seen yet, and the other way round
    settled = settle(list_episodes(source), build.dataset)
    listing = with_numbers(settled, indices, 1 + max(indices.values(), default=-1))
    bad = rejected | {f.episode_index for f in listing.findings if f.severity == "unusable"}
    if None in bad:  # the source as a whole
        return {}
    usable = {r.episode_index: r for r in listing.records if r.episode_index not in bad}
    return {k: r for k, r in usable.items() if source.selected is None or k in source.selected}


@dataclass(frozen=True)
class ModelCost:
    """What asking a model about a dataset will take: calls and tokens of an episode, times episodes."""

    dataset: str
    episodes: int  # that the model is asked about
    runs: int  # were it asked about each of them
    labelled: int  # episodes that need no call: this label run has them
    # Episodes that the numbers rest on; 0: none was asked about yet, and nothing is known
    measured: int
    stages: tuple[
        dict[str, Any], ...
    ]  # of one episode: a model's stage, with calls, images and tokens
    vlm: VlmConfig

    def rows(self, episodes: int) -> list[dict[str, Any]]:
        """One row per model and stage and one for all, in whole calls and tokens."""
        rows = [_times(row, episodes) for row in self.stages]
        total = {name: sum(map(itemgetter(name), rows)) for name in COUNTS}
        rows.append({"model": "all", "stage": "all"} | total)
        for row in rows:
            row |= {name: round(row[name]) for name in COUNTS}
        return rows

    def bill(self, episodes: int) -> dict[str, Any]:
        """Calls by model and stage, GPU-hours by the prices' token rates, and USD."""
        rows = self.rows(episodes)
        gpu_hours = usd = 0.0
        for row in rows[:-1]:
            price = self.vlm.price_of(row["model"])
            tokens = row["prompt_tokens"], row["completion_tokens"]
            busy_s = price.busy_s(*tokens)
            gpu_hours += busy_s / 3600 * price.gpus
            usd += price.usd(*tokens, busy_s)
        return {"episodes": episodes, "stages": rows, "gpu_hours": gpu_hours, "usd": usd}

    def facts(self) -> dict[str, Any]:
        """For scripts."""
        numbers = {"dataset": self.dataset, "labelled": self.labelled, "measured": self.measured}
        return numbers | self.bill(self.episodes) | {"of_each_run": self.bill(self.runs)}

    def summary(self) -> str:
        """What the numbers rest on, in a sentence."""
        asked = f"{self.dataset}: {self.episodes} episodes to annotate; {self.labelled} are labelled already"
        if not self.measured:
            first = "build --episodes 0-19 asks about some, then ask again"
            return f"{asked}. What one takes is not known before the first was asked about: {first}"
        bill = self.bill(self.episodes)
        cost = f"{bill['gpu_hours']:.2f} GPU-hours, {bill['usd']:.2f} USD"
        text = f"{asked}; as measured on {self.measured}: {cost}"
        if self.runs == self.episodes:
            return text
        every_run = self.bill(self.runs)
        calls = every_run["stages"][-1]["calls"]
        return (
            f"{text}; the other {self.runs - self.episodes} episodes follow these where they can. Asking about each "
            f'run (runs_per_task = "all"): {calls} calls, {every_run["usd"]:.2f} USD'
        )


def _times(row: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """A model's stage with its counts times a factor."""
    return {"model": row["model"], "stage": row["stage"]} | {
        name: row[name] * factor for name in COUNTS
    }


def model_cost(
    lake: Lake | None, build: DatasetBuild, sources: Path, *, from_scratch: bool = False
) -> ModelCost:
    """`from_scratch`: as if nothing had been labelled yet."""
    records = listed_records(lake, build, sources)
    labelled = set()
    if lake is not None and not from_scratch:
        sql = "SELECT DISTINCT episode_index FROM segments WHERE dataset = ? AND list_contains(?, label_run)"
        runs = [run.id for run in (build.label_run(), *build.former_runs())]
        labelled = set(lake.column(sql, [build.name, runs]))
    to_label = {*records} - labelled
    # Of most tasks some runs are asked about
    asked = to_label & _asked_about(build, records)
    measured, stages = _measured(lake, build) if lake else (0, ())
    return ModelCost(
        build.name,
        len(asked),
        len(to_label),
        len(labelled & {*records}),
        measured,
        stages,
        build.stages.vlm,
    )


def _asked_about(build: DatasetBuild, records: Mapping[int, EpisodeRecord]) -> set[int]:
    """Episodes that a model is asked about by themselves; and some in place of those that others will follow."""
    asked_episodes = set[int]()
    chunk_size = build.dataset.chunk_size
    of_tasks = grouped(((k // chunk_size, record.task), k) for k, record in records.items())
    for (_, task), runs in of_tasks.items():
        count = num_asked_runs([records[k].success for k in runs], build.stages.vlm) if task else 0
        whole = [k for k in runs if records[k].success is not False] if count else []
        asked_episodes |= {*runs} - {*whole} | {*spread(whole, count)}
    return asked_episodes


def _measured(lake: Lake, build: DatasetBuild) -> tuple[int, tuple[dict[str, Any], ...]]:
    """What an episode took, by stage, and of how many that is the mean.

    Of this dataset with the same label run; where there are none, of any dataset of this workspace.
    """
    run = build.label_run().id
    for name in (build.name, None):
        [num_asked] = lake.column(ASKED_ABOUT_SQL, [run, name])
        if num_asked:
            condition = "label_run = $1 AND dataset = ifnull($2, dataset) AND status = 'ok'"
            rows = asked_rows(lake, condition, [run, name])
            return num_asked, tuple(_times(row, 1 / num_asked) for row in rows)
    return 0, ()


def asked_rows(lake: Lake, condition: str, values: list[Any]) -> list[dict[str, Any]]:
    """What models were asked, by model and stage: calls, those `lost` without a usable reply, images, tokens.

    `condition`: of rows of vlm_calls.
    """
    return lake.dicts(ASKED_SQL.format(where=condition), values)
