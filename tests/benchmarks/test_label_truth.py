"""The benchmark of labels: fetching its data, other values of constants, and the page."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from annotate.config import MotionConfig
from benchmarks.label_truth import CHOICES, FIGURES, PAGE, best_elsewhere, counts
from benchmarks.real_truth.fetch import fetch


def repository(folder: Path) -> str:
    """A public dataset of three episodes, as a git host has it; its commit."""
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


def test_a_dataset_is_fetched_by_its_commit_and_checked_by_its_hashes(tmp_path: Path):
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
    """Each in the ablation; a rule that needs one more has to take another's place."""
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
    assert len(CHOICES) - len(choices) == 10  # as the page says
