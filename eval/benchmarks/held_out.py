"""Held-out episodes of a release: progress at each moment, against labels and ground truth; whether success is told;
and how the runs of each task are ranked. The split val is asked about, too: thresholds are chosen on it."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import chain, pairwise
from operator import itemgetter
from pathlib import Path

import numpy as np

from annotate.preferences import ComparedRun, draw_pairs
from core.domain.label import Episode
from core.errors import UserError
from core.values import grouped
from eval.annotators.truth import SIMULATED, load_truth
from eval.benchmarks.options import HELD_OUT, EvaluationOptions
from eval.benchmarks.procvqa import ALL_MOMENTS, SampleChoice, sample_questions
from eval.benchmarks.question import BenchmarkError, Question
from eval.metrics.errors import FINISHED
from eval.metrics.outcomes import preference_measures, ranking_measures, success_measures
from eval.metrics.score import Measure, runs_of
from eval.reward.scorer import best_threshold
from eval.runners.methods import REFERENCE, RUNNING
from eval.scored import (
    BenchmarkAnswers,
    ResampledUnit,
    ScoredBenchmark,
    ScoredView,
    length_slice,
    progress_measures,
)
from warehouse.lake import Lake
from warehouse.lake.sql import open_for_users
from warehouse.lake.stored import RunFacts, run_facts, usable_episodes
from warehouse.releases.release import Release

RANKING = "policy-ranking"
SPLITS = ("test_id", "test_ood")
# The split that thresholds of success are chosen on, and no score is read from
VALIDATION = "val"
# Of each kind, at most, that begin with a run
PAIRS = 16
PAIR_SEED = 0
TROUBLED = "failed or stalled"
MOST_MOMENTS = 2048  # of the validation split


def load(lake: Lake, release: Release, options: EvaluationOptions) -> list[Question]:
    """The questions about the test splits and the validation split. Raises BenchmarkError,
    UserError or ShardError."""
    splits = options.part or SPLITS
    truth = SIMULATED if SIMULATED.exists() else None
    questions = episode_questions(lake, release, splits, truth, most=options.limit)
    if not questions:
        raise BenchmarkError(
            f"release {release.name} holds no run out of training ({', '.join(splits)}), so nothing can be scored: "
            "build more runs, or score an episode (proccorpus reward)"
        )
    validation = episode_questions(lake, release, (VALIDATION,))
    return questions + [replace(q, is_scored=False) for q in validation]


def episode_questions(
    lake: Lake,
    release: Release,
    splits: Sequence[str],
    truth: Path | None = None,
    choice: SampleChoice = ALL_MOMENTS,
    most: int | None = None,
) -> list[Question]:
    """The questions about each moment of episodes of some splits (of each split the first `most`),
    by episode and time.

    `facts` of a question: `truth`, a simulator's progress, where `truth` has it; `same_as`, the
    task by which runs are compared; `quality` of the demonstration; `lengths` of other runs. Raises
    UserError or ShardError.
    """
    # The lake as it was when the release was cut: later builds may have changed an episode's facts
    con = open_for_users(lake.workspace, release.snapshot)
    episodes = {episode.key: episode for episode in usable_episodes(con)}
    compared = run_facts(con)
    sql = "SELECT dataset, episode_index FROM current_references"
    references = set(con.execute(sql).fetchall())
    length_s = {key: episode.duration_s for key, episode in episodes.items()}
    lengths = _usual_lengths(length_s, compared, references)
    by_episode: dict[tuple[str, int, str], list[Question]] = {}
    for split in splits:
        samples = sample_questions(HELD_OUT, con, release.paths(lake.workspace, split), choice)
        of_split = grouped(((q.dataset, int(q.trajectory), split), q) for q in samples)
        by_episode |= {key: of_split[key] for key in sorted(of_split)[:most]}
    truths = {dataset: load_truth(truth, dataset) if truth else {} for dataset, *_ in by_episode}
    questions = []
    for (dataset, index, split), run in sorted(by_episode.items(), key=itemgetter(0)):
        episode = episodes[dataset, index]
        simulated = truths[dataset].get(index, {})
        curve = simulated.get("progress")
        if curve is not None and len(curve) != episode.num_frames:
            raise UserError(
                f"{dataset} episode {index}: ground truth has {len(curve)} frames, not {episode.num_frames}"
            )
        in_order = sorted(run, key=lambda q: q.row["frames"][-1])
        # Samples of other families may show other runs' pictures first
        begins = in_order[0].family == "procvqa_c" and in_order[0].row["frames"][0] == 0
        first = in_order[0].pictures[0] if begins else None
        slices = tuple(slice_names(episode, split, in_order[0].camera, simulated.get("policy")))
        facts = compared[episode.key]
        of_run = {
            "same_as": facts.same_as,
            "quality": facts.quality,
            "lengths": lengths[episode.key],
        }
        for q in in_order:
            true_progress = None if curve is None else float(curve[q.row["frames"][-1]])
            questions.append(
                replace(
                    q,
                    part=split,
                    first=first,
                    unit=(dataset, str(index)),
                    slices=slices,
                    facts={**of_run, "truth": true_progress},
                )
            )
    return questions


def _usual_lengths(
    length_s: Mapping[tuple[str, int], float],
    facts: Mapping[tuple[str, int], RunFacts],
    references: Set[tuple[str, int]],
) -> dict[tuple[str, int], dict[str, float]]:
    """By run the mean length in seconds of its task's other runs in its dataset that did not fail, and of its
    references: `references`."""
    runs_by_name = {
        RUNNING: {k for k in length_s if facts[k].success is not False},
        REFERENCE: references & length_s.keys(),
    }
    # A run without a text is of no other run's task
    tasks = {key: (key[0], facts[key].same_as or key[1]) for key in length_s}
    usual_lengths: dict[tuple[str, int], dict[str, float]] = {key: {} for key in length_s}
    for name, runs in runs_by_name.items():
        of_task = grouped((tasks[key], length_s[key]) for key in sorted(runs))
        sums = {task: (sum(lengths), len(lengths)) for task, lengths in of_task.items()}
        for key, own_s in length_s.items():
            total_s, count = sums.get(tasks[key], (0.0, 0))
            num_others = count - (key in runs)
            if num_others:
                usual_lengths[key][name] = (total_s - own_s * (key in runs)) / num_others
    return usual_lengths


def slice_names(episode: Episode, split: str, camera: str, policy: str | None) -> Iterator[str]:
    """The groups of episodes that an episode is scored in, beside all of them; `policy`: how a
    simulator made it."""
    yield f"split {split}"
    yield f"dataset {episode.dataset}"
    yield length_slice(episode.duration_s)
    if camera:
        yield f"camera {camera}"
    # Known of some; runs that went wrong are what a reward model has to tell from the others
    if episode.success is not None:
        yield "successes" if episode.success else "failures"
    if policy is not None:
        yield f"policy {policy}"
    if episode.success is False or policy in ("stalled", "paused"):
        yield TROUBLED
        yield f"{TROUBLED}, split {split}"


def views(questions: Sequence[Question]) -> list[ScoredView]:
    """Against the labels that a model is trained by; then against ground truth, as the labels
    themselves are."""
    about_truth = [
        replace(q, progress=q.facts["truth"], facts={**q.facts, "label": q.progress})
        for q in questions
        if q.facts["truth"] is not None
    ]
    validation = [
        replace(q, facts={**q.facts, "label": q.progress}) for q in questions if not q.is_scored
    ]
    by_truth = {"": questions} | ({" (truth)": about_truth + validation} if about_truth else {})
    return [
        *(ScoredView(f"{HELD_OUT}{about}", of_view, score) for about, of_view in by_truth.items()),
        *(ScoredView(f"{RANKING}{about}", of_view, rank) for about, of_view in by_truth.items()),
    ]


def main_slices(entries: Sequence[ScoredBenchmark]) -> list[str]:
    """The slices that a summary shows: the splits, and the runs that went wrong in each."""
    scored = chain.from_iterable(entry.scores for entry in entries)
    names = sorted({part for part, _ in scored})
    splits = [name for name in names if name.startswith("split ")]
    return splits + [name for name in names if name.startswith(f"{TROUBLED}, ")]


# Scores


def thinned(questions: Sequence[Question]) -> list[Question]:
    """Every n-th moment of each run: about MOST_MOMENTS in all."""
    n = max(1, -(-len(questions) // MOST_MOMENTS))
    runs = grouped((q.unit, q) for q in questions)
    return list(chain.from_iterable(run[::n] for run in runs.values()))


def _threshold(answers: BenchmarkAnswers) -> float:
    """The one that tells the moments at the end state from the others best, on episodes that no
    score is read from; 0.95 where these have moments of one kind only."""
    score_of = dict(zip((q.key for q in answers.questions), answers.success_scores, strict=True))
    validation = thinned([q for q in answers.questions if not q.is_scored])
    raw_scores = np.array([score_of[q.key] for q in validation])
    at_end = np.array([q.progress for q in validation], np.float64) >= 1
    is_answered = ~np.isnan(raw_scores)
    at_end = at_end[is_answered]
    if not at_end.any() or at_end.all():
        return FINISHED
    return best_threshold(raw_scores[is_answered], at_end)[0]


def score(answers: BenchmarkAnswers) -> ScoredBenchmark:
    """Progress over time, the order of runs and of their parts, and success, which a threshold
    tells."""
    threshold = _threshold(answers)
    test = answers.tested
    runs = test.series
    spans = [slice(*span) for span in pairwise(runs.starts)]
    episodes = test.by_episode
    measures = progress_measures(runs)
    # Pairs of runs of one task and split; the frames of their parts are the numbers of an episode's moments
    compared = [
        ComparedRun(
            q.dataset,
            int(q.trajectory),
            # No pair lies across two splits
            f"{q.part}: {_comparison_task(q)}",
            np.arange(span.stop - span.start),
            runs.target[span],
            success=q.success,
            quality=q.facts["quality"],
        )
        for q, span in zip(episodes, spans, strict=True)
    ]
    predicted = {r.key: runs.predicted[span] for r, span in zip(compared, spans, strict=True)}
    pairs = draw_pairs(compared, PAIRS, PAIR_SEED)
    measures |= preference_measures(pairs, predicted, list(predicted))
    return test.scored(measures | _outcome_measures(test, spans, threshold), series=runs)


def _outcome_measures(
    answers: BenchmarkAnswers, spans: Sequence[slice], threshold: float
) -> dict[str, Measure]:
    outcomes = [q.success for q in answers.by_episode]
    has_outcome = np.array([success is not None for success in outcomes], bool)
    if not has_outcome.any():
        return {}
    judged = [spans[k] for k in np.flatnonzero(has_outcome)]
    frames = answers.column("frame_index")
    runs, order = answers.episodes.runs(answers.success_scores, answers.column("progress"), frames)
    seconds = (frames / answers.column("fps"))[order]
    measures = success_measures(
        runs_of((runs.predicted[span], runs.target[span]) for span in judged),
        np.concatenate([seconds[span] for span in judged]),
        np.array(outcomes, object)[has_outcome].astype(bool),
        threshold,
    )
    return {name: measure.among(has_outcome) for name, measure in measures.items()}


def _comparison_task(question: Question) -> str:
    """The task by which a run is compared; a run without a text is compared with no other."""
    return question.facts["same_as"] or f"run {question.trajectory}"


def rank(answers: BenchmarkAnswers) -> ScoredBenchmark:
    """How the runs of each task are ranked by their last answers, against the share done at their ends.

    What is resampled is tasks, since the runs of one are compared with each other.
    """
    test = answers.tested
    runs = test.series
    by_task = grouped(
        ((q.part, q.dataset, _comparison_task(q)), end - 1)
        for q, end in zip(test.by_episode, runs.starts[1:], strict=True)
    )
    ends = runs_of((runs.predicted[last], runs.target[last]) for last in by_task.values())
    tasks = tuple(
        ResampledUnit((dataset, task), (f"split {split}",)) for split, dataset, task in by_task
    )
    counts = {
        "rows": len(runs),
        "episodes": len(tasks),
        "unparsable": int(np.isnan(ends.predicted).sum()),
    }
    return ScoredBenchmark(answers.benchmark, tasks, ranking_measures(ends), counts)
