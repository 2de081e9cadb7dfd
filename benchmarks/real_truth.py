"""Labels of real robots against what people saw: figures of each set, claims about them, and how far to trust them.

`benchmarks.label_truth --real` prints the tables.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from annotate.segments import STEP, Segment
from benchmarks.tables import json_number, score_json, table
from benchmarks.trial import among_first, build, review_scores, stated_outcomes
from core.paths import Workspace
from eval.annotators.labels import LabelledEpisode, stored_labels
from eval.annotators.scoring import EpisodeScore, measures, score_episode, seconds_off
from eval.annotators.truth import NEAR_S, EpisodeTruth, corpus_truth
from eval.metrics.score import Measure, Score, paired, scores
from warehouse.lake import Lake

MOTION = "motion"
SIMULATED = ("gr1_pick_place",)  # of the sets with a hand-labelled truth: people looked at a simulation
WORST_SHARE = 1 / 3  # of the review queue, where wrong labels are to be
CONFIDENCE_BINS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.01)


@dataclass(frozen=True)
class RealSet:
    """One dataset: the figures of its episodes, and the episodes that have none, with the reason."""

    dataset: str
    made_by: str  # the annotators of its labels
    code_version: str
    scores: dict[int, EpisodeScore]
    labels: dict[int, LabelledEpisode]
    truth: dict[int, EpisodeTruth]
    missing: dict[int, str]
    review_scores: dict[int, float]  # of the episodes that the review queue asks to look at
    told: dict[int, EpisodeScore]  # the same episodes after the outcomes that the truth has were imported


def score_dataset(lake: Lake, dataset: str, truth: Mapping[int, EpisodeTruth]) -> RealSet:
    """The labels of a built dataset against the truth of it."""
    labels = stored_labels(lake, dataset)
    scored: dict[int, EpisodeScore] = {}
    missing: dict[int, str] = {}
    for episode, known in sorted(truth.items()):
        if episode not in labels:
            missing[episode] = "no label"
            continue
        try:
            scored[episode] = score_episode(labels[episode], known)
        except ValueError as e:
            missing[episode] = str(e)
    made_by = ", ".join(sorted({labels[e].annotator for e in scored}))
    own = {e: labels[e] for e in scored}
    version = ", ".join(code_versions(lake, dataset))
    return RealSet(dataset, made_by, version, scored, own, dict(truth), missing, review_scores(lake, dataset), {})


def code_versions(lake: Lake, dataset: str) -> list[str]:
    """Of what made the labels that count."""
    rows = lake.rows(
        "SELECT DISTINCT code_version FROM label_runs JOIN active_runs USING (label_run) WHERE dataset = ? ORDER BY 1",
        [dataset],
    )
    return [version for (version,) in rows if version]


def real_sets(
    truth: Path, data: Path, datasets: Sequence[str], space: Workspace, annotator: str | None
) -> Iterable[RealSet]:
    """Build and score each dataset."""
    for dataset in datasets:
        build(space, data / dataset, dataset, annotator)
        lake = Lake(space, read_only=True)
        known = corpus_truth(lake, truth, dataset)
        as_it_is = score_dataset(lake, dataset, known)
        lake.con.close()
        success = {e: t.success for e, t in known.items() if t.success is not None and e in as_it_is.scores}
        told: dict[int, EpisodeScore] = {}
        if success:
            with stated_outcomes(space, dataset, success):
                build(space, data / dataset, dataset, annotator)
                told = score_dataset(Lake(space, read_only=True), dataset, known).scores
        yield replace(as_it_is, told=told)


def figures(scored: Sequence[EpisodeScore]) -> tuple[dict[str, Score], dict[str, Score]]:
    """Scores over episodes, and the differences that claims are made of: ours less the other's."""
    by_name = measures(scored)
    pairs = {
        "f1_near less uniform": ("f1_near", "f1_near_uniform"),
        "f1_near less random": ("f1_near", "f1_near_random"),
        "f1_far less uniform": ("f1_far", "f1_far_uniform"),
        "f1_far less random": ("f1_far", "f1_far_random"),
        "bf1 less uniform": ("bf1", "bf1_uniform"),
        "events less uniform": ("events", "events_uniform"),
        "events less random": ("events", "events_random"),
        "mae less clock": ("mae", "mae_clock"),
    }
    return scores(by_name), {name: _gap(by_name[a], by_name[b]) for name, (a, b) in pairs.items()}


def _gap(first: Measure, second: Measure) -> Score:
    gap = paired(first, second)
    return Score(gap.value, gap.low, gap.high, gap.n)


REAL_COLUMNS: dict[str, tuple[str, ...]] = {
    "F1 within 0.5 s: labels": ("f1_near",),
    "uniform / random cuts": ("f1_near_uniform", "f1_near_random"),
    "random cuts as good": ("f1_near_chance",),
    "F1 within 1 s": ("f1_far",),
    "uniform / random": ("f1_far_uniform", "f1_far_random"),
    "BF1@5": ("bf1",),
    "uniform": ("bf1_uniform",),
    "events within 0.5 s": ("events",),
    "uniform / random ": ("events_uniform", "events_random"),
    "seconds off": ("events_off_s",),
    "error of progress": ("mae",),
    "clock": ("mae_clock",),
    "passes apart": ("mae_passes",),
    "unnamed steps": ("unnamed",),
    "steps under 0.3 s": ("slivers",),
}
WITH_INTERVAL = ("f1_near", "f1_far", "bf1", "events", "events_off_s", "mae")


def real_row(name: str, made_by: str, scored: Sequence[EpisodeScore], missing: int) -> list[str]:
    by_name, _ = figures(scored)
    episodes = str(len(scored)) + (f" (and {missing} without)" if missing else "")
    return [name, made_by, episodes, *(" / ".join(_cell(by_name[n], n) for n in c) for c in REAL_COLUMNS.values())]


def _cell(score: Score, name: str) -> str:
    # An interval over one episode says nothing
    return score.text() if score.n == 0 or (score.n > 1 and name in WITH_INTERVAL) else f"{score.value:.3f}"


def print_real(sets: Sequence[RealSet]) -> None:
    """One table, real robots first, and what the labels gain over those that look at nothing."""
    in_order = sorted(sets, key=lambda s: s.dataset in SIMULATED)
    groups = [(s.dataset, s.made_by, list(s.scores.values()), len(s.missing)) for s in in_order]
    real = [score for s in in_order if s.dataset not in SIMULATED for score in s.scores.values()]
    every = [score for s in in_order for score in s.scores.values()]
    groups += [("all real robots", "", real, 0), ("all", "", every, 0)]
    told = [score for s in in_order for score in s.told.values()]
    groups.append(("all, with outcomes", "", told, 0))
    table(["set", "labels by", "episodes", *REAL_COLUMNS], [real_row(*group) for group in groups if group[2]])
    rows = []
    for name, _, scored, _ in groups:
        gaps = figures(scored)[1] if scored else {}
        rows.append([name, *(gap.text() if gap.n != 1 else f"{gap.value:.3f}" for gap in gaps.values())])
    table(["labels less the other", *figures(every)[1]] if every else ["labels less the other"], rows)
    claims = [[*own, "yes" if holds else "**no**"] for *own, holds in real_claims(in_order)]
    table(["set", "claim", "figure", "bound", "holds"], claims)
    print_trust(in_order)
    for s in in_order:
        for episode, why in s.missing.items():
            print(f"{s.dataset} episode {episode} is not scored: {why}")


# What is claimed of each set that motion has labelled: a difference, the bound, and which end of its interval keeps it
REAL_CLAIMS = (
    ("f1_near less uniform", "low > 0", lambda gap: gap.low > 0),
    ("f1_near less random", "low > 0", lambda gap: gap.low > 0),
    ("mae less clock", "mean < 0", lambda gap: gap.value < 0),
)
CHANCE = 0.05  # of one episode: so many random cuts may be as good as its boundaries


def real_claims(sets: Sequence[RealSet]) -> list[tuple[str, str, str, str, bool]]:
    """(set, what, figure, bound, holds). A set of one episode has no interval: random cuts stand in for one."""
    claims = []
    for s in (s for s in sets if s.made_by == MOTION and s.scores):
        by_name, gaps = figures(list(s.scores.values()))
        for name, bound, holds in REAL_CLAIMS:
            gap = gaps[name]
            if gap.n > 1 or bound.startswith("mean"):
                claims.append((s.dataset, name, gap.text(), bound, bool(holds(gap))))
        if len(s.scores) == 1:
            share = by_name["f1_near_chance"].value
            claims.append((s.dataset, "random cuts as good", f"{share:.3f}", f"below {CHANCE}", share < CHANCE))
    return claims


# Whether the product knows where its labels are wrong


def is_wrong(score: EpisodeScore) -> bool:
    """No better than what looks at nothing: random cuts, or the clock."""
    return score.f1_near <= score.f1_near_random or score.mae >= score.mae_clock


def ends_off(segment: Segment, truth: EpisodeTruth) -> list[float]:
    """Seconds from each end of a segment that is not the episode's own to the nearest boundary."""
    inner = [frame for frame in (segment.start_frame, segment.end_frame) if 0 < frame < truth.num_frames]
    return seconds_off(truth.boundaries, inner, truth).tolist()


def print_trust(sets: Sequence[RealSet]) -> None:
    """How many of the wrong labels the review queue puts first, and how often what is confident is right."""
    wrong, scores_of_review, steps = [], [], []
    for s in sets:
        for episode, score in s.scores.items():
            wrong.append(is_wrong(score))
            scores_of_review.append(s.review_scores.get(episode, 0.0))
            own = [segment for segment in s.labels[episode].segments if segment.kind == STEP]
            steps += [(segment.confidence, ends_off(segment, s.truth[episode])) for segment in own]
    reached = among_first(wrong, scores_of_review, WORST_SHARE)
    print(
        f"{sum(wrong)} of {len(wrong)} labels are wrong (no better than random cuts or the clock); of these "
        f"{reached:.2f} are in the worst third of the review queue\n"
    )
    rows = []
    for low, high in pairwise(CONFIDENCE_BINS):
        offs = [off for sure, ends in steps if sure is not None and low <= sure < high for off in ends]
        if offs:
            near = np.mean(np.array(offs) <= NEAR_S)
            rows.append([f"{low:.1f} to {min(1.0, high):.1f}", str(len(offs)), f"{near:.2f}"])
    table(["confidence of a step", "ends of steps", "within 0.5 s of a boundary"], rows)


# The data file


def real_json(sets: Sequence[RealSet]) -> dict[str, Any]:
    """All figures; a number that is not defined is null."""
    return {s.dataset: _set_json(s) for s in sorted(sets, key=lambda s: s.dataset)}


def _set_json(s: RealSet) -> dict[str, Any]:
    by_name, gaps = figures(list(s.scores.values())) if s.scores else ({}, {})
    told, told_gaps = figures(list(s.told.values())) if s.told else ({}, {})
    return {
        "labels_by": s.made_by,
        "code_version": s.code_version,
        "simulated": s.dataset in SIMULATED,
        "figures": {name: score_json(score) for name, score in by_name.items()},
        "differences": {name: score_json(score) for name, score in gaps.items()},
        "with_outcomes": {
            "figures": {name: score_json(score) for name, score in told.items()},
            "differences": {name: score_json(score) for name, score in told_gaps.items()},
        },
        "episodes": {str(e): _episode_json(s, e) for e in s.scores},
        "missing": {str(e): why for e, why in s.missing.items()},
    }


def _episode_json(s: RealSet, episode: int) -> dict[str, Any]:
    """Figures of one episode, and per segment how far its ends are from the truth."""
    label, truth = s.labels[episode], s.truth[episode]
    own = {name: json_number(value) for name, value in asdict(s.scores[episode]).items()}
    return own | {
        "confidence": json_number(label.confidence),
        "success": truth.success,
        "review_score": json_number(s.review_scores.get(episode, 0.0)),
        "is_wrong": is_wrong(s.scores[episode]),
        "segments": [_segment_json(segment, truth) for segment in label.segments],
    }


def _segment_json(segment: Segment, truth: EpisodeTruth) -> dict[str, Any]:
    """`ends_off_s`: of its ends that are not the episode's own, to the nearest boundary."""
    return {
        "name": segment.name,
        "kind": segment.kind,
        "start_frame": segment.start_frame,
        "end_frame": segment.end_frame,
        "confidence": json_number(segment.confidence),
        "ends_off_s": [json_number(off) for off in ends_off(segment, truth)],
    }
