"""The benchmarks of labels, of the checkup, and of cheap models."""

import hashlib
import json
import subprocess
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import benchmarks.vlm_stand_in as stand_ins
from annotate.config import MotionConfig, VlmConfig
from annotate.vlm.pictures import EpisodeView
from benchmarks.checkup import HEADS, is_meant, is_right_time, trials
from benchmarks.checkup_faults import FAULTS, Spoilt, encoded_again, late, values_of
from benchmarks.checkup_sets import DecodedRun, DecodedSet, measured
from benchmarks.hand_labels import HandLabelled, picture
from benchmarks.harness import write_tables
from benchmarks.label_truth import CHOICES, FIGURES, PAGE, best_elsewhere, counts
from benchmarks.real_truth.fetch import fetch
from core.domain.label import STEP, Segment
from eval.annotators.truth import EpisodeTruth
from ingest.episode import EpisodeData, EpisodeRecord, Finding
from tests.kits.vlm_episodes import view_of


def repository(folder: Path) -> str:
    """The commit of a dataset of three episodes, as a git host has it."""
    meta = folder / "someone" / "robots" / "data" / "meta"
    meta.mkdir(parents=True)
    rows = [json.dumps({"episode_index": k, "length": 10 + k}) for k in range(3)]
    (meta / "episodes.jsonl").write_text("\n".join(rows) + "\n")
    (meta / "episodes_stats.jsonl").write_text("\n".join(rows) + "\n")
    (meta / "info.json").write_text(
        json.dumps({"total_episodes": 3, "total_frames": 33, "fps": 10})
    )
    (meta.parent / "rows.bin").write_bytes(b"rows")

    def git(*words: str) -> str:
        author_options = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        process = subprocess.run(
            ["git", *author_options, *words],
            cwd=folder / "someone" / "robots",
            check=True,
            capture_output=True,
        )
        return process.stdout.decode().strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "data")
    return git("rev-parse", "HEAD")


def test_a_dataset_is_fetched_by_its_commit_and_checked_by_its_hashes(tmp_path):
    commit = repository(tmp_path / "host")
    files = {"rows.bin": hashlib.sha256(b"rows").hexdigest(), "meta/info.json": None}
    files |= {"meta/episodes.jsonl": None, "meta/episodes_stats.jsonl": None}
    source = {
        "repository": "someone/robots",
        "commit": commit,
        "folder": "data",
        "episodes": [0, 2],
        "files": files,
    }
    fetch("set", source, tmp_path / "out", f"file://{tmp_path / 'host'}/")
    info = json.loads((tmp_path / "out/set/meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"], info["fps"]) == (2, 22, 10)
    assert len((tmp_path / "out/set/meta/episodes.jsonl").read_text().splitlines()) == 2
    changed = source | {"files": files | {"rows.bin": "0" * 64}}
    with pytest.raises(RuntimeError, match=r"set: rows\.bin has sha256"):
        fetch("set", changed, tmp_path / "again", f"file://{tmp_path / 'host'}/")


def test_what_is_chosen_for_a_robot_does_not_know_it():
    errors: dict[tuple[str, Any], dict[str, float]] = {("", None): {"a": 0.1, "b": 0.1}}
    for name, (_, _, other_values) in CHOICES.items():
        errors |= {(name, value): {"a": 0.1, "b": 0.1} for value in other_values}
    errors["episodes agree within", 0.4] = {"a": 0.5, "b": 0.05}
    assert best_elsewhere(errors, "a") == {"episodes agree within": 0.4}
    assert best_elsewhere(errors, "b") == {}


def test_few_numbers_decide_a_label():
    # Each in the ablation; a rule that needs one more has to take another's place
    assert len(CHOICES) <= 28
    for name, (module, attribute, other_values) in CHOICES.items():
        value = getattr(MotionConfig() if module is None else module, attribute)
        assert other_values, name
        assert value not in other_values, name


def test_the_page_lists_choices_that_matter_and_no_others():
    choice = {"others": {"1": 0.0012, "2": 0.0}, "sets_that_prefer_another": 0}
    assert counts(choice)
    assert counts(choice | {"others": {"1": -0.0012}})
    assert not counts(choice | {"others": {"1": 0.0009, "2": -0.0009}})
    assert counts(choice | {"others": {"1": 0.0}, "sets_that_prefer_another": 2})
    choices = [choice for choice in json.loads(FIGURES.read_text())["ablation"] if counts(choice)]
    page = PAGE.read_text()
    assert all(f"| {choice['choice']} |" in page for choice in choices)
    assert len(CHOICES) - len(choices) == 10


FRAMES = 60
FPS = 10.0
SIDE = 64


def decoded_run(index: int) -> DecodedRun:
    """A bright square that goes where the state says."""
    times = np.arange(FRAMES) / FPS
    state = np.column_stack([np.sin(times + index), np.cos(times + index)])
    pictures = np.full((FRAMES, SIDE, SIDE), 60, np.uint8)
    for square, (x, y) in zip(pictures, (20 + 12 * state).astype(int), strict=True):
        square[y : y + 20, x : x + 20] = 220
    record = EpisodeRecord(index, str(index), FPS, "move the square", num_rows=FRAMES)
    rows = pa.table({"x": state[:, 0], "y": state[:, 1]})
    episode = EpisodeData(record, rows, None, times, lambda *_: iter(()))
    return DecodedRun(episode, (), [measured("front", pictures, 2)], {"front": pictures})


@pytest.fixture(scope="module")
def squares() -> DecodedSet:
    return DecodedSet("squares", [decoded_run(index) for index in range(4)], 1.0)


def test_a_fault_is_tried_at_each_size(squares):
    black = [fault for fault in FAULTS if fault.name == "camera black"]
    all_trials = list(trials(squares, black, seed=1))
    # Six seconds have no place for ten of black
    assert [trial.size for trial in all_trials] == [
        size for size, _ in product((0.5, 1, 2, 5), range(3))
    ]
    assert all(trial.is_named and not trial.false_alarms for trial in all_trials)
    assert {trial.spoilt.run.index for trial in all_trials[:3]} == {
        trial.spoilt.run.index for trial in all_trials[3:6]
    }
    assert [t.spoilt.start for t in all_trials] == [
        t.spoilt.start for t in trials(squares, black, seed=1)
    ]


def test_pictures_that_are_encoded_again_are_no_fault(squares):
    control = [fault for fault in FAULTS if fault.check is None]
    assert [trial.false_alarms for trial in trials(squares, control, seed=0)] == [()] * 3
    pictures = squares.runs[0].pictures["front"]
    differences = np.abs(encoded_again(pictures).astype(int) - pictures)
    assert 0 < differences.mean() < 2


@pytest.mark.parametrize(
    ("frames", "rows", "places"),
    [(5, slice(0, -5), slice(5, None)), (-5, slice(5, None), slice(0, -5))],
)
def test_late_rows_meet_later_pictures(squares, frames, rows, places):
    spoilt = late(squares.runs[0], squares, frames, np.random.default_rng(0))
    state = values_of(squares.runs[0])["state"]
    pictures = squares.runs[0].pictures["front"]
    assert (values_of(spoilt.run)["state"] == state[rows]).all()
    assert (spoilt.run.pictures["front"] == pictures[places]).all()
    fault = Finding("rows_late", "", measured=frames + 1, unit="frames")
    assert is_right_time(fault, spoilt)
    assert not is_right_time(replace(fault, measured=-frames), spoilt)


def test_the_right_check_names_a_fault(squares):
    frozen = next(fault for fault in FAULTS if fault.name == "camera frozen")
    spoilt = Spoilt(squares.runs[1], 20, 40)
    fault = Finding("camera_frozen", "", episode_index=1, start_frame=35, end_frame=50)
    assert is_meant(fault, frozen, spoilt)
    assert not is_meant(replace(fault, reason="camera_black"), frozen, spoilt)
    assert not is_meant(replace(fault, episode_index=2), frozen, spoilt)
    assert not is_meant(replace(fault, start_frame=40), frozen, spoilt)


def test_the_page_gets_its_tables(tmp_path):
    page = tmp_path / "page.md"
    marks = [f"<!-- {name}: made by us -->\nold\n<!-- end of {name} -->\n" for name in HEADS]
    page.write_text("".join(marks))
    write_tables(page, dict.fromkeys(HEADS, "| new |\n"))
    assert page.read_text() == "".join(m.replace("old", "\n| new |\n") for m in marks)
    with pytest.raises(ValueError, match="needs <!-- none -->"):
        write_tables(page, {"none": ""})


NO_SIGNALS: Any = None


def run_of(seed: int) -> HandLabelled:
    """Five steps of two to six seconds at 10 pictures a second."""
    edges = [0, *np.cumsum(np.random.default_rng(seed).integers(20, 60, 5)).tolist()]
    spans = enumerate(pairwise(edges))
    steps = tuple(Segment(f"Step {k}", *span, STEP, True, k) for k, span in spans)
    cuts = tuple(edges[1:-1])
    truth = EpisodeTruth("cr5_banana", seed, edges[-1], 10.0, None, cuts, (), (steps,))
    return HandLabelled(NO_SIGNALS, truth)


def shown(run: HandLabelled, *, success: bool | None) -> EpisodeView:
    n = run.truth.num_frames
    frames = tuple(range(0, n, 10))
    return view_of(n, fps=10.0, frames=frames, load=lambda some: dict.fromkeys(some, picture()))


@pytest.mark.slow
def test_cheap_models_first(monkeypatch):
    def tried(mistakes: stand_ins.Mistakes, *cheap: str) -> tuple[float, int]:
        config = VlmConfig(cheap_models=cheap)
        outcomes = [stand_ins.trial(run_of(seed), mistakes, config, 0) for seed in range(8)]
        return float(np.mean([o.f1 for o in outcomes])), sum(o.tokens for o in outcomes)

    monkeypatch.setattr(stand_ins, "view_of", shown)
    dear_f1, dear_tokens = tried(stand_ins.Mistakes())
    assert tried(stand_ins.CHEAP["small"])[0] < dear_f1 - 0.02
    f1, tokens = tried(stand_ins.Mistakes(), *stand_ins.CHEAP)
    assert f1 > dear_f1 - 0.01
    assert 0 < tokens <= 0.5 * dear_tokens
