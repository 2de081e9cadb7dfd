"""ProcVQA's two benchmarks from a release: procvqa-id (split test_id) and procvqa-ood (split test_ood)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.benchmarks.question import BenchmarkError, PictureFile, Question, RightAnswer
from warehouse.lake import Lake
from warehouse.lake.sql import open_for_users
from warehouse.releases import Release
from warehouse.shards import picture_places, read_index, shown

SPLITS = {"procvqa-id": "test_id", "procvqa-ood": "test_ood"}
FAMILIES = ("procvqa_a", "procvqa_b", "procvqa_c")
# Of a sample's row, what scoring and reports need; the question is left out: it can be made again
KEPT = ("sample_id", "family", "variant", "dataset", "episode_index", "camera", "frames", "answer", "progress", "state")


def load(
    benchmark: str, lake: Lake, release: Release, families: Sequence[str], limit: int | None = None
) -> list[Question]:
    """The questions of some families, the first `limit` of each. Raises BenchmarkError or ShardError."""
    con = open_for_users(lake.workspace, release.snapshot)
    rows = con.execute(
        "SELECT dataset, episode_index, num_frames, fps, success, task FROM episodes WHERE status = 'ok'"
    ).fetchall()
    facts = {(r[0], r[1]): r[2:] for r in rows}
    num_taken = dict.fromkeys(families, 0)
    questions = []
    for tar in release.paths(lake.workspace, SPLITS[benchmark]):
        for row, pictures in _samples(tar):
            family = row["family"]
            # The limit holds for each family, so the other families are still read after one is full.
            if family not in num_taken or num_taken[family] == limit:
                continue
            num_taken[family] += 1
            questions.append(_question(benchmark, row, pictures, *facts[row["dataset"], row["episode_index"]]))
    if not questions:
        raise BenchmarkError(f"release {release.name} holds no sample of {benchmark} (split {SPLITS[benchmark]})")
    return questions


def _samples(tar: Path) -> Iterator[tuple[dict[str, Any], tuple[PictureFile, ...]]]:
    """Each sample's row and where its pictures lie. Raises ShardError."""
    for entry in read_index(tar).entries:
        rows, places = picture_places(tar, entry)
        yield from ((row, tuple(PictureFile(tar, *place) for place in shown(row, places))) for row in rows)


def _question(
    benchmark: str,
    row: dict[str, Any],
    pictures: tuple[PictureFile, ...],
    num_frames: int,
    fps: float,
    success: bool | None,
    task: str | None,
) -> Question:
    meta_data = {k: row.get(k) for k in KEPT} | {"num_frames": num_frames, "fps": fps, "success": success}
    return Question(
        benchmark=benchmark,
        part=row["family"],
        family=row["family"],
        trajectory=str(row["episode_index"]),
        dataset=row["dataset"],
        camera=row["camera"],
        goal=task or "",
        text=row["question"],
        pictures=pictures,
        truth=RightAnswer(score=row.get("progress"), text=row["answer"], success=success),
        frame_index=row["frames"][-1],
        num_frames=num_frames,
        row=meta_data,
    )
