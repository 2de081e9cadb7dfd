"""What the vlm annotator makes of a model's answers: hand labels stand in for a model, exactly or with its mistakes.

    python -m benchmarks.vlm_stand_in [--data FOLDER] [--workspace W] [--seeds 2] [--only WORD] [--page]

No server is asked: each question of the annotator is answered from the hand labels of the nine real sets
(benchmarks/real_truth; built from FOLDER, and the annotator is given their signals as in a build). Prints for each kind
of model: F1 of boundaries within 0.5 s, error of progress to a person's label of the run itself, known
successes whose label is finished, labels that are unsure (refused, for review, or of a confidence below 0.5) and that
are for review, and calls and tokens a minute of video. Tokens are those of Qwen3-VL's picture arithmetic and of four
characters a token, for pictures of 480 x 360. The last rows are other ways of asking, with the exact model: what this
annotator asked before, a plain request, and the way of LeRobot's annotator as its documentation describes it.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, pairwise, product
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from annotate.config import VlmConfig
from annotate.model_client.calls import Reply, Request, VlmError
from annotate.model_client.reading import problem_of
from annotate.model_client.tokens import prompt_tokens
from annotate.vlm.annotator import annotate_episode, reason_episode
from benchmarks.hand_labels import HandLabelled, labelled_sets, picture, view_of
from benchmarks.harness import table_text, trial_workspace, write_tables
from benchmarks.label_truth import hand_labelled, names, robot_of
from benchmarks.vlm_other_ways import as_lerobot, plainly, reply_tokens
from core.domain.label import DONE, IDLE, STEP, Label, Segment, finished
from core.domain.label_run import MIN_NAME_CONFIDENCE
from core.paths import ROOT
from eval.annotators.scoring import cuts_f1
from eval.annotators.truth import EpisodeTruth, hand_progress, planned_step

NEAR_S = 0.5


@dataclass(frozen=True)
class Mistakes:
    """What a model does wrong. off_s: seconds that each boundary is off, to either side."""

    off_s: float = 0.0
    missed_completions: float = 0.0  # share of completed attempts that verify denies
    denies_all: bool = False
    dropped: float = 0.0  # share of runs of which a step is left out
    doubled: float = 0.0  # share of runs of which a step is told twice
    parts: int = 0  # the run in so many equal parts, whatever it shows
    part_s: float = 0.0  # steps of that length, up to the end
    one_step: bool = False
    shuffled: bool = False
    at_one_picture: bool = False
    counts_from: int | None = None  # pictures are counted from that number, whatever stands at them
    in_seconds: bool = False
    unusable: float = 0.0  # share of replies that cannot be read


@dataclass
class StandIn:
    """Answers the questions about one run from its hand labels."""

    truth: EpisodeTruth
    mistakes: Mistakes
    rng: np.random.Generator
    calls: int = 0
    images: int = 0
    tokens: int = 0
    plan: list[str] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)

    def __post_init__(self) -> None:
        truth_segments = _numbered(self.truth)
        steps = {s.step: s.name for s in reversed(truth_segments) if s.kind == STEP}
        self.plan = [steps[k] for k in range(len(steps))]
        while len(self.plan) < 2:
            self.plan.append("Retract the arm")
        self.segments = self._spoilt(truth_segments)

    def _spoilt(self, truth_segments: list[Segment]) -> list[Segment]:
        n = self.truth.num_frames
        fps = self.truth.fps
        m = self.mistakes
        count = m.parts or (max(2, int(n / fps / m.part_s)) if m.part_s else 0)
        if count:
            edges = [round(k * n / count) for k in range(count + 1)]
            names = [k % len(self.plan) for k in range(count)]
            return [
                Segment("", a, b, STEP, True, k)
                for k, (a, b) in zip(names, pairwise(edges), strict=True)
            ]
        if m.one_step:
            return [Segment("", 0, n, STEP, True, 0)]
        inner = [k for k, s in enumerate(truth_segments) if s.kind == STEP and k]
        if inner and self.rng.random() < m.dropped:
            k = int(self.rng.choice(inner))
            truth_segments = [
                *truth_segments[: k - 1],
                replace(truth_segments[k - 1], end_frame=truth_segments[k].end_frame),
                *truth_segments[k + 1 :],
            ]
        if inner and self.rng.random() < m.doubled:
            k = int(self.rng.integers(len(truth_segments)))
            middle = (truth_segments[k].start_frame + truth_segments[k].end_frame) // 2
            halves = (
                replace(truth_segments[k], end_frame=middle),
                replace(truth_segments[k], start_frame=middle),
            )
            truth_segments = [*truth_segments[:k], *halves, *truth_segments[k + 1 :]]
        if m.shuffled:
            places = [k for k, s in enumerate(truth_segments) if s.kind == STEP]
            steps = [truth_segments[k].step or 0 for k in places]
            order = self.rng.permutation(steps).tolist()
            truth_segments = [
                replace(s, step=order[places.index(k)]) if k in places else s
                for k, s in enumerate(truth_segments)
            ]
        off = m.off_s * fps * self.rng.choice([-1, 1], len(truth_segments) - 1)
        ends = (
            np.clip([s.end_frame for s in truth_segments[:-1]] + off, 1, n - 1).round().astype(int)
        )
        edges = [0, *np.maximum.accumulate(ends).tolist(), n]
        return [
            replace(s, start_frame=a, end_frame=b)
            for s, (a, b) in zip(truth_segments, pairwise(edges), strict=True)
        ]

    async def __call__(self, request: Request) -> Reply:
        for _ in range(2):  # as the client asks
            self.calls += 1
            self.images += len(request.images)
            assert request.schema is not None
            answers = {
                "plan": self._planned,
                "segment": self._divided,
                "refine": self._refined,
                "verify": self._verified,
                "reason": self._explained,
            }
            value = answers[request.stage](request)
            self.tokens += prompt_tokens(request) + reply_tokens(value)
            problem = problem_of(value, request.schema)
            if self.mistakes.unusable and self.rng.random() < self.mistakes.unusable:
                problem = "the reply is no JSON"
            if problem is None:
                return Reply("", value, 0, 0, 0.0, cached=False)
        raise VlmError("bad_reply", problem or "")

    def _planned(self, _: Request) -> dict[str, Any]:
        names = [re.sub(r"[^ -~]|[\"\\]", "", name)[:40] for name in self.plan]
        steps = [{"verb": "Move", "object": f"{k} {name}"} for k, name in enumerate(names)]
        return {"scene": WORDS, "steps": steps}

    def _divided(self, request: Request) -> dict[str, Any]:
        frames = shown_in(request)
        segment_numbers = [_at(self.segments, frame) for frame in frames]
        changes = [(k, b) for k, (a, b) in enumerate(pairwise(segment_numbers), 1) if a != b]
        if self.mistakes.at_one_picture:
            changes = [(len(frames) // 2, b) for _, b in changes]
        change_rows = [{"picture": self._number(frames, k)} | self._activity(b) for k, b in changes]
        properties = (request.schema or {})["properties"]
        if not change_rows and properties["changes"]["minItems"]:
            change_rows = [{"picture": frames[-1], "label": DONE, "outcome": "achieved"}]
        change_rows = change_rows[: properties["changes"]["maxItems"]]
        return {"seen": WORDS, "first": self._activity(segment_numbers[0]), "changes": change_rows}

    def _number(self, frames: Sequence[int], k: int) -> Any:
        if self.mistakes.counts_from is not None:
            return k + self.mistakes.counts_from
        if self.mistakes.in_seconds:
            return round(frames[k] / self.truth.fps)
        return frames[k]

    def _activity(self, k: int) -> dict[str, str]:
        s = self.segments[k]
        label = str((s.step or 0) + 1) if s.kind == STEP else s.kind
        return {
            "label": label,
            "outcome": "achieved" if s.completed or s.kind != STEP else "not_achieved",
        }

    def _refined(self, request: Request) -> dict[str, Any]:
        frames = shown_in(request)
        segment_numbers = [_at(self.segments, frame) for frame in frames]
        return {
            "seen": "x",
            "picture": next(
                (
                    f
                    for f, k in zip(frames, segment_numbers, strict=True)
                    if k != segment_numbers[0]
                ),
                frames[-1],
            ),
        }

    def _verified(self, request: Request) -> dict[str, Any]:
        listed = re.findall(
            r"(attempt_\d+): step (\d+), .*?, from ([\d.]+) s to ([\d.]+) s",
            str(request.content[-1]),
        )
        return {key: self._verdict(int(step) - 1, float(a), float(b)) for key, step, a, b in listed}

    def _explained(self, request: Request) -> dict[str, Any]:
        return dict.fromkeys((request.schema or {})["properties"], WORDS)

    def _verdict(self, step: int, start_s: float, end_s: float) -> dict[str, Any]:
        middle = (start_s + end_s) / 2 * self.truth.fps
        attempts = [s for s in self.segments if s.kind == STEP and s.step == step]
        nearest = min(
            attempts, key=lambda s: abs((s.start_frame + s.end_frame) / 2 - middle), default=None
        )
        completed = nearest is not None and nearest.completed and not self.mistakes.denies_all
        missed = self.rng.random() < self.mistakes.missed_completions
        return {"criterion": WORDS, "evidence": WORDS, "completed": completed and not missed}


# A thought of usual length
WORDS = "The gripper closes on the object and lifts it; then it is set down."


def shown_in(request: Request) -> list[int]:
    """The numbers of a question's pictures, which are frames."""
    properties = (request.schema or {})["properties"]
    if "changes" in properties:
        change = properties["changes"]["items"]["properties"]
    else:
        change = properties
    first = re.match(r"Pictures? (\d+)", str(request.content[1]))
    assert first is not None
    return [int(first[1]), *change["picture"]["enum"]]


def _at(segments: Sequence[Segment], frame: int) -> int:
    return max(k for k, s in enumerate(segments) if s.start_frame <= frame)


def _numbered(truth: EpisodeTruth) -> list[Segment]:
    """The first person's segments, with steps numbered in the order of their first attempts."""
    segments = [
        s if s.kind in (STEP, IDLE, DONE) else replace(s, kind=DONE) for s in truth.passes[0]
    ]
    steps = dict.fromkeys(planned_step(s) for s in segments if s.kind == STEP)
    numbers = {step: k for k, step in enumerate(steps)}
    return [replace(s, step=numbers[planned_step(s)] if s.kind == STEP else None) for s in segments]


# Trials


class Outcome(NamedTuple):
    """What came of one run."""

    f1: float = 0.0
    error: float = 0.0
    finished: float | None = None  # of a known success
    unsure: bool = True
    for_review: bool = True
    calls: int = 0
    tokens: int = 0
    minutes: float = 0.0
    robot: str = ""
    confidence: float = 0.0
    is_left_out: bool = False  # without a label


def trial(run: HandLabelled, mistakes: Mistakes, config: VlmConfig, seed: int) -> Outcome:
    """What came of one run, and what `model` took: that of the cheap models (CHEAP) is not counted."""
    truth = run.truth
    seeds = [seed, truth.episode_index]
    model = StandIn(truth, mistakes, np.random.default_rng(seeds))
    by_name = {
        name: StandIn(truth, CHEAP[name], np.random.default_rng([*seeds, k]))
        for k, name in enumerate(config.cheap_models)
    }

    def ask(request: Request) -> Awaitable[Reply]:
        return by_name.get(request.model, model)(request)

    try:
        view = view_of(run, success=truth.success)
        label = asyncio.run(annotate_episode(view, ask, config))
        if config.reason:
            asyncio.run(reason_episode(view, label.segments, label.num_planned, ask, config))
    except VlmError:
        label = None
    return outcome(truth, label, model)


def other_way(run: HandLabelled, label_way: Callable[..., tuple[Label, int, int]]) -> Outcome:
    """What another way of asking makes of an exact model."""
    truth = run.truth
    model = StandIn(truth, Mistakes(), np.random.default_rng(0))
    label, model.calls, model.tokens = label_way(model.segments, truth.num_frames, truth.fps)
    return outcome(truth, label, model)


def outcome(truth: EpisodeTruth, label: Label | None, model: StandIn) -> Outcome:
    bill = {
        "calls": model.calls,
        "tokens": model.tokens,
        "minutes": truth.num_frames / truth.fps / 60,
    }
    robot = robot_of(truth.dataset)
    if label is None:
        is_finished = 0.0 if truth.success else None
        return Outcome(finished=is_finished, error=0.5, robot=robot, is_left_out=True, **bill)
    cuts = [s.start_frame for s in label.segments[1:]]
    curve = hand_progress(label.segments, truth.num_frames)
    lengths = [len(s) for s in label.segments]
    confidence = np.average([s.confidence or 0.0 for s in label.segments], weights=lengths)
    return Outcome(
        f1=cuts_f1(cuts, truth.boundaries, NEAR_S * truth.fps),
        error=float(np.abs(curve - truth.progress()).mean()),
        finished=float(finished(label.segments, label.num_planned)) if truth.success else None,
        unsure=bool(label.needs_review or confidence < MIN_NAME_CONFIDENCE),
        for_review=label.needs_review,
        robot=robot,
        confidence=float(confidence),
        **bill,
    )


# Of lower quality, by their names
CHEAP: Mapping[str, Mistakes] = dict.fromkeys(
    ("small", "tiny"), Mistakes(off_s=0.1, dropped=1 / 3, doubled=0.2, missed_completions=0.1)
)
UNUSABLE = "5 % of replies unusable"
MODELS: Mapping[str, Mistakes] = {
    "exact": Mistakes(),
    "boundaries off by 0.5 s": Mistakes(off_s=0.5),
    "off by 1 s": Mistakes(off_s=1.0),
    "off by 2 s": Mistakes(off_s=2.0),
    "a third of runs lacks a step": Mistakes(dropped=1 / 3),
    "a third of runs doubles a step": Mistakes(doubled=1 / 3),
    "verify denies 10 % of completed steps": Mistakes(missed_completions=0.1),
    "verify denies 20 %": Mistakes(missed_completions=0.2),
    UNUSABLE: Mistakes(unusable=0.05),
    "a cheap model": CHEAP["small"],
    "nonsense: verify denies everything": Mistakes(denies_all=True),
    "nonsense: equal parts": Mistakes(parts=5),
    "nonsense: steps of a second": Mistakes(part_s=1.0),
    "nonsense: one step for all": Mistakes(one_step=True),
    "nonsense: steps in another order": Mistakes(shuffled=True),
    "nonsense: all changes at one picture": Mistakes(at_one_picture=True),
    "nonsense: pictures counted from 0": Mistakes(counts_from=0),
    "nonsense: pictures counted from 1": Mistakes(counts_from=1),
    "nonsense: seconds for pictures": Mistakes(in_seconds=True),
}
WAYS: Mapping[str, VlmConfig] = {
    "a picture a second by itself, every boundary refined": VlmConfig(
        pictures_per_s=1.0, max_images=24, contact_sheet=False, refine=True
    ),
    "a picture a second": VlmConfig(pictures_per_s=1.0),
    "pictures by themselves, no sheets": VlmConfig(contact_sheet=False),
    "every boundary refined": VlmConfig(refine=True),
    "two passes": VlmConfig(passes=2, gate_tolerance_s=NEAR_S),
    "two cheap models first: tokens of the exact one": VlmConfig(cheap_models=tuple(CHEAP)),
    "no verify": VlmConfig(verify=False),
    "no reason": VlmConfig(reason=False),
}
OTHER_WAYS: Mapping[str, Callable[..., tuple[Label, int, int]]] = {
    "as LeRobot 0.6.1 asks": as_lerobot,
    "one plain request, a picture a second": partial(plainly, picture=picture()),
}


def row_of(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    minutes = sum(o.minutes for o in outcomes)
    successes = [o.finished for o in outcomes if o.finished is not None]

    def mean(value: Callable[[Outcome], float]) -> float:
        return float(np.mean([value(o) for o in outcomes]))

    return [
        name,
        f"{mean(lambda o: o.f1):.2f}",
        f"{mean(lambda o: o.error):.3f}",
        f"{np.mean(successes):.0%}",
        f"{mean(lambda o: o.unsure):.0%}",
        f"{mean(lambda o: o.for_review):.0%}",
        f"{mean(lambda o: o.is_left_out):.0%}",
        f"{sum(o.calls for o in outcomes) / len(outcomes):.1f}",
        f"{sum(o.tokens for o in outcomes) / minutes / 1000:.1f} k",
    ]


CALIBRATED_ON = ("exact", "boundaries off by 0.5 s", "off by 1 s", "off by 2 s")
RELIABILITY_HEAD = ["confidence", "runs", "their F1", "confidence by other robots", "their F1"]
EDGES = (0.0, 0.4, 0.5, 0.6, 0.7, 1.0)


def reliability_rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """By confidence, as labels have it and by a line through those of all other robots: runs, and their F1."""
    sure_outcomes = [o for o in outcomes if not o.for_review]
    confidence = np.array([o.confidence for o in sure_outcomes])
    f1 = np.array([o.f1 for o in sure_outcomes])
    robots = np.array([o.robot for o in sure_outcomes])
    left_out_f1 = np.zeros(len(sure_outcomes))
    for robot in np.unique(robots):
        is_other = robots != robot
        weights = [1 / np.sum(robots == other_robot) for other_robot in robots[is_other]]
        line = np.polyfit(confidence[is_other], f1[is_other], 1, w=np.sqrt(weights))
        left_out_f1[~is_other] = np.polyval(line, confidence[~is_other]).clip(0, 1)
    rows = []
    for low, high in pairwise(EDGES):
        cells = [f"{low:.1f} to {high:.1f}"]
        for confidences in (confidence, left_out_f1):
            in_range = (confidences >= low) & ((confidences < high) | (high == EDGES[-1]))
            mean_f1 = f"{f1[in_range].mean():.2f}" if in_range.any() else ""
            cells += (
                [str(in_range.sum()), mean_f1]
                if confidences is confidence
                else [f"{in_range.sum()} runs", mean_f1]
            )
        rows.append(cells)
    return rows


PAGE = ROOT / "docs" / "vlm.md"
HEAD = [
    "model",
    "F1",
    "error",
    "finished",
    "unsure",
    "for review",
    "left out",
    "calls a run",
    "tokens a minute",
]
COLUMNS = (0, 1, 2, 3, 4, 8)  # on the page, which has these rows
ON_THE_PAGE = (
    "exact",
    "boundaries off by 0.5 s",
    "a third of runs lacks a step",
    "verify denies 10 % of completed steps",
    "a picture a second by itself, every boundary refined",
    "two passes",
    "a cheap model",
    "two cheap models first: tokens of the exact one",
    *OTHER_WAYS,
)


def main() -> None:
    args = hand_labelled(__doc__, seeds=2, only="", page=False)
    with trial_workspace(args.workspace) as space:
        sets = labelled_sets(space, args.data, names(args))
        runs = list(chain.from_iterable(sets.values()))
    default = VlmConfig()
    ways = {name: (mistakes, default) for name, mistakes in MODELS.items()}
    ways |= {name: (Mistakes(), config) for name, config in WAYS.items()}
    outcomes = {}
    for name, way in ways.items():
        if args.only in name:
            tried = product(runs, range(args.seeds))
            outcomes[name] = [trial(run, *way, seed) for run, seed in tried]
    answered = [o for o in outcomes.get(UNUSABLE, ()) if not o.is_left_out]
    if answered:
        outcomes[f"{UNUSABLE}: the runs that have a label"] = answered
    rows = [row_of(name, of_name) for name, of_name in outcomes.items()]
    for name, label_way in OTHER_WAYS.items():
        if args.only in name:
            row = row_of(name, [other_way(run, label_way) for run in runs])
            rows.append(
                [*row[:4], "", "", *row[6:]]
            )  # they have no confidence, and ask nobody to look
    print(table_text(HEAD, rows))
    calibrated_on = list(chain.from_iterable(outcomes.get(name, ()) for name in CALIBRATED_ON))
    reliability = []
    if not args.only:
        reliability = reliability_rows(calibrated_on)
    print(table_text(RELIABILITY_HEAD, reliability))
    if args.page:
        chosen = [list(itemgetter(*COLUMNS)(row)) for row in rows if row[0] in ON_THE_PAGE]
        on_page = table_text([HEAD[k] for k in COLUMNS], chosen)
        confidences = table_text(RELIABILITY_HEAD[:3], [row[:3] for row in reliability])
        write_tables(PAGE, {"table": on_page, "confidence": confidences})


if __name__ == "__main__":
    main()
