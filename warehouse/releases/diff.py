"""What differs between two releases, each read at its own snapshot, or between two label runs of the present lake."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from warehouse.lake import Lake
from warehouse.lake.connection import attach
from warehouse.releases.contents import ReleaseError, held_episodes_sql
from warehouse.releases.release import get_release

WORST = 20
SAME_PROGRESS = 1e-6  # mean |difference| below which two labels are one
# The episodes of a side, a or b, with the label that counts and what it is compared by: the recording, or the number
# where a side knows no recordings. The one parameter: names of shards, a label run
OF_RELEASE = (
    "SELECT r.dataset, r.episode_index, r.chunk, r.label_run, {1} AS recording FROM {0}.active_runs r "
    f"SEMI JOIN ({held_episodes_sql('{0}')}) held USING (dataset, episode_index) {{2}}"
)
OF_RUN = (
    "SELECT r.dataset, r.episode_index, r.chunk, r.label_run, {1} AS recording FROM {0}.episode_labels r {2} "
    "WHERE r.label_run = ?"
)
NUMBER = "r.dataset || ' ' || r.episode_index"
JOIN_RECORDINGS = (
    "LEFT JOIN {0}.recordings k ON k.dataset = r.dataset AND k.episode_index = r.episode_index AND "
    "k.left_at IS NULL"
)


@dataclass(frozen=True)
class Diff:
    """`datasets`: counts and means of each. `relabelled`: of each episode that is in both with other labels, its
    dataset, episode_index, run_a, run_b, boundaries_a, boundaries_b, mean_shift_s and max_shift_s (how far boundaries
    moved) and progress_difference (mean over the frames); None where a side lacks what would be compared."""

    a: str
    b: str
    datasets: list[dict]
    added: list[tuple[str, int]]
    removed: list[tuple[str, int]]
    relabelled: list[dict[str, Any]]

    @property
    def worst(self) -> list[dict[str, Any]]:
        """Those whose labels moved most."""
        order = sorted(
            self.relabelled,
            key=lambda c: (-(c["progress_difference"] or 0), -(c["max_shift_s"] or 0)),
        )
        return order[:WORST]

    def facts(self) -> dict:
        """As JSON has it."""
        return {
            "a": self.a,
            "b": self.b,
            "datasets": self.datasets,
            "added": [{"dataset": d, "episode_index": e} for d, e in self.added],
            "removed": [{"dataset": d, "episode_index": e} for d, e in self.removed],
            "relabelled": len(self.relabelled),
            "worst": self.worst,
        }


def diff_releases(lake: Lake, a: str, b: str) -> Diff:
    """What B holds otherwise than A. Raises ReleaseError and LakeError."""
    releases = [get_release(lake, name) for name in (a, b)]
    sides = [(release.snapshot, release.shard_names) for release in releases]
    return _diff(lake, a, b, OF_RELEASE, sides)


def diff_runs(lake: Lake, run_a: str, run_b: str) -> Diff:
    """How two label runs differ on the episodes that both labelled; runs by the beginning of their ids."""
    a = _label_run(lake, run_a)
    b = _label_run(lake, run_b)
    return _diff(lake, a, b, OF_RUN, [(lake.snapshot(), run) for run in (a, b)])


def _label_run(lake: Lake, beginning: str) -> str:
    """The one label run whose id begins so. Raises ReleaseError for none or several."""
    runs = lake.column("SELECT label_run FROM label_runs ORDER BY created_at")
    fitting = [r for r in runs if r.startswith(beginning)]
    if len(fitting) != 1:
        problem = "several label runs begin with" if fitting else "there is no label run"
        raise ReleaseError(
            f"{problem} {beginning!r}; label runs: {', '.join(fitting or runs) or 'none yet'}"
        )
    return fitting[0]


# Frames that boundaries moved: in order of time where both have as many, else each of either side to the nearest of the
# other. Empty where a side has none
MOVES = """
CASE WHEN len(at_a) = len(at_b) THEN list_transform(list_zip(at_a, at_b), lambda z: abs(z[1] - z[2]))
     WHEN least(len(at_a), len(at_b)) = 0 THEN []
     ELSE list_transform(at_a, lambda x: list_min(list_transform(at_b, lambda y: abs(x - y)))) ||
          list_transform(at_b, lambda x: list_min(list_transform(at_a, lambda y: abs(x - y)))) END"""
_PROGRESS = """
SELECT recording, avg(abs(p.progress - q.progress)) AS difference
FROM labels_a a JOIN labels_b b USING (recording)
JOIN a.progress p ON p.dataset = a.dataset AND p.chunk = a.chunk AND p.episode_index = a.episode_index
                 AND p.label_run = a.label_run
JOIN b.progress q ON q.dataset = b.dataset AND q.chunk = b.chunk AND q.episode_index = b.episode_index
                 AND q.label_run = b.label_run AND q.frame_index = p.frame_index
GROUP BY ALL"""
_SEGMENTS = """
SELECT l.recording,
       list({{s: s.start_frame, e: s.end_frame, n: s.name, k: s.kind, c: s.completed}} ORDER BY s.segment_index) AS list
FROM labels_{0} l JOIN {0}.segments s ON s.dataset = l.dataset AND s.chunk = l.chunk
  AND s.episode_index = l.episode_index AND s.label_run = l.label_run GROUP BY ALL"""
# Episodes of either side; `what`: added, removed, relabelled or the same. Boundaries (at_a, at_b) are frames where a
# segment begins, but for the first, which begins at 0 in every label
COMPARED = f"""
WITH p AS ({_PROGRESS}), sa AS ({_SEGMENTS.format("a")}), sb AS ({_SEGMENTS.format("b")}),
episodes AS (
  SELECT coalesce(b.dataset, a.dataset) AS dataset, coalesce(b.episode_index, a.episode_index) AS episode_index,
         a.label_run AS run_a, b.label_run AS run_b, p.difference, c.fps,
         sa.list AS segments_a, sb.list AS segments_b,
         coalesce(list_transform(sa.list, lambda s: s.s)[2:], []) AS at_a,
         coalesce(list_transform(sb.list, lambda s: s.s)[2:], []) AS at_b
  FROM labels_a a FULL JOIN labels_b b USING (recording) LEFT JOIN p USING (recording)
  LEFT JOIN sa USING (recording) LEFT JOIN sb USING (recording)
  LEFT JOIN b.episode_content c ON c.dataset = b.dataset AND c.episode_index = b.episode_index)
SELECT dataset, episode_index, run_a, run_b, len(at_a) AS boundaries_a, len(at_b) AS boundaries_b,
       list_avg({MOVES}) / nullif(fps, 0) AS mean_shift_s, list_max({MOVES}) / nullif(fps, 0) AS max_shift_s,
       difference AS progress_difference,
       CASE WHEN run_a IS NULL THEN 'added' WHEN run_b IS NULL THEN 'removed'
            WHEN coalesce(difference, 0) <= {SAME_PROGRESS} AND segments_a IS NOT DISTINCT FROM segments_b
                 AND run_a = run_b THEN 'same' ELSE 'relabelled' END AS what
FROM episodes"""
# Episodes on both sides may have another label; those on one only have none to compare with
BY_DATASET = """
SELECT dataset, count(*) FILTER (what IN ('same', 'relabelled')) AS in_both, count(*) FILTER (what = 'added') AS added,
       count(*) FILTER (what = 'removed') AS removed, count(*) FILTER (what = 'relabelled') AS relabelled,
       avg(mean_shift_s) FILTER (what = 'relabelled') AS mean_shift_s,
       max(max_shift_s) FILTER (what = 'relabelled') AS max_shift_s,
       avg(progress_difference) FILTER (what = 'relabelled') AS progress_difference
FROM compared GROUP BY 1 ORDER BY 1"""


def _diff(
    lake: Lake, name_a: str, name_b: str, labels: str, sides: Sequence[tuple[int, Any]]
) -> Diff:
    """Compare, episode by episode and dataset by dataset, the labels that a query gives of the lake at the snapshot of
    each of two sides, with the parameter of each."""
    with ExitStack() as attached:
        for side, (snapshot, _) in zip("ab", sides, strict=True):
            attach(lake.con, lake.workspace, side, snapshot)
            attached.callback(lake.con.execute, f"DETACH {side}")
        # Numbers change when runs are added or deleted in the source: the same recordings are compared
        sql = "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'recordings' AND database_name IN ('a', 'b')"
        by_recording = lake.rows(sql) == [(2,)]
        for side, (_, value) in zip("ab", sides, strict=True):
            key = f"coalesce(k.recording, {NUMBER})" if by_recording else NUMBER
            join = JOIN_RECORDINGS.format(side) if by_recording else ""
            lake.con.execute(
                f"CREATE OR REPLACE TEMP TABLE labels_{side} AS {labels.format(side, key, join)}",
                [value],
            )
        lake.con.execute(f"CREATE OR REPLACE TEMP TABLE compared AS {COMPARED}")
    places = "SELECT dataset, episode_index FROM compared WHERE what = ? ORDER BY ALL"
    added, removed = (lake.rows(places, [change]) for change in ("added", "removed"))
    relabelled = lake.dicts(
        "SELECT * EXCLUDE (what) FROM compared WHERE what = 'relabelled' ORDER BY 1, 2"
    )
    return Diff(name_a, name_b, lake.dicts(BY_DATASET), added, removed, relabelled)
