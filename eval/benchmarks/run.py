"""A model on a benchmark: asked, scored beside its baselines, stored and reported. Knows no Dagster."""

import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.figures import render
from core.files import write_file
from core.tables import TABLES
from eval.runners.start import RunnerConfig
from pipeline.release_cycle import Outcome
from warehouse.lake import Lake, content_key
from warehouse.releases import Release

if TYPE_CHECKING:
    from eval.benchmarks.question import PictureFile, Question
    from eval.report import Report, Stills
    from eval.runners.journal import Row
    from eval.scoring.scored import Evaluated

PROBES = "probes"
FROM_RELEASE = (PROBES, "procvqa-id", "procvqa-ood")


@dataclass(frozen=True)
class BenchmarkConfig:
    """Which questions, from where, and what stands beside the model. `vlm_baselines`: see eval.runners.methods."""

    benchmark: str
    data: str | None = None
    image_root: Path | None = None
    parts: tuple[str, ...] = ()
    limit: int | None = None  # rows of each part, before each is multiplied
    inferences: int = 1
    think: bool = True
    vlm_baselines: tuple[str, ...] = ()
    shard: tuple[int, int] = (0, 1)
    out: Path | None = None


@dataclass(frozen=True)
class Evaluation:
    """`entries`: the model first, then what stands beside it; none while other shards are at work."""

    run: str
    predictions: Path
    settings: Mapping[str, Any]
    entries: tuple["Evaluated", ...] = ()
    report: "Report | None" = None
    page: Path | None = None  # the report, written
    notes: tuple[str, ...] = ()  # baselines that gave no answer, and why

    def rows(self) -> list[dict[str, Any]]:
        """A line for each model or baseline, with what the report shows."""
        from eval.report import score_rows

        return score_rows(self.entries, ("all",))

    def facts(self) -> dict[str, Any]:
        """For scripts: metrics, slices and counts by model or baseline."""
        return {e.model: e.scored.facts(e.scores) for e in self.entries}


def checkpoint_of(lake: Lake, model: str) -> Path | None:
    """The folder of a training run or of a path; None where it is neither."""
    from training.train import trained

    path = Path(model)
    return path if (path / "config.json").exists() or (path / "card.json").exists() else trained(lake, model)


def evaluate_benchmark(
    lake: Lake,
    config: BenchmarkConfig,
    runner: RunnerConfig,
    release: Release | None = None,
    on_rows: Callable[[str, int, int], None] = lambda name, done, of: None,
) -> Evaluation:
    """Ask, score, store and report; what a prediction file holds already is not asked again.

    Raises BenchmarkError, RunnerError, UnansweredError, ModelError, VlmError, ServerError, ShardError, SourceError.
    """
    from eval.report import write_report
    from eval.runners.api import Books
    from eval.runners.collect import collect, prompt_version, run_settings
    from eval.runners.journal import run_hash
    from eval.runners.methods import METHODS, VLM_BASELINES
    from eval.runners.moments import moment
    from eval.runners.prompt import RunnerError, UnansweredError
    from eval.runners.start import started
    from eval.runners.weightless import weightless

    if unknown := set(config.vlm_baselines) - set(VLM_BASELINES):
        raise RunnerError(f"unknown baseline {min(unknown)!r}; with a model there are {', '.join(VLM_BASELINES)}")
    questions = load_questions(lake, config, release)
    entries: list[Evaluated] = []
    notes: list[str] = []
    answered: dict[str, tuple[Path, Mapping[str, Any], list[Row] | None]] = {}
    build, version = build_id(config, runner), prompt_version(METHODS["question"], questions)
    with started(runner, Books(lake.workspace.responses, build, config.benchmark, version)) as asked:
        if asked.has_head:
            questions = [q for q in questions if moment(q) is not None]
            if not questions:
                raise RunnerError(f"{config.benchmark} asks for words only, and a head gives numbers: --answer text")
            if config.vlm_baselines:
                raise RunnerError(
                    f"{', '.join(config.vlm_baselines)} need a model that answers in words: --answer text"
                )
        chosen = {"limit": config.limit, "num_inferences": config.inferences, "parts": list(config.parts)}
        settings = run_settings(asked, runner.model, METHODS["question"], questions, **chosen)
        run = run_hash(settings)
        folder = lake.workspace.root / "evals" / run
        out = config.out or folder / "predictions.jsonl"
        try:
            for name in ("question", *config.vlm_baselines):
                own = name == "question"
                file = out if own else out.with_name(f"{out.stem}.{name}.jsonl")
                told = settings if own else run_settings(asked, runner.model, METHODS[name], questions, **chosen)
                try:
                    rows = collect(
                        asked, METHODS[name], questions, file, told, config.shard,
                        lambda done, name=name: on_rows(name, done, len(questions)),
                    )  # fmt: skip
                except UnansweredError as e:
                    if own:
                        raise
                    notes.append(f"{name} with {runner.model}: {e}")
                    continue
                answered[runner.model if own else f"{name} ({runner.model})"] = file, told, rows
        finally:
            _record_calls(lake, build)
    for label, (file, told, rows) in answered.items():
        if rows is None:
            return Evaluation(run, out, settings)
        if rows:
            entries.append(_scored(label, config.benchmark, questions, file))
            _store(lake, entries[-1], told, release, questions, rows)
    goals = goal_pictures(lake, release) if release else {}
    for name, values in weightless(questions, goals).items():
        file = out.with_name(f"{out.stem}.{name.replace(' ', '-')}.jsonl")
        rows = _value_rows(questions, values)
        write_file(file, b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
        entries.append(_scored(name, config.benchmark, questions, file))
        told = {"baseline": name, "question_keys": settings["question_keys"], "code_version": settings["code_version"]}
        _store(lake, entries[-1], told, release, questions, rows)
    report = _report(config, entries, questions, settings, notes)
    return Evaluation(run, out, settings, tuple(entries), report, write_report(folder, report), tuple(notes))


def load_questions(lake: Lake, config: BenchmarkConfig, release: Release | None) -> list["Question"]:
    """Raises BenchmarkError, ShardError, SourceError."""
    from eval import probes
    from eval.benchmarks.load import load_benchmark

    if config.benchmark == PROBES:
        from eval.benchmarks.question import BenchmarkError

        if release is None:
            raise BenchmarkError("probes are made from a release: give a workspace that has one")
        return probes.load(lake, release, config.limit)
    frames = lake.workspace.root / "evals" / "frames"
    return load_benchmark(
        config.benchmark,
        config.data,
        corpus=(lake, release) if release else None,
        image_root=config.image_root or (frames if config.benchmark == "dataset" else None),
        cache=lake.workspace.sources / "benchmarks",
        parts=config.parts,
        limit=config.limit,
        inferences=config.inferences,
        think=config.think,
    )


def build_id(config: BenchmarkConfig, runner: RunnerConfig) -> str:
    """What calls are counted under: runs of the same benchmark and model share a budget."""
    return content_key("eval", config.benchmark, runner.model, *runner.endpoints)[:16]


def goal_pictures(lake: Lake, release: Release) -> dict[tuple[str, str], "PictureFile"]:
    """How a training run of each (dataset, task) ended that succeeded: the last frame of the first such run."""
    from eval.benchmarks.question import PictureFile
    from warehouse.lake.sql import open_for_users
    from warehouse.shards import picture_name

    con = open_for_users(lake.workspace, release.snapshot)
    rows = con.execute(
        "SELECT DISTINCT ON (s.dataset, e.task) s.dataset, e.task, s.episode_index, s.pictures[-1], l.shard, l.offset "
        "FROM samples s JOIN episodes e USING (dataset, episode_index) JOIN sample_location l USING (sample_id) "
        "WHERE s.split = 'train' AND s.family = 'procvqa_c' AND e.success AND s.frames[-1] = e.num_frames - 1 "
        "ORDER BY s.dataset, e.task, s.episode_index, s.sample_id"
    ).fetchall()
    paths = {s.shard: s.path(lake.workspace) for s in release.shard_list}
    found = {}
    for dataset, task, episode, picture, shard, offset in rows:
        if shard not in paths or task is None:
            continue
        wanted = f"{dataset}-{episode:06d}.{picture_name(episode, picture)}"
        with paths[shard].open("rb") as f:
            f.seek(offset)
            with tarfile.open(fileobj=f, mode="r:") as tar:
                member = next((m for m in tar if m.name == wanted), None)
        if member:
            found[dataset, task] = PictureFile(paths[shard], member.offset_data, member.size)
    return found


def _value_rows(questions: Sequence["Question"], values: Mapping[str, float]) -> list[dict[str, Any]]:
    from eval.runners.journal import row_of
    from eval.runners.prompt import Reply

    rows = []
    for q in questions:
        if q.key in values:
            value = values[q.key]
            unread = value != value
            told = Reply(
                q.key, progress=None if unread else value, error="a picture cannot be read" if unread else None
            )
            rows.append(row_of(q, told))
    return rows


def _scored(name: str, benchmark: str, questions: Sequence["Question"], file: Path) -> "Evaluated":
    from eval import probes
    from eval.predictions import read_predictions
    from eval.scoring.files import score_predictions
    from eval.scoring.scored import Evaluated

    if benchmark == PROBES:
        by_key = {q.key: q for q in questions}
        values = {
            p.meta_data["key"]: said(by_key[p.meta_data["key"]], p.response, p.value) for p in read_predictions(file)
        }
        scored = probes.score(questions, {k: v for k, v in values.items() if v is not None})
    else:
        scored = score_predictions(benchmark, read_predictions(file))
    return Evaluated(name, scored, scored.scores())


def said(question: "Question", response: str, value: float | None) -> float | None:
    """The progress that an answer states, 0..1; None for n/a and what cannot be read."""
    from annotate.samples.replies import parse_answer, parse_reply
    from eval.runners.moments import DEMONSTRATED
    from eval.scoring.procvqa import share_of

    if value is not None:
        return value
    if question.family in DEMONSTRATED:
        return parse_reply(response).score if "<score>" in response else parse_answer(response).score
    share = share_of(response)
    return share if share == share else None


def _store(
    lake: Lake,
    entry: "Evaluated",
    settings: Mapping[str, Any],
    release: Release | None,
    questions: Sequence["Question"],
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Rows of eval_runs, eval_predictions and eval_scores in one transaction; an equal evaluation replaces itself."""
    from eval.runners.journal import key_of, run_hash
    from eval.store import score_row

    run = run_hash({**settings, "benchmark": entry.benchmark, "release": release.config_hash if release else ""})
    by_key = {q.key: q for q in questions}
    runs: dict[tuple[str, str, str], int] = {}
    asked: dict[tuple[str, int], int] = {}
    predictions = []
    for row in rows:
        q = by_key[key_of(dict(row))]
        number = runs.setdefault((q.part, q.dataset, q.trajectory), len(runs))
        episode = q.row.get("episode_index", number)
        at = asked[q.dataset, episode] = asked.get((q.dataset, episode), -1) + 1
        predictions.append(
            {
                "eval_run": run, "dataset": q.dataset, "episode_index": episode, "frame_index": at, "question": q.key,
                "prediction": said(q, row["response"], row.get("value")), "target": q.truth.score,
                "raw": row["response"] or row.get("error"),
            }
        )  # fmt: skip
    scores = [score_row(run, part, metric, s) for (part, metric), s in entry.scores.items()]
    made = {
        "eval_run": run,
        "model": entry.model,
        "benchmark": entry.benchmark,
        "release": release.name if release else "",
        "config": json.dumps(dict(settings), sort_keys=True),
        "code_version": str(settings["code_version"]),
        "created_at": datetime.now(UTC),
    }
    lake.replace_where(
        "evaluation",
        "eval_run",
        eval_runs=TABLES["eval_runs"].rows([made]),
        eval_predictions=TABLES["eval_predictions"].rows(predictions),
        eval_scores=TABLES["eval_scores"].rows(scores),
    )


def _record_calls(lake: Lake, build: str) -> None:
    """The calls that were sent, as the ledger has them."""
    from annotate.model_client.ledger import Ledger, ledger_path

    path = ledger_path(lake.workspace.responses)
    calls = Ledger(path).calls(build_id=build) if path.exists() else []
    if calls:
        lake.upsert(f"calls of {build}", vlm_calls=TABLES["vlm_calls"].rows(calls))


def _report(
    config: BenchmarkConfig,
    entries: Sequence["Evaluated"],
    questions: Sequence["Question"],
    settings: Mapping[str, Any],
    more: Sequence[str],
) -> "Report":
    from eval.report import Report

    sampled = {k: v for k, v in settings.items() if v is not None and k not in ("question_keys",)}
    notes = [
        f"Benchmark {config.benchmark}: {len(questions)} questions"
        + (f", the first {config.limit} rows of each part" if config.limit else "")
        + (f", each asked {config.inferences} times" if config.inferences > 1 else "")
        + ".",
        "Settings: " + ", ".join(f"{k} {v}" for k, v in sampled.items()) + ".",
        *more,
    ]
    return Report(entries[0].model, entries, notes=notes, stills=_stills(questions))


def _stills(questions: Sequence["Question"]) -> "Stills":
    """The states of an episode in order of time, by the keys that the two kinds of benchmarks give episodes."""
    from eval.runners.moments import moment

    shown: dict[tuple[str, ...], list[Question]] = {}
    for q in questions:
        for key in ((q.part, q.trajectory), (q.family, q.dataset, q.trajectory, q.camera)):
            shown.setdefault(key, []).append(q)

    def stills(key: tuple[str, ...]) -> list[bytes]:
        run = sorted(shown.get(key, ()), key=lambda q: moment(q) or 0)
        return [data for q in run if (data := _read(q.pictures[-1]))]

    return stills


def _read(picture: "PictureFile") -> bytes | None:
    from eval.benchmarks.question import BenchmarkError

    try:
        return picture.read()
    except BenchmarkError:  # the answers' own errors say so
        return None


def benchmark_step(
    lake: Lake,
    config: BenchmarkConfig,
    runner: RunnerConfig,
    release: Release | None,
    on_rows: Callable[[str, int, int], None] = lambda name, done, of: None,
) -> Outcome:
    """The evaluation as the Dagster asset reports it: scores, a table with the baselines, curves."""
    from eval.report import curves_figure, different

    found = evaluate_benchmark(lake, config, runner, release, on_rows)
    own = found.entries[0]
    numbers: dict[str, int | float | str] = {"eval_run": found.run, "predictions": str(found.predictions)}
    numbers |= {m: round(s.value, 4) for (part, m), s in own.scores.items() if part == "all" and s.value == s.value}
    series = own.scored.series
    picture = b""
    assert found.report is not None
    assert found.page is not None
    if series is not None and len(series.runs.target):
        picture = render(curves_figure(found.report, own, different(own, 3)))
    table = tuple({k: str(v) for k, v in row.items()} for row in found.rows())
    return Outcome("evaluation", found.run, True, numbers, picture, (found.page, found.predictions), table)
