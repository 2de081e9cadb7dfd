"""People's corrections of an episode, and its labels as they make them: at once, before a
build takes them in.
"""

from typing import Any

from annotate.quality import PERSON
from core.annotators import BY_PEOPLE, HUMAN
from core.files import queries_of
from core.names import is_name
from explorer.access import LakeReader
from warehouse.lake.corrections import ACCEPTED, REJECTED, segments_of
from warehouse.lake.words import topics

# Of label_quality, for the pages
QUALITY_SIGNS = (
    "length_z", "order_rarity", "jump", "end_progress", "contradicts", "end_by", "p_failure", "failure_signs",
)  # fmt: skip
# A label of which nothing is known
NO_LABEL = {
    "why": None, "about": {}, "model": None, "steps_from": None, "confidence": None, "progress": [],
    "progress_procvlm": [], "reasoning": [], "plan": [], "needs_review": False, "notes": [],
}  # fmt: skip

[SPOKEN_OF_SQL] = queries_of(__file__)


def correction_state(reader: LakeReader, dataset: str, episode_index: int) -> dict[str, Any]:
    """The corrections of an episode, oldest first; those that count; what the next build
    has to take in, as the view pending_corrections says it.
    """
    key = (dataset, episode_index)
    of_episode = "WHERE dataset = ? AND episode_index = ?"
    if key not in corrected_places(reader):
        return {"history": [], "newest": None, "current": [], "pending": []}
    source = f"FROM located_corrections {of_episode} ORDER BY created_at, correction_id"
    rows = reader.dicts(source, [*key])
    current = reader.dicts(f"FROM current_corrections {of_episode}", [*key])
    pending = reader.dicts(f"SELECT what FROM pending_corrections {of_episode}", [*key])
    return {
        "history": [_with_segments(r) for r in rows],
        "newest": rows[-1]["correction_id"] if rows else None,
        "current": [_with_segments(r) for r in current],
        "pending": [row["what"] for row in pending],
    }


def corrected_places(
    reader: LakeReader,
    kind: str = "correction",
) -> set[tuple[str, int]]:
    """The episodes that anybody has corrected, or whose like: most are not, and need no
    look for their corrections.

    kind: of what else people say, such as `outcome`.
    """
    number, former = reader.kept(
        ("spoken of", kind),
        lambda: (reader.words.newest, {*reader.rows(SPOKEN_OF_SQL, [topics(kind)])}),
    )
    return reader.while_nothing_is_said(
        ("spoken of", kind), lambda: former | reader.places_said_since(kind, number)
    )


def _accepted_correction(current: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((c for c in current if c["status"] == ACCEPTED), None)


def _rejected_runs(current: list[dict[str, Any]]) -> set[str]:
    return {c["base_label_run"] for c in current if c["status"] == REJECTED}


def _with_segments(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"segments": [s.__dict__ for s in segments_of(row)] if row["segments"] else None}


def labels_with_corrections(
    reader: LakeReader, dataset: str, episode_index: int, runs: list[dict]
) -> list[dict]:
    """The labels of an episode as `label_runs` has them, with what people have corrected
    since the last build.

    A correction that no build has taken in stands first, without curves; a rejected label
    does not count.
    """
    corrections = correction_state(reader, dataset, episode_index)
    accepted = _accepted_correction(corrections["current"])
    # Beside a correction that a build has taken in, a rejected label changes nothing
    if accepted:
        changes = {"corrected"}
    else:
        changes = {"rejected", "taken back"}
    if changes.isdisjoint(corrections["pending"]):
        return runs
    # The human label of the last build is out of date: it goes, and what people say now takes its place
    by_annotators = [run for run in runs if run["annotator"] != HUMAN]
    if accepted:
        return [_as_label(accepted, dataset), *(run | {"active": False} for run in by_annotators)]
    # Only rejections are left: the label that counted does so unless somebody has rejected it
    rejected = _rejected_runs(corrections["current"])
    return [
        run | {"active": run["active"] and run["label_run"] not in rejected}
        for run in by_annotators
    ]


def _as_label(correction: dict[str, Any], dataset: str) -> dict[str, Any]:
    """An accepted correction as a label that counts; no build has computed anything of it yet."""
    plan = correction["plan"]
    segments = correction["segments"]
    return NO_LABEL | {
        "label_run": f"human/{dataset}",
        "active": True,
        "why": "accepted correction; samples and shards follow with the next build",
        "annotator": HUMAN,
        "made_by": BY_PEOPLE,
        "segments": [
            s | {"segment_index": k, "num_planned": len(plan)} for k, s in enumerate(segments)
        ],
        "plan": plan,
        "final_progress": correction.get("final_progress"),
        "catastrophic_frame": correction.get("catastrophic_frame"),
        "named": all(map(is_name, (*plan, *(s["name"] for s in segments)))),
        "notes": [correction["comment"]] if correction["comment"] else [],
        "quality": dict.fromkeys(QUALITY_SIGNS) | {"end_by": PERSON},
    }
