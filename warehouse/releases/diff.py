"""What differs between two releases, each read at its own snapshot, or between two label runs of the present lake."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from warehouse.lake import Lake, attach
from warehouse.releases.contents import ReleaseError, held_episodes_sql
from warehouse.releases.release import Release, get_release

WORST = 20
SAME_PROGRESS = 1e-6  # mean |difference| below which two labels are one


@dataclass(frozen=True)
class Change:
    """One episode that is in both; None where a side lacks what would be compared."""

    dataset: str
    episode_index: int
    run_a: str
    run_b: str
    boundaries_a: int
    boundaries_b: int
    mean_shift_s: float | None  # how far boundaries moved
    max_shift_s: float | None
    progress_difference: float | None  # mean |difference| over the frames


@dataclass(frozen=True)
class Diff:
    a: str
    b: str
    datasets: list[dict]  # per dataset: counts and means
    added: list[tuple[str, int]]
    removed: list[tuple[str, int]]
    relabelled: list[Change]

    @property
    def worst(self) -> list[Change]:
        """Those whose labels moved most."""
        order = sorted(self.relabelled, key=lambda c: (-(c.progress_difference or 0), -(c.max_shift_s or 0)))
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
            "worst": [c.__dict__ for c in self.worst],
        }


def diff_releases(lake: Lake, a: str, b: str) -> Diff:
    """What B holds otherwise than A. Raises ReleaseError and LakeError."""
    left, right = get_release(lake, a), get_release(lake, b)
    with _sides(lake, left.snapshot, right.snapshot):
        for catalog, release in (("a", left), ("b", right)):
            _labels_of_release(lake, catalog, release)
        return _diff(lake, a, b)


def diff_runs(lake: Lake, run_a: str, run_b: str) -> Diff:
    """How two label runs differ on the episodes that both labelled; runs by the beginning of their ids."""
    runs = [_run(lake, run_a), _run(lake, run_b)]
    with _sides(lake, lake.snapshot(), lake.snapshot()):
        for catalog, run in zip("ab", runs, strict=True):
            lake.con.execute(
                f"CREATE OR REPLACE TEMP TABLE labels_{catalog} AS SELECT dataset, episode_index, chunk, label_run "
                "FROM episode_labels WHERE label_run = ?",
                [run],
            )
        return _diff(lake, *runs)


def _run(lake: Lake, wanted: str) -> str:
    runs = [r[0] for r in lake.rows("SELECT label_run FROM label_runs ORDER BY created_at")]
    fitting = [r for r in runs if r.startswith(wanted)]
    if len(fitting) != 1:
        what = "several label runs begin with" if fitting else "there is no label run"
        raise ReleaseError(f"{what} {wanted!r}; label runs: {', '.join(fitting or runs) or 'none yet'}")
    return fitting[0]


@contextmanager
def _sides(lake: Lake, snapshot_a: int, snapshot_b: int) -> Iterator[None]:
    """The lake at two of its snapshots, attached as `a` and `b`."""
    attach(lake.con, lake.workspace, "a", snapshot_a)
    try:
        attach(lake.con, lake.workspace, "b", snapshot_b)
        try:
            yield
        finally:
            lake.con.execute("DETACH b")
    finally:
        lake.con.execute("DETACH a")


def _labels_of_release(lake: Lake, catalog: str, release: Release) -> None:
    """List the episodes of a release with the label that counted."""
    lake.con.execute(
        f"CREATE OR REPLACE TEMP TABLE labels_{catalog} AS SELECT r.dataset, r.episode_index, r.chunk, r.label_run "
        f"FROM {catalog}.active_runs r SEMI JOIN ({held_episodes_sql(catalog)}) held USING (dataset, episode_index)",
        [[s.shard for s in release.shard_list]],
    )


_BOTH = "labels_a a JOIN labels_b b USING (dataset, episode_index)"
_PROGRESS = f"""
SELECT a.dataset, a.episode_index, avg(abs(p.progress - q.progress)) AS difference, count(*) AS frames
FROM {_BOTH}
JOIN a.progress p ON p.dataset = a.dataset AND p.chunk = a.chunk AND p.episode_index = a.episode_index
                 AND p.label_run = a.label_run
JOIN b.progress q ON q.dataset = b.dataset AND q.chunk = b.chunk AND q.episode_index = b.episode_index
                 AND q.label_run = b.label_run AND q.frame_index = p.frame_index
GROUP BY ALL"""


def _segments(catalog: str) -> str:
    return (
        f"SELECT l.dataset, l.episode_index, "
        "list({s: s.start_frame, e: s.end_frame, n: s.name, k: s.kind, c: s.completed} ORDER BY s.segment_index) "
        "AS list "
        f"FROM labels_{catalog} l JOIN {catalog}.segments s ON s.dataset = l.dataset AND s.chunk = l.chunk "
        "AND s.episode_index = l.episode_index AND s.label_run = l.label_run GROUP BY ALL"
    )


def _diff(lake: Lake, name_a: str, name_b: str) -> Diff:
    only = (
        "SELECT dataset, episode_index FROM labels_{} ANTI JOIN labels_{} USING (dataset, episode_index) ORDER BY ALL"
    )
    changed = lake.rows(
        f"WITH p AS ({_PROGRESS}), sa AS ({_segments('a')}), sb AS ({_segments('b')}) "
        "SELECT a.dataset, a.episode_index, a.label_run, b.label_run, p.difference, sa.list, sb.list, c.fps, "
        f"coalesce(p.difference, 0) <= {SAME_PROGRESS} AND sa.list IS NOT DISTINCT FROM sb.list "
        f"AND a.label_run = b.label_run FROM {_BOTH} "
        "LEFT JOIN p USING (dataset, episode_index) LEFT JOIN sa USING (dataset, episode_index) "
        "LEFT JOIN sb USING (dataset, episode_index) LEFT JOIN b.episode_content c USING (dataset, episode_index) "
        "ORDER BY 1, 2"
    )
    changes = [_change(*row[:-1]) for row in changed if not row[-1]]
    added, removed = lake.rows(only.format("b", "a")), lake.rows(only.format("a", "b"))
    counts = dict(lake.rows(f"SELECT dataset, count(*) FROM {_BOTH} GROUP BY 1"))
    names = sorted({*counts, *(d for d, _ in added), *(d for d, _ in removed)})
    rows = [_dataset_row(d, counts.get(d, 0), added, removed, changes) for d in names]
    return Diff(name_a, name_b, rows, added, removed, changes)


def _change(
    dataset: str,
    episode: int,
    run_a: str,
    run_b: str,
    difference: float | None,
    a: list[dict] | None,
    b: list[dict] | None,
    fps: float | None,
) -> Change:
    # the first segment begins at 0 in every label
    starts_a, starts_b = ([s["s"] for s in (x or [])[1:]] for x in (a, b))
    moves = boundary_moves(starts_a, starts_b)
    seconds = [m / fps for m in moves] if fps else []
    return Change(
        dataset,
        episode,
        run_a,
        run_b,
        len(starts_a),
        len(starts_b),
        sum(seconds) / len(seconds) if seconds else None,
        max(seconds, default=None),
        difference,
    )


def boundary_moves(a: Sequence[int], b: Sequence[int]) -> list[int]:
    """Frames between boundaries that belong together: in order of time where both have as many, else each boundary of
    either side and the nearest of the other. Empty where a side has none."""
    if len(a) == len(b):
        return [abs(x - y) for x, y in zip(a, b, strict=True)]
    if not a or not b:
        return []
    return [min(abs(x - y) for y in b) for x in a] + [min(abs(x - y) for x in a) for y in b]


def _dataset_row(
    dataset: str, both: int, added: list[tuple[str, int]], removed: list[tuple[str, int]], changes: list[Change]
) -> dict:
    here = [c for c in changes if c.dataset == dataset]
    shifts = [c.mean_shift_s for c in here if c.mean_shift_s is not None]
    apart = [c.progress_difference for c in here if c.progress_difference is not None]
    return {
        "dataset": dataset,
        "in_both": both,
        "added": sum(d == dataset for d, _ in added),
        "removed": sum(d == dataset for d, _ in removed),
        "relabelled": len(here),
        "mean_shift_s": sum(shifts) / len(shifts) if shifts else None,
        "max_shift_s": max((c.max_shift_s for c in here if c.max_shift_s is not None), default=None),
        "progress_difference": sum(apart) / len(apart) if apart else None,
    }
