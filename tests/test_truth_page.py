"""The page that says how true labels are shows the figures that are stored, and none else."""

import copy
import json
import re

import make_truth_page
import pytest

from core.paths import ROOT

DATA = make_truth_page.stored_figures()
REAL = DATA["real_truth"]
HISTORY = ROOT / "docs" / "data" / "truth_history.json"
TEXT = make_truth_page.PAGE.read_text()


def test_the_page_is_as_new_as_its_data() -> None:
    assert make_truth_page.page(TEXT, DATA) == TEXT, f"docs/truth.md is old: run `{make_truth_page.COMMAND}`"


def test_other_figures_are_another_page() -> None:
    changed = copy.deepcopy(REAL)
    changed["cr5_banana"]["figures"]["mae"]["value"] = 0.987
    page = make_truth_page.page(TEXT, DATA | {"real_truth": changed})
    assert "**0.987" in page
    assert "0.987" not in TEXT
    # What is written by hand stays
    assert page.split("<!-- end of real -->")[1] == TEXT.split("<!-- end of real -->")[1]


def test_the_summary_follows_each_of_its_sources() -> None:
    before = make_truth_page.summary_part(REAL, DATA["sim_truth"], DATA["transfer"]).splitlines()
    real, simulated, transfer = (copy.deepcopy(DATA[name]) for name in ("real_truth", "sim_truth", "transfer"))
    for episode in real["cr5_banana"]["episodes"].values():
        episode["mae"] = 0.9
    simulated["rows"][0]["figures"]["clean: MAE less clock's"] |= {"value": 0.5, "low": 0.4, "high": 0.6}
    for row in transfer["rows"]:
        row["error"] = row.get("clock")
    after = make_truth_page.summary_part(real, simulated, transfer).splitlines()
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 3
    assert "| **0.4" in changed[0]  # 10 of 16 episodes are 0.9 off
    assert "| **0.000** |" in changed[1]
    assert "| **0.500 (0.400 to 0.600)** |" in changed[2]


def test_every_set_is_a_row_real_robots_first() -> None:
    rows = [line for line in make_truth_page.real_part(REAL).splitlines() if line.startswith("| `")]
    names = [re.findall(r"`(\w+)`", row)[0] for row in rows]
    assert sorted(names) == sorted(name for name, s in REAL.items() if s["episodes"])
    assert names[-1] == "gr1_pick_place"
    assert all(row.count("|") == rows[0].count("|") for row in rows)


def test_a_set_of_one_episode_has_no_interval() -> None:
    row = next(line for line in make_truth_page.real_part(REAL).splitlines() if line.startswith("| `piper_pen`"))
    assert " to " not in row
    assert "is one episode: no interval" in make_truth_page.real_part(REAL)


def test_of_several_sets_the_mean_is_over_episodes() -> None:
    episodes = REAL["cr5_banana"]["episodes"]
    pooled = make_truth_page.pooled(list(episodes.values()))
    for name in ("f1_near", "mae", "bf1"):
        assert pooled[name]["value"] == pytest.approx(REAL["cr5_banana"]["figures"][name]["value"], abs=1e-4)


def test_a_page_without_its_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="<!-- end of real --> once"):
        make_truth_page.page(TEXT.replace("<!-- end of real -->", ""), DATA)


def test_the_history_says_of_each_figure_what_it_is_of() -> None:
    history = json.loads(HISTORY.read_text())
    assert {"fresh", "confirm", "last", "sixth", "seventh", "eighth", "held-out"} <= {
        c["set"] for c in history["claims"]
    }
    for claim in history["claims"]:
        assert set(claim) == {"set", "tasks", "runs", "claim", "bound", "value", "low", "high", "labels", "looked"}
        assert claim["low"] <= claim["value"] <= claim["high"]
