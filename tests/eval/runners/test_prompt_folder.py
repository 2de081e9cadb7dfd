"""A checkpoint's own prompts from a folder: what they become, what is refused, and that a run knows them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import UserError
from core.paths import ROOT, Workspace
from core.values import PLAIN_IMAGE
from eval.benchmarks.options import EvaluationOptions
from eval.benchmarks.question import PictureFile, Question
from eval.benchmarks.run import Evaluation, evaluate_benchmark
from eval.runners.prompt import chat_messages
from eval.runners.prompt_folder import read_prompts
from eval.runners.start import RunnerConfig
from tests.kits.bench_kit import questions_of
from tests.kits.reward_kit import make_checkpoint
from warehouse.lake import Lake

WRONG = yaml.safe_load((ROOT / "tests/data/wrong_prompts.yaml").read_text())

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
        "procvqa-id", "procvqa_b", "procvqa_b", "0", "d", "cam", "push <image> on", words, pictures, None,  # type: ignore[arg-type]
    )  # fmt: skip
    return replace(question, **fields)


def test_a_demonstration_is_asked_as_it_says(bench: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "p", visual__toml=VISUAL.replace("{role}", ""))
    question = questions_of("progress-bench", str(bench), part=("visual_same_view",))[0]
    prompt = read_prompts(folder).of(question).prompt(question)
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


def test_a_variant_has_a_file_of_its_own(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "p", procvqa_b__txt=RUN, procvqa_b__next__txt="{pictures}{question} {task}"
    )
    prompts = read_prompts(folder)
    next_question = a_run(row={"variant": "next"})
    remaining = a_run(row={"variant": "remaining"})
    assert (
        prompts.of(next_question).prompt(next_question).text
        == "<image><image><image>Which remain? push image on"
    )
    assert (
        prompts.of(remaining).prompt(remaining).text
        == "<image><image><image>\nHow far is: push image on? (3)"
    )


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        *WRONG,
        (
            "procvqa_b__last__txt",
            RUN,
            r"'procvqa_b.last' is no family of questions; .*procvqa_b.next",
        ),
        ("visual__toml", VISUAL.replace("{role}", "{role}"), r"visual.toml: prompt has \{role\}"),
        (
            "visual__toml",
            VISUAL.replace("{role}", "").replace("{index}", "{step}"),
            r"lists.shares.each has \{step\}",
        ),
        (
            "visual__toml",
            VISUAL.replace("{role}", "").replace("You", "{state}"),
            r"system has \{state\}",
        ),
        (
            "procvqa_c__toml",
            VISUAL,
            r"lists.shown is of 'demonstration', and procvqa_c has 'pictures' alone",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_told(name: str, text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        read_prompts(folder_of(tmp_path / "p", **{name: text}))


def test_a_run_is_asked_in_the_folders_words_and_knows_them(bench: Path, tmp_path: Path) -> None:
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
