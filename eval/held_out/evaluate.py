"""Evaluation: score a model and the baselines on held-out episodes, and store every prediction and score."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from annotate.preferences import ComparedRun, draw_pairs
from annotate.samples.procvqa import task_text
from core.logs import TOLD
from core.values import grouped
from eval.benchmarks.question import share_of
from eval.held_out.episodes import REFERENCE, RUNNING, EpisodeQuestions, held_out
from eval.metrics.errors import FINISHED
from eval.metrics.outcomes import preference_measures, ranking_measures, success_measures
from eval.metrics.progress import progress_measures
from eval.metrics.score import Measure, runs_of
from eval.reward.open import open_local
from eval.reward.scorer import Success, best_threshold, calibrate
from eval.runners.prompt import Prompt, Runner, UnansweredError
from eval.runners.weightless import best_constant, luma_grid, nearness
from eval.scored import (
    ALL,
    HELD_OUT_VERSION,
    EvalPrediction,
    EvalRun,
    Evaluated,
    ResampledUnit,
    ScoredBenchmark,
    Series,
    eval_run_id,
    length_slice,
    store_evaluations,
)
from training.folder import read_card, write_card
from training.trained_on import NOTHING_SEEN, Episode, SeenEpisodes
from warehouse.lake import Lake
from warehouse.releases.release import Release

BATCH = 32
PAIRS, PAIR_SEED = 16, 0  # of each kind, at most, that begin with a run
TROUBLED = "failed or stalled"
PICTURE_PX = 256  # of pictures that are compared
RANKING = "policy-ranking"
VALIDATION = "val"  # the split that thresholds of success are chosen on
MOST_MOMENTS = 2048  # of it
Predictor = Callable[[EpisodeQuestions], np.ndarray]
# What tells success: a score at each moment, and from which one on it is said
Detector = tuple[Predictor, float]
Answers = dict[tuple[str, int], np.ndarray]


def predict(
    runner: Runner,
    episodes: Sequence[EpisodeQuestions],
    read: Callable[[str], float | None] = share_of,
    step: str = "scoring",
) -> tuple[Answers, Answers | None]:
    """A model's answers for each moment of each episode, float64 [t], NaN where it said nothing: progress, and the
    probability of the end state, None of a model that has no such output.

    `read`: the progress in an answer in words; `step`: what is told of it while it runs. Raises UnansweredError where
    it answers nothing.
    """
    places: dict[str, tuple[tuple[str, int], int]] = {}
    prompts = []
    for e in episodes:
        for k, q in enumerate(e.questions):
            key = f"{e.episode.dataset}/{e.episode.episode_index}/{k}"
            prompts.append(
                Prompt(key, q.text, q.pictures, task=task_text(q.goal or None), first=q.first)
            )
            places[key] = e.key, k
    progress = {e.key: np.full(len(e.questions), np.nan) for e in episodes}
    success = {key: nothing.copy() for key, nothing in progress.items()}
    errors = []
    has_done = False
    for k, reply in enumerate(runner.answer(prompts), 1):
        TOLD.get()(step, k, len(prompts), "moments")
        episode, moment = places[reply.key]
        if reply.done is not None:
            success[episode][moment] = reply.done
            has_done = True
        if reply.progress is not None:
            progress[episode][moment] = reply.progress
        elif reply.text is not None:
            progress[episode][moment] = read(reply.text)
        else:
            errors.append(reply.error)
    if prompts and len(errors) == len(prompts):
        raise UnansweredError(f"none of {len(errors)} moments was answered; the first: {errors[0]}")
    return progress, success if has_done else None


def slice_names(scored: EpisodeQuestions) -> Iterator[str]:
    """The groups of episodes that an episode is scored in, beside all of them."""
    facts = scored.episode
    # Known of every episode
    yield f"split {facts.split}"
    yield f"dataset {facts.dataset}"
    yield length_slice(facts.duration_s)
    # Rows of files name no camera
    if camera := scored.questions[0].camera:
        yield f"camera {camera}"
    # Known of some; runs that went wrong are what a reward model has to tell from the others
    if facts.success is not None:
        yield "successes" if facts.success else "failures"
    if scored.policy is not None:
        yield f"policy {scored.policy}"
    if facts.success is False or scored.policy in ("stalled", "paused"):
        yield TROUBLED
        yield f"{TROUBLED}, split {facts.split}"


def evaluate(
    name: str,
    benchmark: str,
    episodes: Sequence[EpisodeQuestions],
    predictor: Predictor,
    detector: Detector | None = None,
) -> Evaluated:
    """Score one predictor against the episodes' labels; `detector` tells success, where that is to be scored, too."""
    runs = runs_of((predictor(e), e.label) for e in episodes)
    elapsed = np.concatenate([e.elapsed for e in episodes])
    measures = progress_measures(runs, elapsed)
    predicted = {e.key: runs.predicted[runs.episode == k] for k, e in enumerate(episodes)}
    # Pairs of runs of one task and split; the frames of their parts are the numbers of an episode's moments
    compared = [
        ComparedRun(
            e.episode.dataset,
            e.episode.episode_index,
            # No pair lies across two splits: each is told apart
            f"{e.episode.split}: {e.same_as}"
            if e.same_as is not None
            else f"{e.episode.split}: episode {e.episode.episode_index}",
            np.arange(len(e.frame_index)),
            e.label,
            success=e.episode.success,
            quality=e.quality,
        )
        for e in episodes
    ]
    pairs = draw_pairs(compared, PAIRS, PAIR_SEED)
    measures |= preference_measures(pairs, predicted, list(predicted))
    if detector is not None:
        measures |= outcome_measures(episodes, detector)
    scored_episodes = tuple(
        ResampledUnit((e.episode.dataset, str(e.episode.episode_index)), tuple(slice_names(e)))
        for e in episodes
    )
    counts = {
        "rows": len(runs.target),
        "episodes": len(episodes),
        "unparsable": int(np.isnan(runs.predicted).sum()),
    }
    scored = ScoredBenchmark(benchmark, scored_episodes, measures, counts, Series(runs, elapsed))
    return Evaluated(name, scored, scored.scores())


def main_slices(results: Sequence[Evaluated]) -> list[str]:
    """The slices that a summary shows: the splits, and the runs that went wrong in each."""
    names = sorted({part for part, _ in chain.from_iterable(r.scores for r in results)})
    splits = [name for name in names if name.startswith("split ")]
    troubled = [name for name in names if name.startswith(f"{TROUBLED}, ")]
    return [*splits, *troubled]


def predictor_of(answers: Answers) -> Predictor:
    """What says these numbers of each episode."""
    return lambda e: answers[e.key]


def baselines(episodes: Sequence[EpisodeQuestions]) -> dict[str, Predictor]:
    """Predictors that every model has to beat. The clock knows an episode's length, and the visual distance its last
    picture, as no model does; clocks by other runs are causal; the constant is the best one for these very labels."""

    def timed(name: str) -> Predictor:
        """NaN where there are no such runs."""
        return lambda e: np.clip(e.frame_index / e.episode.fps / e.lengths.get(name, np.nan), 0, 1)

    def visual_distance(e: EpisodeQuestions) -> np.ndarray:
        grids = [luma_grid(q.pictures[-1].rgb(PICTURE_PX)) for q in e.questions]
        return np.array([nearness(g, grids[0], grids[-1]) for g in grids])

    best = best_constant(np.concatenate([e.label for e in episodes]))
    known_lengths = set(chain.from_iterable(e.lengths for e in episodes))
    causal = {name: timed(name) for name in (RUNNING, REFERENCE) if name in known_lengths}
    return {
        "clock": lambda e: e.elapsed,
        **causal,
        "best constant": lambda e: np.full(len(e.frame_index), best),
        "visual distance": visual_distance,
    }


def evaluate_all(
    name: str,
    runner: Runner,
    episodes: Sequence[EpisodeQuestions],
    validation: Sequence[EpisodeQuestions] = (),
) -> list[Evaluated]:
    """A model and the baselines against the release's labels and, where there is some, against ground truth; then how
    they rank the runs of each task. `validation`: episodes that thresholds of success are chosen on."""
    all_episodes = [*episodes, *validation]
    progress, success = predict(runner, all_episodes)
    done_by_model = predictor_of(success or progress)
    labels = {e.key: e.label for e in all_episodes}
    # Against the labels that a model is trained by; then against ground truth, as the labels themselves are
    with_truth = [replace(e, label=e.truth) for e in episodes if e.truth is not None]
    results = []
    rankings = []
    for about, scored in (("", episodes), (" (truth)", with_truth)):
        if not scored:
            continue
        predictors = {name: predictor_of(progress), **baselines(scored)}
        if scored is with_truth:
            predictors["the label itself"] = predictor_of(labels)
        for predictor_name, predictor in predictors.items():
            is_model = predictor_name == name
            detector = success_detector(done_by_model if is_model else predictor, validation)
            results.append(
                evaluate(
                    predictor_name,
                    "held-out" + about,
                    scored,
                    predictor,
                    detector,
                )
            )
            rankings.append(
                evaluate_ranking(
                    predictor_name,
                    RANKING + about,
                    scored,
                    predictor,
                )
            )
    return results + rankings


def store(
    lake: Lake,
    release: str,
    release_hash: str,
    results: Sequence[Evaluated],
    episodes: Sequence[EpisodeQuestions],
    settings: Mapping[str, object],
    seen_episodes: SeenEpisodes,
) -> None:
    """Store the scores and every prediction of the model, the first of the results, and of the baselines, in one
    transaction. `seen_episodes`: the episodes that the model was trained on."""
    by_slice: dict[str, list[Episode]] = {ALL: [e.key for e in episodes]}
    for e in episodes:
        for part in slice_names(e):
            by_slice.setdefault(part, []).append(e.key)
    frames = {(e.episode.dataset, str(e.episode.episode_index)): e.frame_index for e in episodes}
    config = json.dumps({"batch": BATCH, **settings}, sort_keys=True)
    runs = [
        EvalRun(
            eval_run_id(r.model, r.benchmark, release_hash),
            r.model,
            r.benchmark,
            config,
            HELD_OUT_VERSION,
            release,
            r.scores,
            list(_predictions(r.scored, frames)),
            (seen_episodes if r.model == results[0].model else NOTHING_SEEN).by_slice(by_slice),
        )
        for r in results
    ]
    store_evaluations(lake, "evaluation", runs)


def _predictions(
    scored: ScoredBenchmark, frames: Mapping[tuple[str, str], np.ndarray]
) -> Iterator[EvalPrediction]:
    """A model's prediction at each moment; `frames`: the frame numbers of the moments by episode. Rankings have none of
    their own: they are of the same answers."""
    if scored.series is None:
        return
    for number, episode in enumerate(scored.episodes):
        dataset, index = episode.key
        _, predicted, target = scored.series.of(number)
        for frame, p, t in zip(frames[dataset, index], predicted, target, strict=True):
            readable = None if np.isnan(p) else float(p)
            yield EvalPrediction(
                dataset,
                int(index),
                int(frame),
                readable,
                float(t),
            )


# Outcomes: is success told, from when on, and which run of a task went better?


def thinning_stride(validation: Sequence[EpisodeQuestions]) -> int:
    """n, where each n-th moment of every episode is looked at: about MOST_MOMENTS in all."""
    return max(1, -(-sum(len(e.label) for e in validation) // MOST_MOMENTS))


def answered_moments(
    score: Predictor, episodes: Sequence[EpisodeQuestions], stride: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Of each `stride`-th moment that has a score: the score, and whether it is at the end state."""
    scores = np.concatenate([np.empty(0), *(score(e)[::stride] for e in episodes)])
    labels = np.concatenate([np.empty(0), *(e.label[::stride] for e in episodes)])
    is_answered = ~np.isnan(scores)
    return scores[is_answered], labels[is_answered] >= 1


def success_detector(score: Predictor, validation: Sequence[EpisodeQuestions]) -> Detector:
    """With the threshold that tells the moments at the end state from the others best, on episodes that no score is
    read from; 0.95 where these have moments of one kind only. Of many moments every n-th is looked at."""
    raw_scores, at_end = answered_moments(score, validation, thinning_stride(validation))
    if not at_end.any() or at_end.all():
        return score, FINISHED
    return score, best_threshold(raw_scores, at_end)[0]


def outcome_measures(
    episodes: Sequence[EpisodeQuestions], detector: Detector
) -> dict[str, Measure]:
    """Measures over all episodes, of which those without a known outcome count nowhere; none where all are such."""
    has_outcome = np.array([e.episode.success is not None for e in episodes], bool)
    judged = [e for e in episodes if e.episode.success is not None]
    if not judged:
        return {}
    runs = runs_of((detector[0](e), e.label) for e in judged)
    seconds = np.concatenate([e.frame_index / e.episode.fps for e in judged])
    succeeded = np.array([e.episode.success for e in judged], bool)
    measures = success_measures(runs, seconds, succeeded, detector[1])
    return {name: measure.among(has_outcome) for name, measure in measures.items()}


def evaluate_ranking(
    name: str,
    benchmark: str,
    episodes: Sequence[EpisodeQuestions],
    predictor: Predictor,
) -> Evaluated:
    """Score how a predictor ranks the runs of each task, by its last answers, against the share done at their ends.

    What is resampled is tasks, since the runs of one are compared with each other.
    """
    by_task = grouped(
        (
            (
                e.episode.split,
                e.episode.dataset,
                e.same_as or task_text(e.questions[0].goal or None),
            ),
            e,
        )
        for e in episodes
    )
    ends = []
    for runs in by_task.values():
        predicted = np.array([predictor(e)[-1] for e in runs])
        ends.append((predicted, np.array([e.label[-1] for e in runs])))
    tasks = tuple(
        ResampledUnit((dataset, task), (f"split {split}",)) for split, dataset, task in by_task
    )
    counts = {
        "rows": len(episodes),
        "episodes": len(tasks),
        "unparsable": sum(int(np.isnan(p).sum()) for p, _ in ends),
    }
    scored = ScoredBenchmark(benchmark, tasks, ranking_measures(runs_of(ends)), counts)
    return Evaluated(name, scored, scored.scores())


def calibrate_checkpoint(
    lake: Lake, release: Release, folder: Path, *, words: bool = False
) -> Success | None:
    """Calibrate from which output on a run counts as done, on a release's validation episodes, into the model's card.

    By the head's own output where it has one; of other heads, and of answers in words, by progress. Answers that cannot
    be read are left out. None where there is nothing to calibrate by: no moment at the end state, or no other. A model
    without a head answers each moment in words, which is slow, and is calibrated with `words` only. Raises ModelError,
    ShardError.
    """
    card = read_card(folder)
    answers_in_words = card.get("head", True) is None
    if (answers_in_words and not words) or not release.paths(lake.workspace, VALIDATION):
        return None
    episodes = held_out(lake, release, (VALIDATION,))
    if not episodes:
        return None
    n = thinning_stride(episodes)
    thinned = [replace(e, questions=e.questions[::n], label=e.label[::n]) for e in episodes]
    try:
        progress, success_scores = predict(open_local(folder, BATCH), thinned, step="calibration")
    except UnansweredError:
        return None
    raw_scores, at_end = answered_moments(predictor_of(success_scores or progress), thinned)
    source = "done" if success_scores else "progress"
    success = calibrate(raw_scores, at_end, source, release.name, VALIDATION)
    if success is not None:
        write_card(folder, card | {"success": success.as_json()})
    return success
