"""Goal pictures of a release: how a successful run of each task ended, for the baseline that compares with the goal."""

from eval.benchmarks.question import PictureFile
from warehouse.lake import Lake
from warehouse.lake.sql import open_for_users
from warehouse.releases import Release
from warehouse.shards import entry_at, picture_name, picture_places

LAST_PICTURES = """
    SELECT DISTINCT ON (s.dataset, e.task) s.dataset, e.task, s.episode_index, s.pictures[-1], l.shard, l.offset
    FROM samples s JOIN episodes e USING (dataset, episode_index) JOIN sample_location l USING (sample_id)
    WHERE s.split = 'train' AND s.family = 'procvqa_c' AND e.success AND s.frames[-1] = e.num_frames - 1
    ORDER BY s.dataset, e.task, s.episode_index, s.sample_id
"""


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
