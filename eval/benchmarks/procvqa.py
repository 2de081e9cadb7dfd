"""ProcVQA's two benchmarks from a release: procvqa-id (split test_id) and procvqa-ood (split test_ood)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from core.values import spread
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import BenchmarkError, PictureFile, Question
from warehouse.lake import Lake
from warehouse.lake.sql import open_for_users
from warehouse.releases.release import Release
from warehouse.shards.shard import entry_at, picture_name, picture_places, read_index, shown

SPLITS = {"procvqa-id": "test_id", "procvqa-ood": "test_ood"}
FAMILIES = ("procvqa_a", "procvqa_b", "procvqa_c")
FACTS = "SELECT dataset, episode_index, num_frames, fps, success, task FROM episodes WHERE status = 'ok'"
LAST_PICTURES = """
    SELECT DISTINCT ON (s.dataset, e.task) s.dataset, e.task, s.episode_index, s.pictures[-1], l.shard, l.offset
    FROM samples s JOIN episodes e USING (dataset, episode_index) JOIN sample_location l USING (sample_id)
    WHERE s.split = 'train' AND s.family = 'procvqa_c' AND e.success AND s.frames[-1] = e.num_frames - 1
    ORDER BY s.dataset, e.task, s.episode_index, s.sample_id
"""
# Of a sample's row, what scoring and reports need; the question is left out: it can be made again
KEPT = ("sample_id", "family", "variant", "dataset", "episode_index", "camera", "frames", "answer", "progress", "state")


@dataclass(frozen=True)
class SampleChoice:
    """Which samples are asked: those of these families, and of this form where it is given; `labelled`: that have a
    label of progress. `most`: of so many episodes, spread over all; None: of all."""

    families: frozenset[str] = frozenset({"procvqa_c"})
    form: str | None = None
    most: int | None = None
    labelled: bool = True

    def takes(self, row: Mapping[str, Any]) -> bool:
        is_form = self.form is None or row.get("form") in (None, self.form)
        return row["family"] in self.families and is_form and (not self.labelled or row["progress"] is not None)


ALL_MOMENTS = SampleChoice()


def load(lake: Lake, release: Release, asked: EvaluationOptions) -> list[Question]:
    """The questions of some families (parts) of procvqa-id or procvqa-ood, the first `limit` of each. Raises
    BenchmarkError or ShardError."""
    benchmark, families = asked.benchmark, asked.part or FAMILIES
    con = open_for_users(lake.workspace, release.snapshot)
    num_taken = dict.fromkeys(families, 0)
    questions = []
    chosen = SampleChoice(frozenset(families), labelled=False)
    for q in ask(benchmark, con, release.paths(lake.workspace, SPLITS[benchmark]), chosen):
        # The limit holds for each family, so the other families are still read after one is full.
        if num_taken[q.family] != asked.limit:
            num_taken[q.family] += 1
            questions.append(q)
    if not questions:
        raise BenchmarkError(f"release {release.name} holds no sample of {benchmark} (split {SPLITS[benchmark]})")
    return questions


def ask(
    benchmark: str, con: duckdb.DuckDBPyConnection, tars: Sequence[Path], chosen: SampleChoice
) -> Iterator[Question]:
    """A question for each sample that is chosen, as they lie in the shards; `con`: the lake as the release has it.

    Of pictures their places alone are read. Raises ShardError.
    """
    facts = {(dataset, episode): known for dataset, episode, *known in con.execute(FACTS).fetchall()}
    there = [(tar, e) for tar in tars for e in read_index(tar).entries if chosen.families & set(e.family)]
    for tar, entry in spread(there, chosen.most or len(there)):
        rows, places = picture_places(tar, entry)
        for row in filter(chosen.takes, rows):
            num_frames, fps, success, task = facts[row["dataset"], row["episode_index"]]
            meta_data = {k: row.get(k) for k in KEPT} | {"num_frames": num_frames, "fps": fps, "success": success}
            yield Question(
                benchmark=benchmark,
                part=row["family"],
                family=row["family"],
                trajectory=str(row["episode_index"]),
                dataset=row["dataset"],
                camera=row["camera"],
                goal=task or "",
                text=row["question"],
                pictures=tuple(PictureFile(tar, *place) for place in shown(row, places)),
                progress=row.get("progress"),
                success=success,
                frame_index=row["frames"][-1],
                num_frames=num_frames,
                row=meta_data,
            )


def goal_pictures(lake: Lake, release: Release) -> dict[tuple[str, str], PictureFile]:
    """By (dataset, task): the last frame of the first training run that succeeded. Of each its place alone is kept."""
    con = open_for_users(lake.workspace, release.snapshot)
    rows = con.execute(LAST_PICTURES).fetchall()
    paths = {s.shard: s.path(lake.workspace) for s in release.shard_list}
    goals = {}
    for dataset, task, episode, picture, shard, offset in rows:
        # Only what this release's own shards hold can be read
        if shard not in paths or task is None:
            continue
        _, places = picture_places(paths[shard], entry_at(paths[shard], offset))
        if place := places.get(picture_name(episode, picture)):
            goals[dataset, task] = PictureFile(paths[shard], *place)
    return goals
