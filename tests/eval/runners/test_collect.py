"""Collecting answers: nothing is asked twice, failures stand alone, shards make one file."""

from itertools import chain, combinations, product
from operator import attrgetter
from pathlib import Path

import pytest

from core.errors import UserError
from eval.benchmarks.load import score_predictions
from eval.benchmarks.question import Question, read_predictions
from eval.runners.methods import METHODS, collect, questions_of_shard, run_settings
from eval.runners.prompt import (
    ModelReply,
    Prompt,
    UnansweredError,
    chat_messages,
    images_first,
    prompt_format_of,
)
from eval.runners.weightless import running_clock_answers, weightless_answers
from tests.kits.bench_kit import STEPS, Scripted, by_part, questions_of, share_seen

OWN = METHODS["question"]


def run(runner: Scripted, questions: list[Question], out: Path, method=OWN, shard=(0, 1)):
    return collect(
        runner, method, questions, out, run_settings(runner, "m", method, questions), shard
    )


def test_all_parts_load_from_a_folder_with_their_pictures(
    bench: Path, questions: list[Question]
) -> None:
    assert by_part(questions) == {
        "text-normal": 6, "text-unanswerable": 6, "visual_same_view": 6, "visual_cross_view": 6,
        "visual-unanswerable": 2,
    }  # fmt: skip
    assert by_part(questions_of("human-bench", str(bench))) == {"text": 4, "visual": 4}
    assert all(p.read() for p in chain.from_iterable(map(attrgetter("pictures"), questions)))
    assert all(q.text.count("<image>") == len(q.pictures) for q in questions)
    elsewhere = questions_of(
        "progress-bench", str(bench / "prog-bench"), image_root=bench / "images"
    )
    assert [q.key for q in elsewhere] == [q.key for q in questions]


def test_a_limit_counts_rows_before_they_are_multiplied(bench: Path) -> None:
    questions_found = questions_of(
        "progress-bench", str(bench), part=("text-normal",), limit=2, num_inferences=3
    )
    assert len(questions_found) == 6
    assert len({q.key for q in questions_found}) == 6
    assert len({q.text for q in questions_found}) == 1  # of the same recording and steps
    assert {p.seed for p in map(Prompt.of, questions_found)} == {0, 1, 2}


def test_an_item_that_fails_fails_alone_and_is_tried_again(
    questions: list[Question], tmp_path: Path
) -> None:
    bad = questions[3].key
    runner = Scripted(
        lambda p: (
            ModelReply(p.key, error="no picture") if p.key == bad else ModelReply(p.key, text="50%")
        )
    )
    rows = run(runner, questions, tmp_path / "p.jsonl")
    assert rows is not None
    assert [r["error"] for r in rows if "error" in r] == ["no picture"]
    scored = score_predictions("progress-bench", read_predictions(tmp_path / "p.jsonl"))
    assert scored.counts["unparsable"] == 1
    second_runner = Scripted()
    run(second_runner, questions, tmp_path / "p.jsonl")
    assert [p.key for p in second_runner.asked] == [bad]
    assert run(Scripted(lambda p: pytest.fail("asked")), questions, tmp_path / "p.jsonl")


def test_nothing_answered_is_an_error_with_the_reason(
    questions: list[Question], tmp_path: Path
) -> None:
    with pytest.raises(
        UnansweredError, match="none of 26 questions was answered; the first: broken"
    ):
        run(Scripted(lambda p: ModelReply(p.key, error="broken")), questions, tmp_path / "p.jsonl")


def test_a_file_of_another_run_is_refused(questions: list[Question], tmp_path: Path) -> None:
    run(Scripted(), questions, tmp_path / "p.jsonl")
    other_runner = Scripted(settings={"runner": "scripted", "temperature": 0.7})
    with pytest.raises(UserError, match="another model or other settings"):
        run(other_runner, questions, tmp_path / "p.jsonl")
    (tmp_path / "p.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"p.jsonl line 1 is no line of a prediction file"):
        run(Scripted(), questions, tmp_path / "p.jsonl")


def test_a_line_that_was_cut_off_is_asked_again(questions: list[Question], tmp_path: Path) -> None:
    run(Scripted(), questions, tmp_path / "p.jsonl")
    whole = (tmp_path / "p.jsonl").read_bytes()
    (tmp_path / "p.jsonl").write_bytes(whole[:-40])
    second_runner = Scripted()
    run(second_runner, questions, tmp_path / "p.jsonl")
    assert [p.key for p in second_runner.asked] == [questions[-1].key]
    assert (tmp_path / "p.jsonl").read_bytes() == whole


def test_shards_are_whole_runs_and_make_the_file_of_one_process(
    questions: list[Question], tmp_path: Path
) -> None:
    run(Scripted(), questions, tmp_path / "one.jsonl")
    parts = [questions_of_shard(questions, (k, 3)) for k in range(3)]
    assert sorted(q.key for q in chain.from_iterable(parts)) == sorted(q.key for q in questions)
    trajectories = [{(q.part, q.trajectory) for q in part} for part in parts]
    assert all(a.isdisjoint(b) for a, b in combinations(trajectories, 2))
    assert run(Scripted(), questions, tmp_path / "p.jsonl", shard=(0, 3)) is None
    assert run(Scripted(), questions, tmp_path / "p.jsonl", shard=(2, 3)) is None
    assert run(Scripted(), questions, tmp_path / "p.jsonl", shard=(1, 3)) is not None
    assert (tmp_path / "p.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


# What is asked


def test_pictures_stand_first_with_numbers_for_internvl() -> None:
    text = "A demonstration:\n1. <image> 0%\n2. <image> 100%\nThe state:\n<image>"
    assert images_first(text) == (
        "Image-1: <image>\nImage-2: <image>\nImage-3: <image>\n"
        "A demonstration:\n1. Image-1 0%\n2. Image-2 100%\nThe state:\nImage-3"
    )
    assert [prompt_format_of(k) for k in ("qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "internvl")] == [
        "interleaved", "interleaved", "interleaved", "images_first",
    ]  # fmt: skip
    (message,) = chat_messages(Prompt("k", text, ()), "images_first")
    assert [p["type"] for p in message["content"]] == [
        "text",
        "image",
        "text",
        "image",
        "text",
        "image",
        "text",
    ]


def test_gvl_shuffles_a_run_and_reads_each_picture(
    questions: list[Question], tmp_path: Path
) -> None:
    def say(prompt: Prompt) -> ModelReply:
        shares = [share_seen(Prompt("", "", (p,))) for p in prompt.pictures[1:]]
        return ModelReply(
            prompt.key,
            text="\n".join(f"Picture {n}: {100 * s:.0f}%" for n, s in enumerate(shares[:2], 1)),
        )

    same = [q for q in questions if q.part == "visual_same_view"]
    requests = list(METHODS["gvl"].ask(same))
    assert [len(a.questions) for a in requests] == [3, 3]  # a prompt for each recording
    assert all(
        a.prompt.pictures[0] == min(a.questions, key=lambda q: q.moment or 0).pictures[-1]
        for a in requests
    )
    assert list(METHODS["gvl"].ask(same)) == requests  # the same order every time
    rows = run(Scripted(say), same, tmp_path / "g.jsonl", METHODS["gvl"])
    assert rows is not None
    for r in rows:
        read_value = r.get("value")
        assert (read_value is None) == r.get("error", "").startswith(
            "no percentage for picture 3 of 3"
        )
        if read_value is not None:
            assert read_value == pytest.approx(
                float(r["meta_data"]["progress_score"][:-1]) / 100, abs=0.05
            )


def test_topreward_weighs_words_over_the_run_so_far(
    questions: list[Question], tmp_path: Path
) -> None:
    same = [q for q in questions if q.part == "visual_same_view"]
    requests = list(METHODS["topreward"].ask(same))
    assert [len(a.prompt.pictures) for a in requests] == [1, 2, 3] * 2
    rows = run(
        Scripted(lambda p: ModelReply(p.key, words={"True": 0.3, "False": 0.1})),
        same,
        tmp_path / "t",
        METHODS["topreward"],
    )
    assert rows is not None
    assert all(r["value"] == pytest.approx(0.75) for r in rows)
    (row,) = METHODS["topreward"].read(
        requests[0], ModelReply("k", words={"True": 0.0, "False": 0.0})
    )
    assert "neither True nor False" in row["error"]


def test_direct_score_shows_the_state_alone(questions: list[Question]) -> None:
    visual = [q for q in questions if q.part == "visual_same_view"]
    requests = list(METHODS["direct"].ask(visual))
    assert all(a.prompt.pictures == a.questions[0].pictures[-1:] for a in requests)
    assert not any(step in a.prompt.text for a, step in product(requests, STEPS))
    read = {
        t: METHODS["direct"].read(requests[0], ModelReply("k", text=t))[0].get("value")
        for t in ("40%", "0.4", "about 40%")
    }
    assert read == {"40%": 0.4, "0.4": None, "about 40%": None}


def test_a_baseline_survives_a_picture_that_is_not_there(bench: Path) -> None:
    moved_questions = questions_of(
        "progress-bench", str(bench), part=("visual_same_view",), image_root=bench / "prog-bench"
    )
    baselines = weightless_answers(moved_questions, {})
    assert all(v != v for v in baselines["visual distance"].values())
    assert len(baselines["clock"]) == 6


def test_a_running_clock_knows_how_long_the_other_runs_of_a_task_are() -> None:
    lengths = {"a": 11, "b": 21, "c": 41, "other": 6}
    questions = {
        (run, frame): Question(
            *(
                "bench",
                "p",
                "progress",
                run,
                "d",
                "front",
                "another" if run == "other" else "one",
                "?",
                (),
            ),
            progress=0.5,
            frame_index=frame,
            num_frames=length,
            row={"run": run, "frame": frame},
        )
        for run, length in lengths.items()
        for frame in (0, 5, length - 1)
    }
    clock = running_clock_answers(list(questions.values()))
    told_shares = {
        place: clock[question.key] for place, question in questions.items() if question.key in clock
    }
    assert told_shares["a", 5] == pytest.approx(5 / 30)
    assert told_shares["b", 20] == pytest.approx(20 / 25)
    assert told_shares["c", 40] == 1
    assert not any(run == "other" for run, _ in told_shares)
