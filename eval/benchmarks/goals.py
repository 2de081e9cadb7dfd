"""Goal pictures of a release: how a successful run of each task ended, for the baseline that compares with the goal."""

import tarfile
from pathlib import Path

from eval.benchmarks.question import PictureFile
from warehouse.lake import Lake
from warehouse.lake.sql import open_for_users
from warehouse.releases import Release
from warehouse.shards import picture_name

LAST_PICTURES = """
    SELECT DISTINCT ON (s.dataset, e.task) s.dataset, e.task, s.episode_index, s.pictures[-1], l.shard, l.offset
    FROM samples s JOIN episodes e USING (dataset, episode_index) JOIN sample_location l USING (sample_id)
    WHERE s.split = 'train' AND s.family = 'procvqa_c' AND e.success AND s.frames[-1] = e.num_frames - 1
    ORDER BY s.dataset, e.task, s.episode_index, s.sample_id
"""


def goal_pictures(lake: Lake, release: Release) -> dict[tuple[str, str], PictureFile]:
    """By (dataset, task): the last frame of the first training run that succeeded. No picture is read."""
    con = open_for_users(lake.workspace, release.snapshot)
    rows = con.execute(LAST_PICTURES).fetchall()
    paths = {s.shard: s.path(lake.workspace) for s in release.shard_list}
    goals = {}
    for dataset, task, episode, picture, shard, offset in rows:
        # Only what this release's own shards hold can be read
        if shard not in paths or task is None:
            continue
        member = f"{dataset}-{episode:06d}.{picture_name(episode, picture)}"
        file = _member(paths[shard], offset, member)
        if file is not None:
            goals[dataset, task] = file
    return goals


def _member(shard: Path, offset: int, name: str) -> PictureFile | None:
    """A member of a shard, looked for from an offset on; None where there is none."""
    with shard.open("rb") as f:
        f.seek(offset)
        with tarfile.open(fileobj=f, mode="r:") as tar:
            member = next((m for m in tar if m.name == name), None)
    if member is None:
        return None
    return PictureFile(shard, member.offset_data, member.size)
