"""The closed-loop benchmark: its pieces without a simulator."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.policy.cloning import clone
from benchmarks.policy.demonstrations import Demonstration, planned, record
from benchmarks.policy.parts import Work
from benchmarks.policy.protocol import ARMS, GROUPS, QUALITIES, SHORT, Cloning, Protocol
from benchmarks.policy.recording import Frames
from benchmarks.policy.report import differences, print_tables, rates, report, report_by_labels
from benchmarks.policy.weights import arm_weights, share_by_quality, write_progress
from warehouse.exports.export import ExportFolder
from warehouse.exports.weights import (
    LEROBOT_FILE,
    WeighedRun,
    frame_weights,
    weight_rows,
    write_weights,
)


class PointCell:
    """A hand that flies to a thing, where it has succeeded."""

    spec = {"limit": 0.25}  # noqa: RUF012

    def restart(self, start: int) -> np.ndarray:
        self.obs = np.zeros(39)
        self.obs[4:7] = [0.02 * (start % 5), 0.5, 0.0]
        return self.seen()

    def seen(self) -> np.ndarray:
        return self.obs[:7].astype(np.float32)

    def expert(self, shift: np.ndarray | None = None) -> np.ndarray:
        way = self.obs[4:7] - self.obs[:3] + (0 if shift is None else shift)
        return np.r_[np.clip(10 * way, -0.25, 0.25), 0.0].astype(np.float32)

    def act(self, action: np.ndarray) -> None:
        self.obs[:3] += 0.1 * action[:3]

    @property
    def succeeded(self) -> bool:
        return bool(np.linalg.norm(self.obs[4:7] - self.obs[:3]) < 0.05)

    def measured(self) -> dict:
        return {"success": self.succeeded, "hand": self.obs[:3].copy()}

    def picture(self) -> np.ndarray:
        return np.zeros((4, 4, 3), np.uint8)


def test_demonstrations_are_planned_in_turn_and_counted():
    runs = planned("push", {"expert": 3, "failed": 1, "stalled": 2})
    assert [r.quality for r in runs] == [
        "expert",
        "stalled",
        "failed",
        "expert",
        "stalled",
        "expert",
    ]
    assert [r.number for r in runs] == list(range(6))
    assert (
        Counter(r.quality for r in planned("push", Protocol().demonstrations))
        == Protocol().demonstrations
    )
    with pytest.raises(ValueError, match="lazy; there are expert, noisy"):
        planned("push", {"lazy": 1})


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_run_of_each_quality_ends_as_it_should(quality):
    runs = [record(PointCell(), Demonstration("push", k, quality)) for k in (0, 5, 10)]
    for run in runs:
        assert len(run.rows) == len(run.pictures) == len(run.seen)
        assert run.rows[-1]["success"] == (quality != "failed")
    repeated_run = record(PointCell(), Demonstration("push", 5, quality))
    np.testing.assert_array_equal(repeated_run.seen, runs[1].seen)


def frames_of(qualities: list[str]) -> Frames:
    n = len(qualities) * 40
    return Frames(
        seen=np.zeros((n, 3), np.float32),
        action=np.zeros((n, 4), np.float32),
        truth=np.zeros(n, np.float32),
        task=np.full(n, "push"),
        episode=np.arange(n) // 40,
        quality=np.repeat(qualities, 40),
        success=np.repeat([q != "failed" for q in qualities], 40),
    )


RISE = np.linspace(0, 1, 40, dtype=np.float32)


def test_weights_by_outcome_and_by_progress(tmp_path):
    frames = frames_of(["expert", "stalled", "failed"])
    stalled = np.interp(np.arange(40), [0, 10, 30, 39], [0, 0.5, 0.5, 1]).astype(np.float32)
    falling = np.linspace(0.5, 0, 40, dtype=np.float32)
    path = write_progress(tmp_path, [RISE, stalled, falling], 5)
    weights = arm_weights(frames, GROUPS["known"], dict.fromkeys(("clock", "truth"), path), 5)
    assert set(weights["successes"][frames.quality == "failed"]) == {0.0}
    assert set(weights["experts"][frames.quality == "stalled"]) == {0.0}
    of_run = weights["truth"].reshape(3, 40)
    assert (of_run[0, :30] == of_run[0, 0]).all()
    assert (of_run[0, :30] > 0).all()
    assert (of_run[1, 11:24] < of_run[1, 0]).all()
    assert (of_run[2, :30] == 0).all()
    shares = share_by_quality(frames, weights["truth"])
    assert shares["expert"] > shares["stalled"] > shares["failed"]
    assert np.mean(list(shares.values())) == pytest.approx(1)


def test_labels_say_which_runs_segments_and_frames_count(tmp_path):
    frames = frames_of(["expert", "stalled", "failed"])
    stalled = np.interp(np.arange(40), [0, 10, 30, 39], [0, 0.5, 0.5, 1]).astype(np.float32)
    path = write_progress(tmp_path, [RISE, stalled, 0.1 * RISE], 5, 10)
    kinds = np.repeat(["done", "idle", "done", "failed"], [50, 20, 10, 40])
    runs = [
        WeighedRun("t", np.zeros(40), np.ones(40, bool), has_failed)
        for has_failed in (False, False, True)
    ]
    episodes = [weight_rows(40 * k, k, w) for k, w in enumerate(frame_weights(runs, "combined"))]
    folder = ExportFolder(tmp_path / "weights", "weights", "test")
    write_weights(folder, episodes, "combined", 5)
    files = dict.fromkeys(("published", "labels"), path) | {"weights": folder.root / LEROBOT_FILE}
    weights_by_arm = arm_weights(frames, GROUPS["labelled"], files, 5, kinds)
    by_run = {arm: weights.reshape(3, 40) for arm, weights in weights_by_arm.items()}
    labels = by_run["labels"]
    assert (labels[2, :30] > 0).all()
    for arm in ("labels_success", "labels_unfailed"):
        np.testing.assert_array_equal(by_run[arm], labels * np.array([[1], [1], [0]]))
    assert by_run["segments"].sum(1).tolist() == [40, 20, 0]
    assert by_run["top"][:2, :5].all()
    assert not by_run["top"][1, 11:24].any()
    assert by_run["top"].mean() >= 0.5
    np.testing.assert_allclose(
        by_run["weights"], np.array([[1], [1], [0]]) * (np.arange(40) < 39) / 0.65, rtol=1e-4
    )
    awr = by_run["awr"]
    np.testing.assert_array_equal(by_run["awr_segments"], awr * (kinds == "done").reshape(3, 40))
    np.testing.assert_array_equal(by_run["awr_outcomes"], awr * np.array([[1], [1], [0]]))
    assert awr[0, 0] == awr[0, 9] > awr[2, 0] > 0
    assert awr[1, 0] > awr[0, 0] > awr[1, 15]
    assert not np.array_equal(by_run["labels_far"], labels)


def two_minds() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States with opposite actions; weights that believe the first, the second, or both."""
    rng = np.random.default_rng(0)
    half = rng.normal(size=(300, 2)).astype(np.float32)
    target_actions = (
        np.stack([half[:, 0] > 0, half[:, 1] > 0, half[:, 0] > 1, half[:, 1] > 1], 1) * 1.0 - 0.5
    )
    first = np.repeat([1.0, 0.0], 300)
    weights = np.stack([first, 1 - first, np.ones(600)])
    return np.r_[half, half], np.r_[target_actions, -target_actions].astype(np.float32), weights


def test_a_policy_learns_what_has_weight():
    observations, actions, weights = two_minds()
    policies = clone(
        observations, actions, weights, (0, 1), Cloning(hidden=16, steps=300, batch=64, lr=1e-2)
    )
    actions_by_arm = {
        arm: np.stack(list(map(policies.one(arm, 1).action, observations[:300])))
        for arm in range(3)
    }
    right = np.sign(actions[:300])
    assert (np.sign(actions_by_arm[0]) == right).mean() > 0.9
    assert (np.sign(actions_by_arm[1]) == -right).mean() > 0.9
    # Of two minds, it hardly moves
    assert np.abs(actions_by_arm[2]).mean() < 0.5 * np.abs(actions_by_arm[0]).mean()
    assert policies.losses.shape == (3, 2)
    assert (policies.losses[2] > policies.losses[0]).all()


def test_intervals_hold_the_figure_and_pair_what_is_paired():
    rng = np.random.default_rng(1)
    plain = rng.random((2, 5, 50)) < 0.5
    better = plain | (rng.random((2, 5, 50)) < 0.3)
    rate_intervals = rates({"plain": plain, "better": better, "same": plain.copy()})
    value, low, high = rate_intervals["plain"]
    assert value == pytest.approx(plain.mean())
    assert low < value < high
    above = differences({"plain": plain, "better": better, "same": plain.copy()}, "plain")
    assert above["same"] == (0, 0, 0)
    assert above["better"][1] > 0
    assert above["better"][2] - above["better"][1] < (high - low) + (
        rate_intervals["better"][2] - rate_intervals["better"][1]
    )
    assert rate_intervals == rates({"plain": plain, "better": better, "same": plain.copy()})
    with pytest.raises(ValueError, match="arms of different sizes"):
        rates({"plain": plain, "better": better[:, :, :3]})


def test_few_seeds_make_wide_intervals():
    # A bootstrap over starts alone would call seeds that disagree certain
    success = np.zeros((1, 4, 50), bool)
    success[:, :2] = True
    assert rates({"a": success})["a"] == pytest.approx((0.5, 0.0, 1.0))


def finished(folder: Path) -> Work:
    """A folder as of a short benchmark that has run through."""
    work = Work(folder, SHORT)
    work.keep(folder / "code_versions.json", {"motion": "motion-0"})
    for group, arms in GROUPS.items():
        work.keep(
            folder / "weights" / f"{group}.json",
            {arm: dict.fromkeys(QUALITIES, 1.0) for arm in arms},
        )
    for k, arm in enumerate(ARMS):
        work.keep(
            folder / "rollouts" / "drawer-open" / f"{arm}.json",
            {"success": [[k % 2 == 0, False, True]]},
        )
    run_scores = {
        "success": [[True, False]],
        "progress": [[0.1, 0.9]],
        "done": [[0.9, 0.1]],
        "own": [[5.0, 5.0]],
    }
    work.keep(folder / "best_of" / "drawer-open.json", run_scores)
    tests_after = {"live": [True, True], "own": [True, False], "sparse": [False, False]}
    learnt = {
        name: {"after": tested, "while": [[False, True]]} for name, tested in tests_after.items()
    }
    work.keep(folder / "learned" / "drawer-open" / "0.json", {"before": [False, False], **learnt})
    return work


def test_a_folder_is_reported_and_printed(tmp_path, capsys):
    figures = report(finished(tmp_path).folder, SHORT)
    assert figures["success"]["experts"][0] == pytest.approx(2 / 3, abs=1e-4)
    assert figures["above_nothing"]["experts"][0] == pytest.approx(1 / 3, abs=1e-4)
    best = {name: value for name, (value, _, _) in figures["best_of"]["drawer-open"].items()}
    assert best == {"chance": 0.5, "progress": 0.0, "done": 1.0, "own": 0.5, "success": 1.0}
    assert [figures["learned"]["all"][name][0] for name in ("before", "live", "own", "sparse")] == [
        0,
        1,
        0.5,
        0,
    ]
    assert figures["learned"]["above_sparse"]["live"][0] == 1
    capsys.readouterr()
    print_tables(json.loads(json.dumps(figures)))
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith(f"| {ARMS['experts']} | 66.7 (") and "+33.3" in line for line in lines
    )
    assert f"| {ARMS['weights']} | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 |" in lines


def test_what_needs_no_model_is_reported_beside_former_rows(tmp_path):
    former = json.loads(json.dumps(report(finished(tmp_path / "former").folder, SHORT)))
    folder = finished(tmp_path / "now").folder
    for arm in GROUPS["rewarded"]:
        (folder / "rollouts" / "drawer-open" / f"{arm}.json").unlink()
    Work(folder, SHORT).keep(
        folder / "rollouts" / "drawer-open" / "weights.json", {"success": [[True, True, True]]}
    )
    figures = report_by_labels(folder, SHORT, former)
    assert figures["success"]["weights"][0] == figures["by_task"]["drawer-open"]["weights"] == 1
    assert figures["above_weights"]["nothing"][0] < 0
    for arm in GROUPS["rewarded"]:
        assert figures["success"][arm] == former["success"][arm]
    assert figures["best_of"] == former["best_of"]
    assert figures["code_versions"]["former"] == former["code_versions"] | {
        "arms": list(GROUPS["rewarded"])
    }
