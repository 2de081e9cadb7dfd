"""Held-out runs under other instructions and with changed pictures."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from core.paths import Workspace
from eval import probes
from eval.benchmarks.held_out import _usual_lengths, rank
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import HeldPicture, Question
from eval.metrics import order
from eval.metrics.score import Score, mean_of, runs_of
from eval.probes import UNDER, VIDEO
from eval.report.pages import Report, confusion_cells, confusion_figure, write_report
from eval.runners.methods import REFERENCE, RUNNING
from eval.scored import (
    ALL,
    BenchmarkAnswers,
    EvalRun,
    ResampledUnit,
    ScoredBenchmark,
    store_evaluations,
)
from pipeline.release import leaderboard_rows, main_scores
from tests.kits.cli_kit import Result, called
from tests.kits.lake_kit import change
from tests.kits.laptop_kit import GREY_RECIPE
from tests.kits.made_corpus import Made, built, with_stages
from tests.kits.visitor import visit
from training.pictures import decode_picture
from warehouse.lake import open_lake
from warehouse.lake.stored import RunFacts

TASKS = ("Open the drawer", "Press the button", "Turn the faucet")
FRAMES = 40
SIDE = 48


def picture(frame: int) -> HeldPicture:
    rgb = np.full((SIDE, SIDE, 3), 200, np.uint8)
    rgb[20:28, : 1 + frame] = (150, 20, 20)
    return HeldPicture(Path(f"{frame}.png"), data=cv2.imencode(".png", rgb[..., ::-1])[1].tobytes())


def run(number: int, task: str, end: float = 1.0) -> list[Question]:
    pictures = {f: picture(f) for f in range(0, FRAMES, 3)}
    frames = sorted(pictures)
    questions = []
    for k in range(len(frames)):
        frames_shown = frames[max(0, k - 3) : k + 1]
        question = Question(
            benchmark="procvqa-id",
            part="procvqa_c",
            family="procvqa_c",
            trajectory=str(number),
            dataset="bench",
            camera="front",
            goal=task,
            text=f"{task}: how far?",
            pictures=tuple(pictures[f] for f in frames_shown),
            progress=end * frames[k] / frames[-1],
            success=end >= 1,
            frame_index=frames[k],
            num_frames=FRAMES,
            row={"frames": frames_shown, "variant": "progress"},
        )
        questions.append(question)
    return questions


RUNS = [run(0, TASKS[0]), run(1, TASKS[1]), run(2, TASKS[2], end=0.4)]


@pytest.fixture
def shown(monkeypatch) -> None:
    monkeypatch.setattr(probes, "held_out_runs", lambda lake, release, limit: RUNS[:limit])


def asked(make: Any, **options: Any) -> list[Any]:
    return make(None, None, EvaluationOptions(**options))


def answers_of(questions: list[Question], values: dict[str, float]) -> BenchmarkAnswers:
    shares = np.array([values.get(q.key, np.nan) for q in questions])
    return BenchmarkAnswers.by_values(questions[0].benchmark, questions, shares)


def told(questions: list[Question], right: float, wrong: float) -> dict[str, float]:
    return {q.key: right * q.progress if probes._is_own(q) else wrong for q in questions}


@pytest.mark.usefixtures("shown")
def test_who_follows_the_instruction_is_told_from_who_does_not():
    questions = asked(probes.confusion_questions)
    scored = probes.confusion_scores(answers_of(questions, told(questions, 0.9, 0.1)))
    scores_found = {name: scored.scores[ALL, name] for name in scored.measures}
    assert scores_found["confusion_own"].value == pytest.approx(0.9)
    assert scores_found["confusion_margin"].value == pytest.approx(0.8)
    assert scores_found["instruction_accuracy"].value == 1
    # The unfinished run is in no cell, but it may be claimed to be on its way
    assert (scores_found["confusion_own"].n, scores_found["false_progress_wrong_task"].n) == (2, 3)
    blind = probes.confusion_scores(answers_of(questions, {q.key: 0.7 for q in questions})).scores
    assert blind[ALL, "confusion_margin"].value == 0
    assert blind[ALL, "instruction_accuracy"].value == pytest.approx(1 / 3)
    assert blind[ALL, "false_progress_wrong_task"].value == pytest.approx(0.7)
    silent = probes.confusion_scores(answers_of(questions, {})).scores
    assert (silent[ALL, "confusion_margin"].value, silent[ALL, "coverage"].value) == (-1, 0)


@pytest.mark.usefixtures("shown")
def test_the_matrix_is_among_the_scores_and_is_drawn():
    questions = asked(probes.confusion_questions)
    answers = answers_of(questions, told(questions, 0.9, 0.1))
    entry = probes.confusion_scores(answers)
    assert entry.scores[VIDEO + TASKS[0], UNDER + TASKS[0]].value == pytest.approx(0.9)
    assert entry.scores[VIDEO + TASKS[0], UNDER + TASKS[2]].value == pytest.approx(0.1)
    assert set(confusion_cells(entry)) == {
        (video, task) for video, task in product(TASKS[:2], TASKS)
    }
    figure = confusion_figure(entry)
    drawn = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert drawn == list(TASKS)
    assert confusion_figure(replace(entry, cells={})) is None


def _bytes_shown(questions: list[Any]) -> list[list[bytes]]:
    bytes_by_question = []
    for question in questions:
        bytes_by_question.append([picture.read() for picture in question.pictures])
    return bytes_by_question


@pytest.mark.usefixtures("shown")
def test_each_part_asks_the_same_moments_with_other_pictures():
    questions = asked(probes.robustness_questions, limit=1)
    by_part: dict[str, list[Any]] = {part: [] for part in probes.ROBUSTNESS_PARTS}
    for question in questions:
        by_part[question.part].append(question)
    assert {len(of_part) for of_part in by_part.values()} == {probes.SHOWN_MOMENTS}
    assert len({q.key for q in questions}) == len(questions)
    clean = by_part["clean"]
    for part, of_part in by_part.items():
        assert [q.progress for q in of_part] == [q.progress for q in clean]
        assert (_bytes_shown(of_part) != _bytes_shown(clean)) == (part != "clean")
    assert [q.row["frames"] for q in by_part["faster"]][-1] == [21, 27, 33, 39]
    assert [q.row["frames"] for q in by_part["slower"]][-1][-1] == 39


def changed(change: str, base: HeldPicture) -> np.ndarray:
    pictures = tuple(picture(f) for f in range(0, FRAMES, 3))
    data = probes.ChangedPicture(Path("x"), base=base, change=change, run=pictures).read()
    return decode_picture(data, 1000)


def test_colour_light_and_place_change():
    recoloured = changed("robot_colour", picture(36))
    assert recoloured[24, 30].min() > 150
    assert np.ptp(recoloured[24, 30]) < 5
    assert (recoloured[40, 30] == 200).all()
    assert (recoloured[24, 2] == (150, 20, 20)).all()
    assert (changed("darker", picture(0))[40, 40] == 100).all()
    assert (changed("brighter", picture(0))[40, 40] == 255).all()
    moved_picture = changed("camera", picture(36))
    assert moved_picture.shape == (SIDE, SIDE, 3)
    assert (moved_picture != decode_picture(picture(36).read(), 1000)).any()


@pytest.mark.usefixtures("shown")
def test_what_is_lost_is_measured_run_by_run():
    questions = asked(probes.robustness_questions)
    values = {q.key: 0.5 if q.part == "darker" else q.progress for q in questions}
    answers = answers_of(questions, values)
    scores = probes.robustness_scores(answers).scores
    assert scores["part clean", "mae"].value == 0
    assert scores["part darker", "mae_rise"].value == pytest.approx(
        scores["part darker", "mae"].value
    )
    assert scores["part darker", "voc_drop"].value == pytest.approx(1)
    assert scores["part camera", "mae_rise"].value == 0
    assert ("part clean", "mae_rise") not in scores
    # Who says 0.5 of all tells no success: the AUC falls from 1 to one half
    assert scores["part clean", "success_auc"].value == 1
    assert scores["part darker", "success_auc_drop"].value == pytest.approx(0.5)
    assert scores["part darker, split test_id", "voc_drop"].n == 3


def test_progress_is_claimed_by_who_counts():
    forth_and_back = np.array([0.1, 0.4, 0.8, 0.8, 0.4, 0.1])
    counted = np.linspace(0, 1, 6)
    runs = runs_of(
        [
            (forth_and_back, forth_and_back),
            (counted, forth_and_back),
            (np.array([0.5]), np.array([0.5])),
        ]
    )
    assert order.claimed_progress(runs, since=0.5) == pytest.approx(
        [0, 0.4, float("nan")], nan_ok=True
    )
    assert order.claimed_progress(runs)[1] == pytest.approx(1)


JSON = ("--format", "json")
Run = Callable[..., Result]


@pytest.fixture
def run_command(own: Made, capsys) -> Run:
    """A command that succeeds, on a copy of the built corpus."""

    def command(*words: object) -> Result:
        result = called(capsys, *words, "--workspace", own.space.root)
        assert result.code == 0, result
        return result

    return command


def in_splits(own_corpus: Made, **splits: str) -> None:
    for split, episodes in splits.items():
        for table in ("splits", "recordings"):
            change(
                own_corpus.space,
                f"UPDATE {table} SET split = '{split}' WHERE episode_index IN ({episodes})",
            )
    # Samples of another seed are new ones, which are drawn for the splits of now
    [(seed,)] = own_corpus.rows("SELECT max(snapshot) FROM stage_runs")
    samples = own_corpus.build.stages.samples.model_copy(update={"seed": seed})
    built(with_stages(own_corpus.build, samples=samples), own_corpus.space)


def seen_by_release(run_command: Run) -> dict[str, list[tuple[str, int | None, int | None]]]:
    sql = (
        "SELECT release, model, n, seen_episodes FROM leaderboard WHERE benchmark = 'held-out' AND slice = 'all' "
        "AND metric = 'mae' ORDER BY ALL"
    )
    rows: dict[str, list[tuple[str, int | None, int | None]]] = {}
    for row in run_command("sql", sql, *JSON).json:
        rows.setdefault(row["release"], []).append((row["model"], row["n"], row["seen_episodes"]))
    return rows


@pytest.mark.slow
def test_a_model_scored_on_its_own_runs(own, run_command, tmp_path):
    (tmp_path / "grey.yaml").write_text(GREY_RECIPE)
    in_splits(own, train="0, 1", val="2", test_id="3, 4")
    run_command("release", "create", "r1", "--allow-licence", "unknown")
    model = run_command("train", "--recipe", tmp_path / "grey.yaml", "--release", "r1", *JSON).json[
        "training_run"
    ]
    new = run_command("eval", "--model", model, "--release", "r1")
    assert "trained on" not in new.out

    in_splits(own, train="2, 4", val="3", test_id="0, 1")
    run_command("release", "create", "wholly", "--allow-licence", "unknown")
    in_splits(own, train="0, 2", val="3", test_id="1, 4")
    run_command("release", "create", "partly", "--allow-licence", "unknown")
    for release, count in (("wholly", 2), ("partly", 1)):
        result = run_command("eval", "--model", model, "--release", release)
        first, second = result.out.split("Scored on episodes that the model was trained on")
        assert model not in first
        assert "clock" in first
        assert model in second
        report = Path(re.findall(r"report: (\S+)", result.err)[0]).read_text()
        assert f"{count} of the 2 held-out episodes were trained on" in report

    rows_by_release = seen_by_release(run_command)
    assert {
        release: [(n, num_seen) for name, n, num_seen in rows if name == model]
        for release, rows in rows_by_release.items()
    } == {
        "r1": [(2, 0)],
        "wholly": [(2, 2)],
        "partly": [(2, 1)],
    }
    assert {
        num_seen
        for name, _, num_seen in chain.from_iterable(rows_by_release.values())
        if name != model
    } == {0}

    # What is scored of a part takes no whole's place
    run_command("eval", "--model", model, "--release", "partly", "--limit", 1)
    assert seen_by_release(run_command) == rows_by_release
    # Nor does one that answers in a chosen way
    chosen = ("--answer", "head", "--set", "seed=3")
    run_command("eval", "--model", model, "--release", "partly", *chosen)
    benchmarks = own.rows("SELECT DISTINCT benchmark FROM eval_runs")
    assert ("held-out (answer head, seed 3)",) in benchmarks

    # A benchmark of a release counts them too
    for benchmark in ("procvqa-id", "robustness"):
        run_command(
            "eval", "--benchmark", benchmark, "--model", model, "--release", "partly", "--limit", 4
        )
    query = (
        f"SELECT max(seen_episodes) AS seen FROM leaderboard WHERE model = '{model}' AND release = 'partly' "
        "AND benchmark <> 'held-out' GROUP BY benchmark"
    )
    assert {row["seen"] for row in run_command("sql", query, *JSON).json} == {1}

    with visit(own.space) as client:
        page = client.get("/leaderboard?benchmark=held-out&metric=mae").text
    *new_rows, second, third = re.findall(r"<tr>.*?</tr>", page)
    assert model in second
    assert model in third
    assert sum(model in row for row in new_rows) == 1


def test_each_release_has_scores_of_its_own(tmp_path):
    lake = open_lake(Workspace(tmp_path / "w"))
    for release, mae in (("old", 0.3), ("new", 0.1)):
        scores = {("split test_id", "mae"): Score(mae, mae, mae, 2)}
        run = EvalRun(release, "model", "held-out", "{}", "x", release, scores)
        store_evaluations(lake, release, [run])
    assert [row["mae"] for row in leaderboard_rows(lake)] == [0.1]
    for release, mae in (("old", 0.3), ("new", 0.1)):
        assert main_scores(lake, "model", release) == {"held-out: split test_id mae": mae}


def test_runs_are_compared_within_their_dataset():
    keys = [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2), ("b", 3)]
    length_s = dict(zip(keys, (2.0, 4.0, 20.0, 40.0, 60.0, 80.0), strict=True))
    facts = dict.fromkeys(keys[:4], RunFacts("Pick up the cup", True, None, None))
    facts |= dict.fromkeys(keys[4:], RunFacts(None, True, None, None))
    usual = _usual_lengths(length_s, facts, {("a", 0), ("b", 0)})
    assert usual["a", 1] == {RUNNING: 2, REFERENCE: 2}
    assert usual["b", 1] == {RUNNING: 20, REFERENCE: 20}
    assert usual["b", 2] == usual["b", 3] == {}


@pytest.mark.parametrize(("same_as", "tasks"), [("Wipe it", 1), ("", 2)])
def test_only_runs_of_one_text_are_ranked(same_as, tasks):
    about = Question("held-out", "val", "procvqa_c", "0", "b", "", "", "", (), progress=0.5)
    about = replace(about, unit=("b", "0"), facts={"same_as": same_as}, frame_index=1, num_frames=2)
    other = replace(about, trajectory="1", unit=("b", "1"), progress=1.0)
    answers = BenchmarkAnswers.by_values("policy-ranking", [about, other], np.array([0.4, 0.6]))
    assert rank(answers).counts["episodes"] == tasks


HOSTILE = "<script>alert('1')</script>|{{ 7 * 7 }}"


def test_texts_of_data_are_no_markup(tmp_path):
    episodes = tuple(ResampledUnit((HOSTILE, str(k)), (f"dataset {HOSTILE}",)) for k in range(3))
    scored = ScoredBenchmark(
        HOSTILE, episodes, {"mae": mean_of(np.array([0.1, 0.2, 0.4]))}, {"rows": 3}
    )
    entries = [replace(scored, model=name) for name in (HOSTILE, f"another {HOSTILE}")]
    page = write_report(
        tmp_path, Report(HOSTILE, entries, ("all", f"dataset {HOSTILE}"), [HOSTILE])
    )
    html = page.read_text()
    markdown = (tmp_path / "report.md").read_text()
    assert html.count("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;|{{ 7 * 7 }}") > 8
    assert "<script" not in html
    # A bar in a cell would end it
    rows = [line for line in markdown.splitlines() if line.startswith("| <script>")]
    assert len(rows) == 5
    assert all(r"</script>\|{{ 7 * 7 }}" in row for row in rows)
