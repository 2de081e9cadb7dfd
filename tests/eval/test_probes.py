"""Held-out runs under other instructions and with changed pictures: what is asked, what is scored, what is drawn."""

from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eval import probes
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import HeldPicture, Question
from eval.metrics import order
from eval.metrics.score import runs_of
from eval.probes import UNDER, VIDEO
from eval.report.pages import confusion_cells, confusion_figure
from eval.scored import ALL, BenchmarkAnswers, Evaluated
from training.pictures import decode_picture

TASKS = ("Open the drawer", "Press the button", "Turn the faucet")
FRAMES = 40
SIDE = 48


def picture(frame: int) -> HeldPicture:
    """A dark arm that comes in from the left over a bright table; PNG."""
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
def shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "held_out_runs", lambda lake, release, limit: RUNS[:limit])


# Confusion


def answers_of(questions: list[Question], values: dict[str, float]) -> BenchmarkAnswers:
    shares = np.array([values.get(q.key, np.nan) for q in questions])
    return BenchmarkAnswers.by_values(questions[0].benchmark, questions, shares)


def told(questions: list[Question], right: float, wrong: float) -> dict[str, float]:
    return {q.key: right * (q.progress or 0) if probes._is_own(q) else wrong for q in questions}


@pytest.mark.usefixtures("shown")
def test_who_follows_the_instruction_is_told_from_who_does_not() -> None:
    questions = probes.confusion_questions(None, None, EvaluationOptions())  # type: ignore[arg-type]
    follows = Evaluated(
        "m",
        scored := probes.confusion_scores(answers_of(questions, told(questions, 0.9, 0.1))),
        scored.scores(),
    )
    scores_found = {name: follows.scores[ALL, name] for name in scored.measures}
    assert scores_found["confusion_own"].value == pytest.approx(0.9)
    assert scores_found["confusion_margin"].value == pytest.approx(0.8)
    assert scores_found["instruction_accuracy"].value == 1
    # The unfinished run is in no cell, but it may be claimed to be on its way
    assert (scores_found["confusion_own"].n, scores_found["false_progress_wrong_task"].n) == (2, 3)
    blind = probes.confusion_scores(answers_of(questions, {q.key: 0.7 for q in questions})).scores()
    assert blind[ALL, "confusion_margin"].value == 0
    assert blind[ALL, "instruction_accuracy"].value == pytest.approx(1 / 3)
    assert blind[ALL, "false_progress_wrong_task"].value == pytest.approx(0.7)
    silent = probes.confusion_scores(answers_of(questions, {})).scores()
    assert (silent[ALL, "confusion_margin"].value, silent[ALL, "coverage"].value) == (-1, 0)


@pytest.mark.usefixtures("shown")
def test_the_matrix_is_among_the_scores_and_is_drawn() -> None:
    questions = probes.confusion_questions(None, None, EvaluationOptions())  # type: ignore[arg-type]
    answers = answers_of(questions, told(questions, 0.9, 0.1))
    scored = probes.confusion_scores(answers)
    entry = Evaluated("m", scored, scored.scores() | probes.matrix_scores(answers))
    assert entry.scores[VIDEO + TASKS[0], UNDER + TASKS[0]].value == pytest.approx(0.9)
    assert entry.scores[VIDEO + TASKS[0], UNDER + TASKS[2]].value == pytest.approx(0.1)
    assert set(confusion_cells(entry)) == {
        (video, task) for video, task in product(TASKS[:2], TASKS)
    }
    figure = confusion_figure(entry)
    assert figure is not None
    drawn = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert drawn == list(TASKS)  # the finished ones first, so that they lie on the diagonal
    assert confusion_figure(Evaluated("m", scored, scored.scores())) is None


# Robustness


def _bytes_shown(questions: list[Any]) -> list[list[bytes]]:
    bytes_by_question = []
    for question in questions:
        bytes_by_question.append([picture.read() for picture in question.pictures])
    return bytes_by_question


@pytest.mark.usefixtures("shown")
def test_each_part_asks_the_same_moments_with_other_pictures() -> None:
    questions = probes.robustness_questions(None, None, EvaluationOptions(limit=1))  # type: ignore[arg-type]
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


def test_what_moves_has_another_colour_and_the_rest_its_own() -> None:
    recoloured = changed("robot_colour", picture(36))
    assert recoloured[24, 30].min() > 150  # the dark red arm is light grey
    assert np.ptp(recoloured[24, 30]) < 5
    assert (recoloured[40, 30] == 200).all()
    assert (
        recoloured[24, 2] == (150, 20, 20)
    ).all()  # what never leaves the picture cannot be told from the scene


def test_light_and_place_change() -> None:
    assert (changed("darker", picture(0))[40, 40] == 100).all()
    assert (changed("brighter", picture(0))[40, 40] == 255).all()
    moved_picture = changed("camera", picture(36))
    assert moved_picture.shape == (SIDE, SIDE, 3)
    assert (moved_picture != decode_picture(picture(36).read(), 1000)).any()


@pytest.mark.usefixtures("shown")
def test_what_is_lost_is_measured_run_by_run() -> None:
    questions = probes.robustness_questions(None, None, EvaluationOptions())  # type: ignore[arg-type]
    values = {q.key: 0.5 if q.part == "darker" else (q.progress or 0.0) for q in questions}
    answers = answers_of(questions, values)
    scores = probes.robustness_scores(answers).scores()
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


# False progress of videos


def test_progress_is_claimed_by_who_counts() -> None:
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
