"""A model on a benchmark: ask it, score it beside its baselines, store the scores and write the report."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from annotate.model_client.responses import FILE, ResponseStore
from core.errors import UserError
from core.logs import TOLD
from core.tables import TABLES
from core.values import grouped
from eval.benchmarks.load import BENCHMARKS, Benchmark, load_benchmark
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.procvqa import goal_pictures
from eval.benchmarks.question import (
    BenchmarkError,
    PictureFile,
    PredictionLine,
    Question,
)
from eval.report.pages import Report, Stills, score_rows, write_report
from eval.runners.methods import (
    METHODS,
    VLM_BASELINES,
    Goals,
    Method,
    Row,
    Shard,
    collect,
    key_of,
    prompt_version,
    run_hash,
    run_settings,
    weightless_answers,
)
from eval.runners.prompt import Runner, UnansweredError
from eval.runners.prompt_folder import PromptFolder, read_prompts
from eval.runners.start import DEFAULTS, Books, RunnerConfig, started_runner
from eval.scored import (
    ALL,
    HELD_OUT_VERSION,
    EvalRun,
    Predictor,
    ScoredBenchmark,
    ScoredView,
    eval_run_id,
    store_evaluations,
)
from training.folder import CARD, read_card
from training.runs import trained
from training.trained_on import NOTHING_SEEN, Episode, SeenEpisodes, seen_among, seen_text
from warehouse.lake import Lake, content_key
from warehouse.releases.release import Release

# Options that change which rows are asked, or what a model answers
VARIED = (
    "limit",
    "answer",
    "temperature",
    "max_tokens",
    "num_inferences",
    "top_p",
    "top_k",
    "repetition_penalty",
    "seed",
    "think",
    "min_pixels",
    "max_pixels",
    "quantization",
)
OWN_QUESTION = "question"  # the method that asks the benchmark's own questions; every other method is a baseline
OnRows = Callable[[str, int, int], None]  # (method, questions with an answer, all questions)


@dataclass(frozen=True)
class Evaluation:
    """`entries`: the model first, then its baselines; empty while other shards are at work."""

    run: str
    predictions: Path
    settings: Mapping[str, Any]
    entries: tuple[ScoredBenchmark, ...] = ()
    report: Report | None = None
    page: Path | None = None  # the report, written
    notes: tuple[str, ...] = ()  # baselines that gave no answer, and why
    num_seen: Mapping[str, int] = field(default_factory=dict)  # episodes that the model trained on

    def rows(self) -> list[dict[str, Any]]:
        """A line for each model or baseline, with the columns of the report."""
        return score_rows(self.entries, ("all",))

    def facts(self) -> dict[str, Any]:
        """For scripts: metrics, slices and counts by model or baseline."""
        return {e.model: e.facts() for e in self.entries}


def evaluate_benchmark(
    lake: Lake,
    runner: RunnerConfig,
    release: Release | None = None,
    on_rows: OnRows = lambda name, done, of: TOLD.get()(name, done, of, "questions"),
) -> Evaluation:
    """Ask, score, store and report; questions that a prediction file already answers are not asked
    again.

    Raises BenchmarkError, UserError, UnansweredError, ModelError, VlmError, FailedError,
    ShardError, SourceError.
    """
    options = runner.options
    if unknown := set(options.baselines) - set(VLM_BASELINES):
        raise UserError(
            f"unknown baseline {min(unknown)!r}; with a model there are {', '.join(VLM_BASELINES)}"
        )
    prompts = read_prompts(options.prompts) if options.prompts else None
    frames = lake.workspace.root / "evals" / "frames"
    cache = lake.workspace.sources / "benchmarks"
    questions = load_benchmark(options, frames, cache, (lake, release) if release else None)
    benchmark = BENCHMARKS[options.benchmark]
    method = prompts.method() if prompts else METHODS[OWN_QUESTION]

    # Ask the model. The prediction files are the journal: a killed evaluation goes on where it stopped
    build = build_id(runner)
    books = Books(
        lake.workspace.responses, build, options.benchmark, prompt_version(method, questions)
    )
    with started_runner(runner, books) as model:
        if model.has_head:
            questions = _questions_for_a_head(options, questions)
        chosen = {
            "limit": options.limit,
            "num_inferences": options.num_inferences,
            "parts": list(options.part),
        }
        prompt_settings = {"prompts": prompts.hash} if prompts else {}
        settings = run_settings(model, runner.model, method, questions, **chosen, **prompt_settings)
        run = run_hash(settings)
        folder = lake.workspace.root / "evals" / run
        out = options.out or folder / "predictions.jsonl"
        of_release = release if benchmark.of_release else None
        card = _card(lake, runner)
        seen = _trained_episodes(lake, card, of_release, questions)
        asks = [(method, out, Predictor(runner.model, settings, seen))]
        for name in dict.fromkeys(options.baselines):
            its_settings = run_settings(model, runner.model, METHODS[name], questions, **chosen)
            file = out.with_name(f"{out.stem}.{name}.jsonl")
            label = f"{name} ({runner.model})"
            asks.append((METHODS[name], file, Predictor(label, its_settings, seen)))
        try:
            answers, notes = _ask_each(model, asks, questions, options.shards, on_rows)
        finally:
            _store_calls(lake, build)

    # Other shards are still at work: the one that ends last scores
    if any(predictor.lines is None for predictor in answers):
        return Evaluation(run, out, settings)

    goals = goal_pictures(lake, release) if release else {}
    entries: list[ScoredBenchmark] = []
    variant_text = _variant_text(options, prompts) if benchmark.by_frame else ""
    own_view = ScoredView(options.benchmark, questions, benchmark.score)
    for view in benchmark.views(questions) if benchmark.views else [own_view]:
        view = view._replace(name=view.name + variant_text)
        baselines = _weightless(benchmark, view, goals, settings)
        for predictor in filter(lambda p: p.lines, [*answers, *baselines]):
            entries.append(predictor.scored(view, of_all=benchmark.question is None))
            _store(lake, entries[-1], predictor, release, view.questions, benchmark)

    if benchmark.by_frame and release:
        run = eval_run_id(runner.model, options.benchmark + variant_text, release.config_hash)
    notes += entries[0].notes
    about_model = _about_model(card, seen, of_release, questions)
    summary = _asked_text(options, questions)
    report = report_on(benchmark, summary, entries, questions, settings, [*about_model, *notes])
    page = write_report(lake.workspace.root / "evals" / run, report)
    num_seen = seen.by_slice({"seen_in_training": _episodes(questions)})
    return Evaluation(run, out, settings, tuple(entries), report, page, tuple(notes), num_seen)


def _store_calls(lake: Lake, build: str) -> None:
    """Calls of an evaluation that fails or is stopped cost money all the same."""
    store = lake.workspace.responses
    if (store / FILE).exists() and (calls := ResponseStore(store).calls(build)):
        lake.upsert(f"calls of {build}", vlm_calls=TABLES["vlm_calls"].rows(calls))


def _weightless(
    benchmark: Benchmark, view: ScoredView, goals: Goals, settings: Mapping[str, Any]
) -> Iterator[Predictor]:
    """Baselines that ask no model: they depend on the questions alone, whatever model they stand
    beside."""
    same = {key: settings[key] for key in ("question_keys", "code_version")}
    for name, values in weightless_answers(view.questions, goals).items():
        if name not in benchmark.without:
            keys = [q.key for q in view.questions if q.key in values]
            lines = {key: _value_line(key, values[key]) for key in keys}
            yield Predictor(name, {"baseline": name, **same}, NOTHING_SEEN, lines)


def _about_model(
    card: Mapping[str, Any],
    seen: SeenEpisodes,
    release: Release | None,
    questions: Sequence[Question],
) -> list[str]:
    if release is None or not card:
        return []
    seen_words = seen_text(seen, len(_episodes(questions)), card.get("release"))
    notes = [
        f"Release {release.name}, snapshot {release.snapshot}; {seen_words}; {card['parameters']:,} parameters."
    ]
    if card["recipe"]["model"].get("tiny") or card["recipe"]["model"].get("laptop"):
        notes.append(
            "A model this small has learnt from nothing but this corpus: it knows these scenes from "
            "this camera. It cannot follow a new instruction, judge another robot, or explain itself in words."
        )
    return notes


def _asked_text(options: EvaluationOptions, questions: Sequence[Question]) -> str:
    words = f"Benchmark {options.benchmark}: {len(questions)} questions"
    if options.limit:
        words += f", the first {options.limit} rows of each part"
    if options.num_inferences > 1:
        words += f", each asked {options.num_inferences} times"
    return words


def _variant_text(options: EvaluationOptions, prompts: PromptFolder | None) -> str:
    """After a benchmark's name, where only a part of it is scored, or other options than the default ones change the
    answers: it does not take the place of the whole by the default ones."""
    facts = list(options.part)
    if prompts:
        facts.append(f"prompts {prompts.hash}")
    for name in VARIED:
        value = getattr(options, name)
        if value != getattr(DEFAULTS, name):
            facts.append(f"{name} {value}")
    return f" ({', '.join(facts)})" if facts else ""


def build_id(runner: RunnerConfig) -> str:
    """The id that calls are counted under: runs of the same benchmark and model share a budget."""
    return content_key("eval", runner.options.benchmark, runner.model, *runner.options.endpoint)[
        :16
    ]


# Asking


def _questions_for_a_head(
    options: EvaluationOptions, questions: Sequence[Question]
) -> list[Question]:
    about_a_state = [q for q in questions if q.moment is not None]
    if not about_a_state:
        raise UserError(
            f"{options.benchmark} asks for words only, and a head gives numbers: --answer text"
        )
    if options.baselines:
        raise UserError(
            f"{', '.join(options.baselines)} need a model that answers in words: --answer text"
        )
    return about_a_state


def _ask_each(
    runner: Runner,
    asks: Sequence[tuple[Method, Path, Predictor]],
    questions: Sequence[Question],
    shard: Shard,
    on_rows: OnRows,
) -> tuple[list[Predictor], list[str]]:
    """The model and each of its VLM baselines with their answers; and why a baseline is left out.

    A baseline that answers nothing is left out; a model that answers nothing raises UnansweredError.
    """
    answered = []
    notes = []
    for method, file, predictor in asks:
        try:
            rows = collect(
                runner,
                method,
                questions,
                file,
                predictor.settings,
                shard,
                lambda done, name=method.name: on_rows(name, done, len(questions)),
            )
            lines = None if rows is None else {key_of(row): _line(row) for row in rows}
            answered.append(predictor._replace(lines=lines))
        except UnansweredError as e:
            if not answered:
                raise
            notes.append(f"{method.name} with {asks[0][2].name}: {e}")
    return answered, notes


def _line(row: Row) -> PredictionLine:
    answer = row["response"], row.get("value"), row.get("error")
    return PredictionLine(key_of(row), {}, *answer, done=row.get("done"))


def _value_line(key: str, value: float) -> PredictionLine:
    if math.isnan(value):
        return PredictionLine(key, {}, error="a picture cannot be read")
    return PredictionLine(key, {}, value=value)


# Storing


def _store(
    lake: Lake,
    entry: ScoredBenchmark,
    predictor: Predictor,
    release: Release | None,
    questions: Sequence[Question],
    benchmark: Benchmark,
) -> None:
    settings = dict(predictor.settings)
    release_hash = release.config_hash if release else ""
    code_version = str(settings["code_version"])
    eval_run = run_hash(settings | {"benchmark": entry.benchmark, "release": release_hash})
    # Whoever asks whether a model was scored on a release has not opened it
    if benchmark.by_frame:
        eval_run = eval_run_id(entry.model, entry.benchmark, release_hash)
        code_version = HELD_OUT_VERSION
    # Rankings are of the same answers as progress: they have none of their own
    has_answers = entry.series is not None or not benchmark.by_frame
    lines = (predictor.lines or {}) if has_answers else {}
    run = EvalRun(
        eval_run,
        entry.model,
        entry.benchmark,
        config=json.dumps(settings, sort_keys=True),
        code_version=code_version,
        release=release.name if release else "",
        scores=entry.scores,
        predictions=list(_predictions(questions, lines, benchmark.by_frame)),
        seen_episodes=predictor.seen.by_slice(_episodes_by_slice(questions)),
    )
    store_evaluations(lake, "evaluation", [run])


def _card(lake: Lake, runner: RunnerConfig) -> Mapping[str, Any]:
    """Of a model of ours; empty of one that others made."""
    folder = runner.folder or trained(lake, runner.model)
    return read_card(folder) if folder and (folder / CARD).exists() else {}


def _trained_episodes(
    lake: Lake, card: Mapping[str, Any], release: Release | None, questions: Sequence[Question]
) -> SeenEpisodes:
    """The episodes asked about that the model was trained on. None is known of a model that others
    made, nor among questions that are of no release."""
    if release is None or not card:
        return SeenEpisodes(frozenset(), is_all=False)
    return seen_among(lake, card, release, _episodes(questions))


def _episodes(questions: Sequence[Question]) -> set[Episode]:
    """Those that are scored, of a release; questions of others name none."""
    return {
        (q.dataset, q.row["episode_index"])
        for q in questions
        if q.is_scored and "episode_index" in q.row
    }


def _episodes_by_slice(questions: Sequence[Question]) -> dict[str, list[Episode]]:
    """The episodes in all, and in each slice."""
    by_slice = {ALL: sorted(_episodes(questions))}
    for part in sorted(set(chain.from_iterable(q.slices for q in questions))):
        by_slice[part] = sorted(_episodes([q for q in questions if part in q.slices]))
    return by_slice


def _predictions(
    questions: Sequence[Question], lines: Mapping[str, PredictionLine], by_frame: bool
) -> Iterator[dict[str, Any]]:
    """Rows of eval_predictions: `frame_index` counts the questions about an episode, or is
    the frame's number."""
    by_key = {q.key: q for q in questions if q.is_scored}
    # Of trajectories, where the benchmark has no episode numbers
    numbers: dict[tuple[str, str, str], int] = {}
    frame_counts: Counter[tuple[str, int]] = Counter()
    for key, line in lines.items():
        q = by_key.get(key)
        if q is None:
            continue
        number = numbers.setdefault((q.part, q.dataset, q.trajectory), len(numbers))
        episode = q.row.get("episode_index", number)
        frame = q.frame_index if by_frame else None
        yield {
            "dataset": q.dataset,
            "episode_index": episode,
            "frame_index": frame_counts[q.dataset, episode] if frame is None else frame,
            "prediction": q.stated(line.response, line.value),
            "target": q.progress,
            "raw": line.response or line.error,
            "question": key if frame is None else None,
            "done": line.done,
        }
        frame_counts[q.dataset, episode] += 1


# The report


def report_on(
    benchmark: Benchmark,
    summary: str,
    entries: Sequence[ScoredBenchmark],
    questions: Sequence[Question],
    settings: Mapping[str, Any],
    exclusions: Sequence[str],
) -> Report:
    """`summary`: what was asked, in words; `exclusions`: notes on what was not scored."""
    listed = [f"{k} {v}" for k, v in settings.items() if v is not None and k != "question_keys"]
    notes = [f"{summary}.", f"Settings: {', '.join(listed)}.", *exclusions]
    examples = _examples(questions) if benchmark.has_examples else {}
    slices = benchmark.main_slices(entries)
    return Report(entries[0].model, entries, slices, notes, _stills(questions), examples)


def _examples(questions: Sequence[Question]) -> dict[str, list[bytes]]:
    """Pictures of the middle of one run, by what was done to them."""
    first = questions[0]
    by_part = grouped(
        (q.part, q)
        for q in questions
        if (q.dataset, q.trajectory) == (first.dataset, first.trajectory)
    )
    examples: dict[str, list[bytes]] = {}
    for part, part_questions in by_part.items():
        middle = part_questions[len(part_questions) // 2]
        pictures = list(filter(None, map(_readable, middle.pictures)))
        if pictures:
            examples[part] = pictures
    return examples


def _stills(questions: Sequence[Question]) -> Stills:
    by_unit = grouped((q.unit, q) for q in questions)

    def stills(key: tuple[str, ...]) -> list[bytes]:
        in_order = sorted(by_unit.get(key, ()), key=lambda q: q.moment or 0)
        return [data for q in in_order if (data := _readable(q.pictures[-1]))]

    return stills


def _readable(picture: PictureFile) -> bytes | None:
    try:
        return picture.read()
    except BenchmarkError:  # the answers' own errors say so
        return None
