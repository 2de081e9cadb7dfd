"""ProgressLM's files as they are: conversations, sources and prompts of RL; and every broken row in one line."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.kits.progresslm_rows import PUBLISHED, assert_rows_are_read, published_rows
from training.folder import TrainingError
from training.progresslm import Truth
from training.progresslm_data import read_rows, truth_of
from warehouse.shards.shard import Sample

ID = "h5_franka_3rgb/stack_cups/1015_172846.00"
THINK = "<ref_think>a</ref_think>\n<ref>2</ref>\n<score_think>b</score_think>\n<score>8%</score>"

SOURCE = {
    "id": ID,
    "task_goal": "stack the cups",
    "visual_demo": [f"camera_top_{k:04d}.jpg" for k in (0, 47, 56, 64, 80)],
    "total_steps": "4",
    "stage_to_estimate": ["camera_top_0015.jpg"],
    "closest_idx": "1",
    "delta": "+7%",
    "progress_score": "8%",
    "data_source": "h5_franka_3rgb",
}
WORDS = {k: v for k, v in SOURCE.items() if k != "visual_demo"} | {
    "text_demo": ["pick up", "lift", "place", "[left] let go"], "stage_to_estimate": "camera_top_0056.jpg",
    "total_steps": 4, "closest_idx": 2, "progress_score": "50%",
}  # fmt: skip
CHAT = {
    "messages": [
        {"role": "user", "content": "You judge progress.\n<image> 0%\n<image> 100%\nNow: <image>"},
        {"role": "assistant", "content": THINK},
    ],
    "images": [f"{ID}/camera_top_{k:04d}.jpg" for k in (0, 80, 15)],
}
PROMPT = {
    "id": ID,
    "task_goal": "stack the cups",
    "system_prompt": "",
    "user_prompt": "Goal: stack the cups\n<image> 0%\n<image> 100%\nNow: <image>",
    "answer": {
        "ref": "1", "score_fraction": "0.08", "score_percent": "8", "score_text": "8%", "demo_count": 5, "delta": "+7%",
        "target_response": THINK,
    },
    "images": [f"/private/of/somebody/{ID}/camera_top_{k:04d}.jpg" for k in (0, 80, 15)],
    "messages": [],
    "metadata": {"closest_idx": "1", "progress_score": "8%"},
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images" / ID
    folder.mkdir(parents=True)
    for k in (0, 15, 47, 56, 64, 80):
        Image.new("RGB", (32, 24), (k, 0, 0)).save(folder / f"camera_top_{k:04d}.jpg")
    return tmp_path / "images"


def write(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def read(tmp_path: Path, root: Path, row: object, form="no_think") -> Sample:
    return read_rows([write(tmp_path, row)], root, form)[0]


def shown(root: Path, *frames: int) -> tuple[bytes, ...]:
    return tuple((root / ID / f"camera_top_{k:04d}.jpg").read_bytes() for k in frames)


def test_a_source_in_words(tmp_path: Path, root: Path) -> None:
    sample = read(tmp_path, root, WORDS, "think")
    assert "4. [left] let go\nafter it: 100%" in sample.row["question"]
    assert truth_of(sample) == Truth(2, 50.0, 4)
    assert sample.pictures == shown(root, 56)


def test_a_prompt_of_rl_finds_its_pictures_on_this_machine(tmp_path: Path, root: Path) -> None:
    sample = read(tmp_path, root, PROMPT)
    assert sample.row["question"] == PROMPT["user_prompt"]
    assert sample.row["answer"] is None
    assert truth_of(sample) == Truth(1, 8.0, 5)
    assert sample.pictures == shown(root, 0, 80, 15)
    in_parts = [
        {"type": "text", "text": "Goal\n"},
        *[{"type": "image"}] * 3,
        {"type": "text", "text": "\nNow?"},
    ]
    prompt_row = PROMPT | {"user_prompt": "Goal\n\nNow?", "messages": in_parts}
    assert read(tmp_path, root, prompt_row).row["question"] == "Goal\n<image><image><image>\nNow?"


@pytest.mark.parametrize("name", PUBLISHED)
def test_rows_of_every_published_file(tmp_path: Path, name: str) -> None:
    rows = published_rows(name)
    assert_rows_are_read(
        write(tmp_path, *rows), rows, crossed="visual_cross" in name and not name.startswith("rl")
    )


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"messages": [', "is no JSON"),
        ("[1]", "is no object"),
        ({"text": "hello"}, "has neither messages, user_prompt nor progress_score"),
        (CHAT | {"messages": CHAT["messages"][:1]}, "messages must be of user and assistant"),
        (
            CHAT | {"messages": [{"role": "gpt", "content": "x"}] * 2},
            r"messages.0.role: input should be 'system'",
        ),
        (CHAT | {"images": CHAT["images"][:2]}, "3 <image> marks for 2 pictures"),
        (CHAT | {"images": ["../../secret.jpg"] * 3}, "is not below the image root"),
        (CHAT | {"images": ["gone.jpg"] * 3}, "there is no picture"),
        (SOURCE | {"total_steps": "5"}, "total_steps is 5, and the demonstration has 4"),
        (SOURCE | {"text_demo": ["a"]}, "has both demos"),
        (SOURCE | {"closest_idx": "6"}, "closest_idx is 6, the demonstration has 5 items"),
        (SOURCE | {"closest_idx": "first"}, "closest_idx: is 'first': neither a whole number"),
        (SOURCE | {"closest_idx": "n/a"}, "one is n/a and the other is not"),
        (
            SOURCE | {"progress_score": "much"},
            "progress_score: is 'much': neither a share from 0 to 1",
        ),
        (SOURCE | {"progress_score": "140%"}, "progress_score: is '140%': neither a share"),
        (SOURCE | {"stage_to_estimate": ["a.jpg", "b.jpg"]}, "stage_to_estimate"),
        ({k: v for k, v in SOURCE.items() if k != "task_goal"}, "task_goal: field required"),
        (PROMPT | {"answer": {"ref": "1"}}, r"answer.score_percent: field required"),
        (PROMPT | {"id": "../.."}, "is not below the image root"),
    ],
)
def test_a_broken_row_is_named_with_its_line(
    tmp_path: Path, root: Path, row: object, says: str
) -> None:
    path = write(tmp_path, CHAT, "", row)
    with pytest.raises(TrainingError, match=says) as e:
        read_rows([path], root)
    assert str(e.value).startswith(f"{path}:3: ")
    assert "\n" not in str(e.value)


def test_files_that_hold_nothing_or_no_text(tmp_path: Path, root: Path) -> None:
    with pytest.raises(TrainingError, match="there is no row"):
        read_rows([write(tmp_path, "")], root)
    with pytest.raises(TrainingError, match="cannot be read: No such file"):
        read_rows([tmp_path / "none.jsonl"], root)
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe{}")
    with pytest.raises(TrainingError, match="is no UTF-8"):
        read_rows([tmp_path / "b.jsonl"], root)


def test_a_conversation_has_no_label_to_reward_by(tmp_path: Path, root: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"rows.jsonl:1: a conversation has no reference and score"
    ):
        truth_of(read(tmp_path, root, CHAT))


def test_a_picture_that_is_gone_names_the_row(tmp_path: Path, root: Path) -> None:
    rows = read_rows([write(tmp_path, SOURCE, CHAT)], root)
    (root / ID / "camera_top_0047.jpg").unlink()
    assert rows[1].pictures == shown(root, 0, 80, 15)
    with pytest.raises(
        TrainingError, match=r"rows.jsonl:1: picture .*camera_top_0047.jpg cannot be read"
    ):
        rows[0]
