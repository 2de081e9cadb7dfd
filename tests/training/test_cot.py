"""Reasoning from a stand-in of a strong model: asked without the label, judged by it, stored, trained on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from annotate.config import VlmConfig
from core.errors import FailedError
from tests.kits import vlm_standin
from tests.kits.progresslm_rows import empty_corpus, source_rows, write_rows
from tests.kits.vlm_standin import Fault, StandIn, serving
from training.cot import CotOptions, answer_of, generate, judge, prompt_version
from training.progresslm import Truth
from training.progresslm_data import Rows, read_rows, truth_of
from warehouse.lake import Lake

GOOD = {
    "ref_think": "Picture 2 shows it.",
    "ref": 2,
    "score_think": "A little beyond.",
    "score": 44,
}
NONE = {"ref_think": "Another scene.", "ref": "n/a", "score_think": "n/a", "score": "n/a"}


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    path = write_rows(tmp_path / "rl.jsonl", source_rows(tmp_path / "images"))
    return read_rows([path], tmp_path / "images", "think")


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    empty_lake, _ = empty_corpus(tmp_path)
    yield empty_lake
    empty_lake.con.close()


def knows(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, slips: dict[tuple[int, int], dict[str, Any]]
) -> None:
    """The stand-in answers as the label says, but for the (sample, inference)s that slip. It knows the label from the
    last picture, not from the question."""
    pictures = {sample.pictures[-1]: k for k, sample in enumerate(rows)}
    inferences: dict[int, int] = {}

    def answer(request: dict[str, Any], sha256: str, fault: str | None) -> dict[str, Any]:
        import base64

        url = [p for p in request["messages"][1]["content"] if p["type"] == "image_url"][-1][
            "image_url"
        ]["url"]
        k = pictures[base64.b64decode(url.partition(",")[2])]
        truth = truth_of(rows[k])
        inference = inferences.get(k, 0)
        inferences[k] = inference + 1
        if truth.ref is None:
            right = NONE
        else:
            right = GOOD | {"ref": truth.ref, "score": truth.score_percent}
        text = json.dumps(right | slips.get((k, inference), {}))
        return vlm_standin.completion(request["model"], text, 100, 20)

    monkeypatch.setattr(vlm_standin, "answer", answer)


def config(server: StandIn, **options: Any) -> VlmConfig:
    return VlmConfig(model="stand-in", endpoints=(server.url,), **options)


def test_what_is_right_is_kept_and_what_is_not_is_counted(
    rows: Rows, lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slips = {
        (0, 0): {"ref": 4}, (0, 1): {"score": 90},
        (1, 0): {"score": 22}, (2, 0): NONE, (3, 1): {"ref_think": "<ref>1</ref>"}, (7, 0): GOOD, (7, 1): GOOD,
    }  # fmt: skip
    knows(rows, monkeypatch, slips)
    with serving(StandIn()) as server:
        report = generate(lake, rows, config(server), CotOptions(inferences=2), tmp_path / "cot")
    assert report.left_out == {
        "answered": 2,
        "format": 1,
        "reference": 1,
        "refused": 1,
        "score": 1,
        "surplus": 4,
    }
    assert (report.samples, report.inferences, report.kept, report.calls) == (8, 16, 6, 16)
    assert report.kept + sum(report.left_out.values()) == report.inferences
    kept_samples = read_rows([report.file])
    assert [s.row["form"] for s in kept_samples] == ["think"] * 6
    assert [s.row["question"] for s in kept_samples] == [
        rows[k].row["question"] for k in range(1, 7)
    ]
    assert all(s.pictures == rows[k + 1].pictures for k, s in enumerate(kept_samples))
    label = rows[1].row["progress"]
    assert kept_samples[0].row["progress"] == label
    assert f"<score>{100 * label:g}%</score>" in kept_samples[0].row["answer"], (
        "the nearer of two that are right"
    )
    (call_row,) = lake.rows(
        "SELECT count(*), min(stage), min(dataset), min(prompt_version) FROM vlm_calls"
    )
    assert call_row == (16, "cot", "rl", prompt_version())
    facts = json.loads((tmp_path / "cot" / "report.json").read_text())
    assert (facts["kept"], facts["model"], facts["options"]["temperature"]) == (6, "stand-in", 0.6)


@pytest.mark.usefixtures("short_pauses")
def test_a_run_that_was_killed_asks_nothing_twice(
    rows: Rows, lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    knows(rows, monkeypatch, {})

    options = CotOptions()
    with (
        serving(StandIn(faults=[Fault.parse("gone:after=3")])) as server,
        pytest.raises(FailedError, match="no server"),
    ):
        generate(lake, rows, config(server, max_concurrency=1), options, tmp_path / "cot")
    first = set(server.answered)
    assert 0 < len(first) < 8
    assert not (tmp_path / "cot" / "cot.jsonl").exists()
    with serving(StandIn()) as server:
        report = generate(lake, rows, config(server), options, tmp_path / "cot")
        assert not first & set(server.received)
        assert (report.answered_before, report.calls) == (len(first), 8 - len(first))
        second_report = generate(lake, rows, config(server), options, tmp_path / "again")
    assert (second_report.calls, second_report.answered_before) == (0, 8)
    assert second_report.file.read_bytes() == report.file.read_bytes()


@pytest.mark.parametrize(
    ("value", "truth", "reason"),
    [
        (GOOD, Truth(2, 44.0, 4), None),
        (GOOD, Truth(2, 39.0, 4), None),  # as far off as it may be
        (GOOD, Truth(2, 38.9, 4), "score"),
        (GOOD, Truth(3, 44.0, 4), "reference"),
        (GOOD, Truth(None, None, 4), "answered"),
        (NONE, Truth(2, 44.0, 4), "refused"),
        (NONE, Truth(None, None, 4), None),
        (GOOD | {"ref": "n/a"}, Truth(2, 44.0, 4), "format"),
        (NONE | {"score_think": "It is another."}, Truth(None, None, 4), "format"),
        (GOOD | {"ref_think": "<score>44%</score>"}, Truth(2, 44.0, 4), "format"),
        (GOOD | {"ref_think": "as in <image>"}, Truth(2, 44.0, 4), "format"),
    ],
)
def test_replies_are_judged(value: dict[str, Any], truth: Truth, reason: str | None) -> None:
    assert judge(answer_of(value), truth, 0.05)[0] == reason
