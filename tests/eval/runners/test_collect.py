"""Collecting answers: nothing is asked twice, failures stand alone, shards make one file."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, combinations, product
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import pytest

from annotate.config import Price, VlmConfig
from annotate.model_client.calls import VlmError
from core.errors import UserError
from core.paths import Workspace
from core.values import PLAIN_IMAGE
from eval.benchmarks.load import score_predictions
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import PictureFile, Question, read_predictions
from eval.benchmarks.run import Evaluation, evaluate_benchmark
from eval.runners.local import TextRunner, open_runner
from eval.runners.methods import (
    METHODS,
    collect,
    questions_of_shard,
    run_settings,
    running_clock_answers,
    weightless_answers,
)
from eval.runners.prompt import (
    ModelReply,
    PictureLimits,
    Prompt,
    Runner,
    Sampling,
    UnansweredError,
    chat_messages,
    images_first,
    prompt_format_of,
)
from eval.runners.prompt_folder import read_prompts
from eval.runners.start import ApiRunner, Books, RunnerConfig, local_runner
from tests.kits.bench_kit import STEPS, Scripted, by_part, picture, questions_of, share_seen
from tests.kits.files import table
from tests.kits.reward_kit import make_checkpoint
from tests.kits.vlm_standin import Fault, StandIn, serving
from training.model import load_model
from training.pictures import Item
from training.recipe import HeadConfig
from training.transform import Transform
from warehouse.lake import Lake

OWN = METHODS["question"]


def run(runner: Scripted, questions: list[Question], out: Path, method=OWN, shard=(0, 1)):
    return collect(
        runner, method, questions, out, run_settings(runner, "m", method, questions), shard
    )


def test_all_parts_load_from_a_folder_with_their_pictures(bench, questions):
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


def test_a_limit_counts_rows_before_they_are_multiplied(bench):
    questions_found = questions_of(
        "progress-bench", str(bench), part=("text-normal",), limit=2, num_inferences=3
    )
    assert len(questions_found) == 6
    assert len({q.key for q in questions_found}) == 6
    assert len({q.text for q in questions_found}) == 1
    assert {p.seed for p in map(Prompt.of, questions_found)} == {0, 1, 2}


def test_an_item_that_fails_fails_alone_and_is_tried_again(questions, tmp_path):
    bad = questions[3].key
    runner = Scripted(
        lambda p: (
            ModelReply(p.key, error="no picture") if p.key == bad else ModelReply(p.key, text="50%")
        )
    )
    rows = run(runner, questions, tmp_path / "p.jsonl")
    assert [r["error"] for r in rows if "error" in r] == ["no picture"]
    scored = score_predictions("progress-bench", read_predictions(tmp_path / "p.jsonl"))
    assert scored.counts["unparsable"] == 1
    second_runner = Scripted()
    run(second_runner, questions, tmp_path / "p.jsonl")
    assert [p.key for p in second_runner.asked] == [bad]
    assert run(Scripted(lambda p: pytest.fail("asked")), questions, tmp_path / "p.jsonl")
    broken = Scripted(lambda p: ModelReply(p.key, error="broken"))
    with pytest.raises(UnansweredError, match=r"none of 26 .* the first: broken"):
        run(broken, questions, tmp_path / "none.jsonl")


def test_a_file_of_another_run_is_refused(questions, tmp_path):
    run(Scripted(), questions, tmp_path / "p.jsonl")
    other_runner = Scripted(settings={"runner": "scripted", "temperature": 0.7})
    with pytest.raises(UserError, match="another model or other settings"):
        run(other_runner, questions, tmp_path / "p.jsonl")
    (tmp_path / "p.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"p.jsonl line 1 is no line"):
        run(Scripted(), questions, tmp_path / "p.jsonl")


def test_a_line_that_was_cut_off_is_asked_again(questions, tmp_path):
    run(Scripted(), questions, tmp_path / "p.jsonl")
    whole = (tmp_path / "p.jsonl").read_bytes()
    (tmp_path / "p.jsonl").write_bytes(whole[:-40])
    second_runner = Scripted()
    run(second_runner, questions, tmp_path / "p.jsonl")
    assert [p.key for p in second_runner.asked] == [questions[-1].key]
    assert (tmp_path / "p.jsonl").read_bytes() == whole


def test_shards_are_whole_runs_and_make_the_file_of_one_process(questions, tmp_path):
    run(Scripted(), questions, tmp_path / "one.jsonl")
    parts = [questions_of_shard(questions, (k, 3)) for k in range(3)]
    assert sorted(q.key for q in chain.from_iterable(parts)) == sorted(q.key for q in questions)
    trajectories = [set(map(attrgetter("part", "trajectory"), part)) for part in parts]
    assert all(a.isdisjoint(b) for a, b in combinations(trajectories, 2))
    assert run(Scripted(), questions, tmp_path / "p.jsonl", shard=(0, 3)) is None
    assert run(Scripted(), questions, tmp_path / "p.jsonl", shard=(2, 3)) is None
    assert run(Scripted(), questions, tmp_path / "p.jsonl", shard=(1, 3)) is not None
    assert (tmp_path / "p.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


def test_pictures_stand_first_with_numbers_for_internvl():
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


def test_gvl_shuffles_a_run_and_reads_each_picture(questions, tmp_path):
    def say(prompt: Prompt) -> ModelReply:
        shares = [share_seen(Prompt("", "", (p,))) for p in prompt.pictures[1:]]
        return ModelReply(
            prompt.key,
            text="\n".join(f"Picture {n}: {100 * s:.0f}%" for n, s in enumerate(shares[:2], 1)),
        )

    same = [q for q in questions if q.part == "visual_same_view"]
    requests = list(METHODS["gvl"].ask(same))
    assert [len(a.questions) for a in requests] == [3, 3]
    assert all(
        a.prompt.pictures[0] == min(a.questions, key=lambda q: q.moment or 0).pictures[-1]
        for a in requests
    )
    assert list(METHODS["gvl"].ask(same)) == requests
    rows = run(Scripted(say), same, tmp_path / "g.jsonl", METHODS["gvl"])
    for r in rows:
        read_value = r.get("value")
        assert (read_value is None) == r.get("error", "").startswith(
            "no percentage for picture 3 of 3"
        )
        if read_value is not None:
            assert read_value == pytest.approx(
                float(r["meta_data"]["progress_score"][:-1]) / 100, abs=0.05
            )


def test_topreward_weighs_words_over_the_run_so_far(questions, tmp_path):
    same = [q for q in questions if q.part == "visual_same_view"]
    requests = list(METHODS["topreward"].ask(same))
    assert [len(a.prompt.pictures) for a in requests] == [1, 2, 3] * 2
    rows = run(
        Scripted(lambda p: ModelReply(p.key, words={"True": 0.3, "False": 0.1})),
        same,
        tmp_path / "t",
        METHODS["topreward"],
    )
    assert all(r["value"] == pytest.approx(0.75) for r in rows)
    (row,) = METHODS["topreward"].read(
        requests[0], ModelReply("k", words={"True": 0.0, "False": 0.0})
    )
    assert "neither True nor False" in row["error"]


def test_direct_score_shows_the_state_alone(questions):
    visual = [q for q in questions if q.part == "visual_same_view"]
    requests = list(METHODS["direct"].ask(visual))
    assert all(a.prompt.pictures == a.questions[0].pictures[-1:] for a in requests)
    assert not any(step in a.prompt.text for a, step in product(requests, STEPS))
    read = {
        t: METHODS["direct"].read(requests[0], ModelReply("k", text=t))[0].get("value")
        for t in ("40%", "0.4", "about 40%")
    }
    assert read == {"40%": 0.4, "0.4": None, "about 40%": None}


def test_a_baseline_survives_a_picture_that_is_not_there(bench):
    moved_questions = questions_of(
        "progress-bench", str(bench), part=("visual_same_view",), image_root=bench / "prog-bench"
    )
    baselines = weightless_answers(moved_questions, {})
    assert all(v != v for v in baselines["visual distance"].values())
    assert len(baselines["clock"]) == 6


def test_a_running_clock_knows_how_long_the_other_runs_of_a_task_are():
    lengths = {"a": 11, "b": 21, "c": 41, "other": 6}
    questions = {
        (run, frame): a_run(
            family="progress",
            trajectory=run,
            goal="another" if run == "other" else "one",
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


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serving(StandIn()) as server:
        yield server


def runner(
    server: StandIn,
    folder: Path,
    sampling: Sampling = Sampling(max_tokens=64),
    is_vllm: bool = False,
    **config: object,
) -> ApiRunner:
    vlm = VlmConfig(model="stand-in", endpoints=(server.url,), max_concurrency=4, **config)
    books = Books(folder / "responses", "b", "progress-bench")
    return ApiRunner(vlm, sampling, PictureLimits(), books, is_vllm=is_vllm)


def ask_server(
    api_runner: ApiRunner, questions: list[Question], out: Path, method: str = "question"
):
    way = METHODS[method]
    return collect(
        api_runner, way, questions, out, run_settings(api_runner, "stand-in", way, questions)
    )


@pytest.mark.usefixtures("short_pauses")
def test_a_budget_ends_it_and_answers_are_kept(server, questions, tmp_path):
    with pytest.raises(VlmError, match="budget of 5 calls"):
        ask_server(runner(server, tmp_path, max_calls=5), questions, tmp_path / "p.jsonl")
    assert len(server.received) == 5
    richer = runner(server, tmp_path, max_calls=100, price=Price(usd_per_million_prompt_tokens=1.0))
    ask_server(richer, questions, tmp_path / "p.jsonl")
    assert len(server.received) == len(set(server.received))


@pytest.mark.usefixtures("short_pauses")
def test_a_refused_question_fails_alone(questions, tmp_path):
    with serving(
        StandIn(faults=[Fault.parse("refused:after=2:first=1"), Fault.parse("500:0.2")])
    ) as server:
        same_view = [q for q in questions if q.part == "visual_same_view"]
        rows = ask_server(runner(server, tmp_path), same_view, tmp_path / "p.jsonl")
    errors = [r["error"] for r in rows if "error" in r]
    assert len(errors) == 1
    assert "no picture can be read" in errors[0]


@pytest.mark.usefixtures("short_pauses")
def test_topreward_reads_log_probabilities(server, questions, tmp_path):
    rows = ask_server(runner(server, tmp_path), questions[:4], tmp_path / "t.jsonl", "topreward")
    assert all(0 < r["value"] < 1 for r in rows)
    assert {(b["logprobs"], b["top_logprobs"], b["max_tokens"]) for b in server.seen} == {
        (True, 20, 1)
    }


@pytest.mark.usefixtures("short_pauses")
def test_a_server_without_log_probabilities_says_so(questions, tmp_path):
    with (
        serving(StandIn(parse=False)) as server,
        pytest.raises(UserError, match="gives no log-probabilities"),
    ):
        ask_server(runner(server, tmp_path), questions[:2], tmp_path / "t.jsonl", "topreward")


@pytest.mark.usefixtures("short_pauses")
def test_requests_carry_the_sampling(server, questions, tmp_path):
    # vLLM's servers are told all of it: what is left out would be the checkpoint's generation_config.json
    ask_server(runner(server, tmp_path, is_vllm=True), questions[:2], tmp_path / "v.jsonl")
    names = ("temperature", "top_p", "top_k", "repetition_penalty", "min_p")
    assert set(map(itemgetter(*names), server.seen)) == {(0.0, 1.0, 0, 1.0, 0.0)}
    server.seen.clear()
    ask_server(runner(server, tmp_path), questions[:2], tmp_path / "a.jsonl")
    assert server.seen
    assert all(not {"top_p", "top_k", "repetition_penalty"} & set(b) for b in server.seen)
    server.seen.clear()
    hot_runner = runner(server, tmp_path, sampling=Sampling(0.6, 64, top_p=0.9))
    ask_server(hot_runner, questions[:2], tmp_path / "p.jsonl")
    assert {(b["temperature"], b["top_p"]) for b in server.seen} == {(0.6, 0.9)}
    assert hot_runner.settings["top_p"] == 0.9


# As one publication lays its question out: the pictures first, then a line that says <image> for each in words
VISUAL = """
system = "You judge robots; <image> is a word here."
prompt = "{role}Now: {state}\\nBefore it, {num_items} pictures: {shown}\\n{shares}\\nTask {{in words}}: {task}"

[lists.shown]
of = "demonstration"
each = "{picture}"

[lists.shares]
of = "demonstration"
each = "{number}/{index} <image> {percent}%"
between = "; "
"""
TEXT = "Task: {task}\n{demonstration}\nState:\n{state}\nHow far?\n"
RUN = "{pictures}\nHow far is: {task}? ({num_pictures})\n"


def folder_of(folder: Path, **files: str) -> Path:
    """Files by name, with __ for a dot."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def a_run(**fields: Any) -> Question:
    pictures = tuple(PictureFile(Path(f"{k}.jpg")) for k in range(3))
    words = "<image>\n<image>\n<image>\nWhich remain?"
    question = Question(
        "procvqa-id", "procvqa_b", "procvqa_b", "0", "d", "cam", "push <image> on", words, pictures, None,
    )  # fmt: skip
    return replace(question, **fields)


def test_a_demonstration_is_asked_as_it_says(bench, tmp_path):
    folder = folder_of(tmp_path / "p", visual__toml=VISUAL.replace("{role}", ""))
    question = questions_of("progress-bench", str(bench), part=("visual_same_view",))[0]
    prompt = read_prompts(folder).of(question).fill(question)
    mark = PLAIN_IMAGE
    assert prompt.text == (
        "Now: <image>\nBefore it, 4 pictures: <image><image><image><image>\n"
        f"1/0 {mark} 0%; 2/1 {mark} 33%; 3/2 {mark} 67%; 4/3 {mark} 100%\n"
        "Task {in words}: put the cup on the plate"
    )
    # The state stands first in the text, and so among the pictures
    assert prompt.pictures == (question.pictures[-1], *question.pictures[:-1])
    system, user = chat_messages(prompt, "images_first")
    assert system == {
        "role": "system", "content": [{"type": "text", "text": "You judge robots; <image> is a word here."}],
    }  # fmt: skip
    assert [part["type"] for part in user["content"]] == [
        "text",
        "image",
        "text",
        *["image"] * 4,
        "text",
    ]
    assert "1/0 <image> 0%;" in user["content"][-1]["text"]


def test_a_variant_has_a_file_of_its_own(tmp_path):
    folder = folder_of(
        tmp_path / "p", procvqa_b__txt=RUN, procvqa_b__next__txt="{pictures}{question} {task}"
    )
    prompts = read_prompts(folder)
    next_question = a_run(row={"variant": "next"})
    remaining = a_run(row={"variant": "remaining"})
    assert (
        prompts.of(next_question).fill(next_question).text
        == "<image><image><image>Which remain? push image on"
    )
    assert (
        prompts.of(remaining).fill(remaining).text
        == "<image><image><image>\nHow far is: push image on? (3)"
    )


def wrong_prompts() -> Iterator[tuple[str, str, str]]:
    """A file's name and text, and what is said of it."""
    yield from table("wrong_prompts")
    yield "procvqa_b__last__txt", RUN, r"'procvqa_b.last' is no family of questions; .*_b.next"
    visual = VISUAL.replace("{role}", "")
    for text, message in (
        (VISUAL, r"visual.toml: prompt has \{role\}"),
        (visual.replace("{index}", "{step}"), r"lists.shares.each has \{step\}"),
        (visual.replace("You", "{state}"), r"system has \{state\}"),
    ):
        yield "visual__toml", text, message
    yield "procvqa_c__toml", VISUAL, r"is of 'demonstration', and procvqa_c has 'pictures' alone"


@pytest.mark.parametrize(("name", "text", "message"), wrong_prompts())
def test_what_is_wrong_in_a_file_is_told(name, text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_prompts(folder_of(tmp_path / "p", **{name: text}))


def test_a_run_is_asked_in_the_folders_words_and_knows_them(bench, tmp_path):
    lake = Lake(Workspace(tmp_path / "w"))
    model = make_checkpoint(tmp_path / "m", head=None)
    prompts = folder_of(tmp_path / "p", text__txt=TEXT)
    question = EvaluationOptions(
        benchmark="progress-bench",
        data=str(bench),
        part=("text-normal",),
        limit=2,
        answer="text",
        max_tokens=4,
    )

    def evaluated_with(**changes: object) -> Evaluation:
        return evaluate_benchmark(
            lake, RunnerConfig("m", question.model_copy(update=changes), folder=model)
        )

    plain = evaluated_with()
    evaluated = evaluated_with(prompts=prompts)
    assert evaluated.run != plain.run
    assert evaluated.settings["prompts"] == read_prompts(prompts).hash
    assert "prompts" not in plain.settings
    assert evaluated.settings["prompt_version"] != plain.settings["prompt_version"]
    folder_of(prompts, text__txt=TEXT.replace("How far?", "How far is it?"))
    other_evaluation = evaluated_with(prompts=prompts)
    assert other_evaluation.run not in (plain.run, evaluated.run)
    stored = [json.loads(row[0]) for row in lake.rows("SELECT config FROM eval_runs")]
    assert evaluated.settings["prompts"] in {config.get("prompts") for config in stored}
    with pytest.raises(UserError, match=r"has no visual.toml or visual.txt"):
        evaluated_with(prompts=prompts, part=("visual_same_view",))


SHOWN = PictureLimits(longest_px=64)


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl"])
def checkpoint(request, tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / request.param, request.param)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> list[Prompt]:
    folder = tmp_path_factory.mktemp("pictures")
    prompts_made = []
    for n in range(6):
        picture(folder / f"{n}.jpg", n / 5)
        files_shown = (PictureFile(folder / f"{n}.jpg"),) * (1 + n % 3)
        prompts_made.append(
            Prompt(
                f"k{n}",
                "\n".join(["<image>"] * len(files_shown)) + "\nHow far" + " is the bar?" * n,
                files_shown,
            )
        )
    return prompts_made


def spoken(folder: Path, batch_size: int, sampling: Sampling, limits: PictureLimits) -> TextRunner:
    return open_runner(folder, batch_size, answer="text", sampling=sampling, limits=limits)


def texts(runner: Runner, prompts: Sequence[Prompt]) -> dict[str, str | None]:
    return {r.key: r.text or r.error for r in runner.answer(prompts)}


def test_draws_are_by_the_prompts_own_seed(checkpoint, prompts):
    runner = spoken(checkpoint, 4, Sampling(temperature=1.0, max_tokens=6), SHOWN)
    joint_texts = texts(runner, prompts)
    runner.batch_size = 1
    assert texts(runner, prompts[::-1]) == joint_texts
    other_prompts = [Prompt(p.key, p.text, p.pictures, seed=1) for p in prompts]
    assert texts(runner, other_prompts) != joint_texts


def test_sampling_is_given_and_recorded(checkpoint, prompts):
    def said(**sampling: Any) -> dict[str, str | None]:
        return texts(spoken(checkpoint, 4, Sampling(max_tokens=8, **sampling), SHOWN), prompts)

    likeliest = said()
    drawn = said(temperature=1.0)
    assert drawn != likeliest
    assert said(temperature=1.0, top_k=1) == likeliest
    assert said(temperature=1.0, top_p=1e-6) == likeliest
    assert said(temperature=1.0, seed=1) != drawn
    assert said(repetition_penalty=5.0) != likeliest
    settings = spoken(checkpoint, 4, Sampling(top_p=0.9, top_k=50), SHOWN).settings
    recorded = {
        k: settings[k]
        for k in ("temperature", "top_p", "top_k", "repetition_penalty", "max_tokens", "seed")
    }
    assert recorded == {
        "temperature": 0.0, "top_p": 0.9, "top_k": 50, "repetition_penalty": 1.0, "max_tokens": 512, "seed": 0,
    }  # fmt: skip


def test_words_are_weighed(checkpoint, prompts):
    runner = spoken(checkpoint, 4, Sampling(), SHOWN)
    word_prompts = [Prompt(p.key, p.text, p.pictures, words=("True", "False")) for p in prompts]
    words_by_key = {r.key: r.words for r in runner.answer(word_prompts)}
    assert all(
        w is not None and 0 < w["True"] < 1 and 0 < w["False"] < 1 for w in words_by_key.values()
    )


def test_pixel_limits_change_tokens(checkpoint, prompts):
    counts = []
    for limits in (PictureLimits(64, None, 32 * 32), PictureLimits(64, 64 * 64, 64 * 64)):
        runner = spoken(checkpoint, 4, Sampling(max_tokens=1), limits)
        (reply,) = runner.answer(prompts[:1])
        counts.append(reply.prompt_tokens)
    assert counts[0] < counts[1]


def test_internvl_answers_with_pictures_first(prompts, tmp_path):
    folder = make_checkpoint(tmp_path / "internvl", "internvl")
    ours = open_runner(folder, 4, reasoning=True, sampling=Sampling(max_tokens=4)).answer(prompts)
    assert all(r.text is not None and r.progress is not None for r in ours)
    (folder / "card.json").unlink()
    runner = spoken(folder, 4, Sampling(max_tokens=4), PictureLimits())
    assert runner.settings["prompt_format"] == "images_first"
    replies = {r.key: r for r in runner.answer(prompts)}
    assert {r.error for r in replies.values()} == {None}
    assert all(r.text is not None and r.completion_tokens for r in replies.values())
    with pytest.raises(UserError, match="not for internvl"):
        spoken(folder, 1, Sampling(), PictureLimits(max_pixels=1000))


@pytest.mark.parametrize("card", [{"converted_from": "ProcVLM-2B"}, {}])
def test_a_published_head_is_asked(card, prompts, tmp_path):
    folder = make_checkpoint(tmp_path / "m", head=HeadConfig(pooling="published"), **card)
    options = EvaluationOptions(max_tokens=6, batch_size=4)
    config = RunnerConfig("m", options, longest_px=SHOWN.longest_px)
    by_default = local_runner(config, folder)
    assert (by_default.settings["answer"], by_default.has_head) == ("text", False)
    two_pass = local_runner(
        replace(config, options=options.model_copy(update={"answer": "head"})), folder
    )
    assert (two_pass.settings["answer"], two_pass.has_head) == ("head after text", True)
    texts_by_key = texts(by_default, prompts)
    replies = {r.key: r for r in two_pass.answer(prompts)}
    assert {k: r.text for k, r in replies.items()} == texts_by_key

    # By hand: question and answer in one sequence; a published checkpoint's number is the plain sigmoid
    model, processor, _ = load_model(folder)
    for p in prompts:
        pictures = tuple(picture.rgb(SHOWN.longest_px) for picture in p.pictures)
        output = model(Transform(processor)([Item(p.text, pictures, texts_by_key[p.key])]))
        z = output.raw[0, 0].item()
        right = 1 / (1 + math.exp(-z if card else 0.1 - 1.2 * z))
        assert replies[p.key].progress == pytest.approx(right, abs=1e-5)
