"""Checks of a corpus: what has to hold before anything is built on it."""

from dataclasses import dataclass

from warehouse.lake import Lake

MIN_DECODABLE = 0.5  # share of a chunk's episodes with video that must decode


@dataclass(frozen=True)
class CheckOutcome:
    passed: bool
    detail: str
    numbers: dict[str, float]


def decodable_coverage(lake: Lake, dataset: str, chunk: int) -> CheckOutcome:
    """At least half of a chunk's episodes that have video and rows decode: less is a broken source, not bad luck."""
    with_video, usable = lake.rows(
        "SELECT count(*), count(*) FILTER (status = 'ok') FROM episodes e WHERE dataset = ? AND chunk = ? "
        "AND NOT EXISTS (SELECT 1 FROM findings f WHERE f.dataset = e.dataset AND f.episode_index = e.episode_index "
        "AND f.stage = 'episodes' AND f.severity = 'unusable')",
        [dataset, chunk],
    )[0]
    share = usable / with_video if with_video else 1.0
    detail = f"{usable} of {with_video} episodes with video decode"
    return CheckOutcome(share >= MIN_DECODABLE, detail, {"decodable": share, "episodes": with_video})


def progress_sanity(lake: Lake, dataset: str, chunk: int) -> CheckOutcome:
    """Every usable episode of a chunk has an active label for each frame, in 0..1, that starts at 0."""
    here = [dataset, chunk]
    unlabelled = lake.rows(
        "SELECT count(*) FROM episodes e WHERE dataset = ? AND chunk = ? AND status = 'ok' AND num_frames <> "
        "(SELECT count(*) FROM active_progress p WHERE p.dataset = e.dataset AND p.chunk = e.chunk "
        "AND p.episode_index = e.episode_index)",
        here,
    )[0][0]
    outside, not_zero = lake.rows(
        "SELECT count(*) FILTER (NOT coalesce(progress BETWEEN 0 AND 1, false) OR isnan(progress)), "
        "count(*) FILTER (frame_index = 0 AND progress <> 0) FROM active_progress WHERE dataset = ? AND chunk = ?",
        here,
    )[0]
    detail = f"{unlabelled} episodes not labelled in full, {outside} labels outside 0..1, {not_zero} starts not at 0"
    numbers = {"unlabelled": unlabelled, "outside": outside, "starts_not_at_zero": not_zero}
    return CheckOutcome(unlabelled + outside + not_zero == 0, detail, numbers)


def split_leaks(lake: Lake) -> CheckOutcome:
    """No group and no episode content stands in more than one split of usable episodes."""
    groups = lake.rows(
        'SELECT s.dataset, s."group" FROM splits s JOIN episodes e USING (dataset, episode_index) '
        "WHERE e.status = 'ok' GROUP BY ALL HAVING count(DISTINCT s.split) > 1 ORDER BY ALL"
    )
    twins = lake.rows(
        "SELECT e.content_hash, min(e.dataset), min(e.episode_index) FROM splits s JOIN episodes e "
        "USING (dataset, episode_index) WHERE e.status = 'ok' AND e.content_hash IS NOT NULL GROUP BY 1 "
        "HAVING count(DISTINCT s.split) > 1 ORDER BY ALL"
    )
    examples = [f"group {g!r} of {d}" for d, g in groups[:3]]
    examples += [f"a copy of {d} episode {e}" for _, d, e in twins[:3]]
    detail = "no leak" if not examples else f"in more than one split: {', '.join(examples)}"
    return CheckOutcome(not examples, detail, {"groups": len(groups), "copies": len(twins)})
