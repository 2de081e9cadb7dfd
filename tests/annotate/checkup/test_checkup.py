"""The checkup on made-up runs: each fault is named with its run and stretch, and no other."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from annotate.checkup.checks import Checkup
from annotate.checkup.comparer import Measurement
from annotate.checkup.comparer import faults as beyond_limits
from annotate.checkup.comparisons import medians_of_others
from annotate.checkup.single_runs import CameraSignals, RunSignals, frozen_stretches
from annotate.spans import stretches
from ingest.episode import Finding, StoredStatistics, joined_findings
from tests.kits.signal_kit import signal_at

FPS = 10.0
FRAMES = 200
RUNS = 12
GRIPPER = signal_at(3, names=("grip",), unit="0..1")
GRIPPER_MOVES = (60, 140)


def made_up_run(episode: int, task: str = "put the cup away") -> RunSignals:
    random = np.random.default_rng(episode)
    steps = random.normal(0, 1, (FRAMES, 3))
    moves = np.sin(np.arange(FRAMES) / 9 + episode) > -0.3
    moves[:5] = moves[-8:] = False
    speed = np.where(moves, 0.5 + random.random(FRAMES), 0.0)
    directions = np.cumsum(steps, axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    arm = np.cumsum(directions * speed[:, None] * 0.01, axis=0)
    opening = np.ones(FRAMES)
    opening[GRIPPER_MOVES[0] : GRIPPER_MOVES[1]] = 0.0
    action = np.column_stack([np.diff(arm, axis=0, append=arm[-1:]) * 20, opening])
    change = 0.02 * speed + np.abs(np.diff(opening, prepend=1.0)) * 0.01
    cameras = [
        _camera(name, change * size, random) for name, size in (("front", 1.0), ("wrist", 1.6))
    ]
    return RunSignals(
        episode,
        FPS,
        task,
        True,
        np.arange(FRAMES) / FPS,
        np.column_stack([arm, opening]),
        action,
        ("x", "y", "z", "grip"),
        ("dx", "dy", "dz", "grip"),
        (GRIPPER,),
        (opening,),
        cameras,
    )


def _camera(name: str, change: np.ndarray, random: np.random.Generator) -> CameraSignals:
    scene = np.full((16, 16), 90.0)
    scene[::2] += 40
    tiny = np.clip(scene + random.normal(0, 4, (FRAMES // 2, 16, 16)), 0, 255).astype(np.uint8)
    phash = random.integers(0, 2**63, FRAMES).astype(np.uint64)
    return CameraSignals(
        camera=name,
        change=change.astype(np.float32),
        luma_mean=np.full(FRAMES, 0.4, np.float32),
        sharpness=random.normal(-0.5, 0.02, FRAMES).astype(np.float32),
        is_black=np.zeros(FRAMES, bool),
        luma_span=200,
        phash=phash,
        tiny=tiny,
        sha256=random.bytes(32),
    )


@pytest.fixture(scope="module")
def runs() -> list[RunSignals]:
    return [made_up_run(episode) for episode in range(RUNS)]


def faults(runs: Sequence[RunSignals]) -> list[Finding]:
    checkup = Checkup("made_up")
    for run in runs:
        checkup.add(run)
    return checkup.faults()


def with_camera(run: RunSignals, number: int, **changes: np.ndarray) -> RunSignals:
    cameras = list(run.cameras)
    cameras[number] = replace(cameras[number], **changes)
    return replace(run, cameras=cameras)


def overwritten(values: np.ndarray, start: int, end: int, value) -> np.ndarray:
    changed = values.copy()
    changed[start:end] = value
    return changed


def later(values: np.ndarray, frames: int) -> np.ndarray:
    return np.concatenate([np.repeat(values[:1], frames, axis=0), values[:-frames]])


def frozen(run: RunSignals) -> RunSignals:
    return with_camera(run, 0, change=overwritten(run.cameras[0].change, 40, 100, 0.0))


def black(run: RunSignals) -> RunSignals:
    return with_camera(run, 1, is_black=overwritten(run.cameras[1].is_black, 30, 45, True))


def cut(run: RunSignals) -> RunSignals:
    return with_camera(run, 0, change=overwritten(run.cameras[0].change, 77, 78, 0.4))


def blurred(run: RunSignals) -> RunSignals:
    sharpness = run.cameras[0].sharpness - np.where(np.arange(FRAMES) < 77, 0, 0.5)
    return with_camera(run, 0, sharpness=sharpness)


def late(run: RunSignals) -> RunSignals:
    return replace(run, state=later(run.state, 5), openings=(run.state[:, 3],))


def jumping(run: RunSignals) -> RunSignals:
    state = np.array(run.state)
    state[90, 1] += 0.4
    return replace(run, state=state)


def stuck(run: RunSignals) -> RunSignals:
    state = np.array(run.state)
    state[100:160] = state[100]
    return replace(run, state=state)


def dropped(run: RunSignals) -> RunSignals:
    times = np.arange(FRAMES) / FPS
    times[50:] += 0.3
    times[120:] += 0.4
    return replace(run, times_s=times)


def clipped(run: RunSignals) -> RunSignals:
    action = np.array(run.action)
    action[:, :3] = np.clip(action[:, :3], -0.04, 0.04)
    return replace(run, action=action)


def dead(run: RunSignals) -> RunSignals:
    return replace(run, state=np.where(np.arange(4) == 1, 0.1, np.array(run.state)))


def in_degrees(run: RunSignals) -> RunSignals:
    return replace(run, state=np.array(run.state) * [57.3, 57.3, 57.3, 1.0])


def never_closing(run: RunSignals) -> RunSignals:
    state = np.array(run.state)
    state[:, 3] = 1.0
    return replace(run, state=state, openings=(state[:, 3],))


def idle_at_the_end(run: RunSignals) -> RunSignals:
    num_idle = 80
    rows = {"state": np.array(run.state), "action": np.array(run.action)}
    longer = {
        name: np.concatenate([values, np.repeat(values[-1:], num_idle, axis=0)])
        for name, values in rows.items()
    }
    cameras = [
        replace(
            camera,
            change=np.r_[camera.change, np.zeros(num_idle, np.float32)],
            luma_mean=np.r_[camera.luma_mean, np.repeat(camera.luma_mean[-1:], num_idle)],
            sharpness=np.r_[camera.sharpness, np.repeat(camera.sharpness[-1:], num_idle)],
            is_black=np.r_[camera.is_black, np.zeros(num_idle, bool)],
            phash=np.r_[camera.phash, np.repeat(camera.phash[-1:], num_idle)],
            tiny=np.concatenate([camera.tiny, np.repeat(camera.tiny[-1:], num_idle // 2, axis=0)]),
        )
        for camera in run.cameras
    ]
    openings = (longer["state"][:, 3],)
    times = np.arange(FRAMES + num_idle) / FPS
    return replace(run, **longer, openings=openings, cameras=cameras, times_s=times)


def moved_camera(run: RunSignals) -> RunSignals:
    return with_camera(run, 0, tiny=np.roll(run.cameras[0].tiny, 1, axis=1))


def with_stale_statistics(run: RunSignals) -> RunSignals:
    state = np.array(run.state)
    high = state.max(axis=0) - [0.2, 0, 0, 0]
    numbers = (state.min(axis=0), high, state.mean(axis=0), state.std(axis=0))
    stored = StoredStatistics("state", "meta/stats.json", *numbers, False)
    return replace(run, statistics=(stored,))


def with_other_sign(run: RunSignals) -> RunSignals:
    return replace(run, action=np.array(run.action) * [1, -1, 1, 1])


FAULTS: dict[str, tuple[Callable[[RunSignals], RunSignals], tuple[int, int], str]] = {
    "camera_frozen": (frozen, (40, 100), "front"),
    "camera_black": (black, (30, 45), "wrist"),
    "camera_jumps": (cut, (77, 78), "front"),
    "camera_jumps: focus": (blurred, (77, 78), "front"),
    "rows_late": (late, (0, FRAMES), ""),
    "state_jumps": (jumping, (90, 91), ""),
    "state_stuck": (stuck, (101, 160), ""),
    "frames_missing": (dropped, (49, 121), ""),
    "action_clipped": (clipped, (0, FRAMES), ""),
    "dead_dimension": (dead, (0, FRAMES), ""),
    "other_scale": (in_degrees, (0, FRAMES), ""),
    "other_scale: sign": (with_other_sign, (0, FRAMES), ""),
    "gripper_stays": (never_closing, (0, FRAMES), ""),
    "idle_end": (idle_at_the_end, (192, 280), ""),
    "camera_moved": (moved_camera, (0, FRAMES), "front"),
    "stale_statistics": (with_stale_statistics, (0, FRAMES), ""),
}


def test_what_is_usual_is_no_fault(runs):
    run = runs[4]
    times = np.arange(FRAMES) / FPS
    times[[20, 60, 61, 100, 150, 151]] += 0.09
    sharpness = run.cameras[0].sharpness + np.where(np.arange(FRAMES) % 40 < 20, 0, 0.5)
    late_stamps = replace(run, times_s=times)
    failed = replace(never_closing(run), success=False)
    for usual_run in (run, late_stamps, failed, with_camera(run, 0, sharpness=sharpness)):
        assert faults([*runs[:4], usual_run, *runs[5:]]) == []


@pytest.mark.parametrize("check_name", FAULTS)
def test_a_fault_is_named(check_name, runs):
    spoil, (start, end), camera = FAULTS[check_name]
    spoilt = [*runs[:4], spoil(runs[4]), *runs[5:]]
    run_faults = faults(spoilt)
    assert {fault.reason for fault in run_faults} == {check_name.split(":")[0]}
    assert {fault.episode_index for fault in run_faults} == {4}
    assert {fault.camera or "" for fault in run_faults} == {camera}
    assert max(abs(run_faults[0].start_frame - start), abs(run_faults[-1].end_frame - end)) <= 3


def test_rows_that_are_late_in_all_runs_are_told(runs):
    for frames in (3, 5, 10):
        run_faults = faults(
            [replace(run, state=later(np.array(run.state), frames)) for run in runs]
        )
        rows = [
            fault for fault in run_faults if fault.signal == "state" and fault.reason == "rows_late"
        ]
        assert {fault.episode_index for fault in rows} == set(range(RUNS))
        assert {round(fault.measured) - frames for fault in rows} <= {-1, 0, 1}
    early = faults([replace(run, state=later(np.array(run.state)[::-1], 5)[::-1]) for run in runs])
    assert {-6, -5, -4} & {round(fault.measured) for fault in early if fault.reason == "rows_late"}


@pytest.mark.parametrize("frames", [-10, -5, -3, 3, 5, 10])
def test_rows_of_one_run_are_late(runs, frames):
    state = np.array(runs[4].state)
    later_rows = later(state, frames) if frames > 0 else later(state[::-1], -frames)[::-1]
    (fault,) = faults([*runs[:4], replace(runs[4], state=later_rows), *runs[5:]])
    assert (fault.reason, fault.episode_index, fault.measured) == ("rows_late", 4, frames)


def first_frames(run: RunSignals, num_frames: int) -> RunSignals:
    cameras: list[CameraSignals] = []
    for camera in run.cameras:
        names = ("change", "luma_mean", "sharpness", "is_black", "phash")
        first = {name: getattr(camera, name)[:num_frames] for name in names}
        cameras.append(replace(camera, **first, tiny=camera.tiny[: num_frames // 2]))
    return replace(
        run,
        times_s=run.times_s[:num_frames],
        state=np.array(run.state)[:num_frames],
        action=np.array(run.action)[:num_frames],
        openings=(run.openings[0][:num_frames],),
        cameras=cameras,
    )


def test_a_short_run_has_no_lag_beyond_its_rows(runs):
    all_late = [replace(run, state=later(np.array(run.state), 13)) for run in runs]
    short = first_frames(all_late[4], 42)
    details = [fault.detail for fault in faults([*all_late[:4], short, *all_late[5:]])]
    assert not [detail for detail in details if "those of the other runs" in detail]


def test_rows_are_not_late_where_pictures_do_not_tell(runs):
    shaken = [with_even_change(run) for run in runs]
    late_run = replace(shaken[4], state=later(np.array(runs[4].state), 5))
    assert faults([*shaken[:4], late_run, *shaken[5:]]) == []


def with_even_change(run: RunSignals) -> RunSignals:
    """The run with pictures that change all the time."""
    for number in range(len(run.cameras)):
        noise = np.random.default_rng(run.episode_index + 100 * number).normal(0, 0.001, FRAMES)
        run = with_camera(run, number, change=(0.02 + noise).astype(np.float32))
    return run


def test_a_copy_names_its_run_and_what_is_equal(runs):
    copy = replace(runs[2], episode_index=RUNS)
    (exact,) = faults([*runs, copy])
    assert (exact.reason, exact.episode_index, exact.other) == ("copy", RUNS, ("made_up", 2))
    assert "rows and pictures are equal" in exact.detail
    noise = np.random.default_rng(0).normal(0, 1e-4, (FRAMES, 4)) * [1, 1, 1, 0]
    (near,) = faults([*runs, replace(copy, state=np.array(copy.state) + noise)])
    assert near.other == ("made_up", 2)
    assert "standard deviations apart, the pictures are equal" in near.detail
    other_cameras = made_up_run(99).cameras
    (rows_alone,) = faults([*runs, replace(copy, cameras=other_cameras)])
    assert "the pictures differ" in rows_alone.detail


def test_pictures_of_another_run_are_told(runs):
    for wrong, right in ((7, 3), (3, 7)):
        spoilt = [
            replace(run, cameras=runs[right].cameras) if k == wrong else run
            for k, run in enumerate(runs)
        ]
        foreign = [fault for fault in faults(spoilt) if fault.reason == "other_pictures"]
        assert [(fault.episode_index, fault.other) for fault in foreign] == [
            (wrong, ("made_up", right))
        ]


def test_a_text_is_held_against_runs_of_other_texts():
    def drawn(episode: int, task: str) -> RunSignals:
        run = made_up_run(episode, task)
        darkness = 3 if task == "open the drawer" else 1
        cameras = [replace(camera, tiny=camera.tiny // darkness) for camera in run.cameras]
        return replace(run, cameras=cameras)

    tasks = ["put the cup away"] * 6 + ["open the drawer"] * 6
    runs = [drawn(k, task) for k, task in enumerate(tasks)]
    assert [f for f in faults(runs) if f.reason == "text_differs"] == []
    runs[2] = replace(runs[2], task="open the drawer")
    (fault,) = [f for f in faults(runs) if f.reason == "text_differs"]
    assert (fault.episode_index, fault.signal) == (2, "text")
    assert '"put the cup away"' in fault.detail


def test_a_camera_that_is_black_has_not_moved(runs):
    camera = runs[4].cameras[0]
    dark = overwritten(camera.tiny, 20, 80, 10)
    is_black = overwritten(camera.is_black, 40, 160, True)
    spoilt = [*runs[:4], with_camera(runs[4], 0, tiny=dark, is_black=is_black), *runs[5:]]
    assert [fault.reason for fault in faults(spoilt)] == ["camera_black"]


def test_a_sign_that_is_other_in_all_runs_is_told(runs):
    turned = faults([with_other_sign(run) for run in runs])
    assert {(fault.reason, fault.signal) for fault in turned} == {("other_scale", "state[1] y")}
    assert [fault.episode_index for fault in turned] == list(range(RUNS))
    # All joints against all actions is a convention
    assert faults([replace(run, action=-np.array(run.action)) for run in runs]) == []


def test_a_success_that_ends_like_earlier_pictures(runs):
    def lit(run: RunSignals, share: float = 1.0, *, success: bool | None = True) -> RunSignals:
        light = np.linspace(0, 80 * share, FRAMES // 2)[:, None, None]
        cameras = [replace(c, tiny=(c.tiny + light).astype(np.uint8)) for c in run.cameras]
        return replace(run, cameras=cameras, success=success)

    def told(changed: RunSignals) -> list[tuple[str, int | None, int]]:
        other_runs = [lit(run) for run in runs if run.episode_index != 4]
        return [
            (fault.reason, fault.episode_index, fault.start_frame)
            for fault in faults([*other_runs, changed])
            if fault.reason == "outcome_differs"
        ]

    assert told(lit(runs[4])) == []
    assert told(lit(runs[4], 0.5)) == [("outcome_differs", 4, FRAMES - 1)]
    # Of one that failed, or of which nothing is said, nothing is contradicted
    assert told(lit(runs[4], 0.5, success=False)) == told(lit(runs[4], 0.5, success=None)) == []


def test_faults_do_not_depend_on_the_order_of_runs(runs):
    spoilt = [frozen(runs[0]), black(runs[1]), *runs[2:]]
    assert faults(spoilt) == faults(spoilt[::-1])
    checkup = Checkup("made_up")
    for run in spoilt:
        checkup.add(run)
    assert {fault.episode_index for fault in checkup.without([0]).faults()} == {1}


def test_a_finding_names_the_longest_stretches(runs):
    run = runs[0]
    is_black = run.cameras[0].is_black
    for start, end in ((10, 20), (40, 52), (70, 76), (100, 130)):
        is_black = overwritten(is_black, start, end, True)
    run_faults = faults([with_camera(run, 0, is_black=is_black), *runs[1:]])
    (finding,) = joined_findings(run_faults)
    assert (finding.reason, finding.episode_index, finding.camera) == ("camera_black", 0, "front")
    assert finding.detail.endswith("and 1 more")
    assert "from 7.0 s" not in finding.detail
    assert [stretch["start_frame"] for stretch in finding.stretches] == [10, 40, 70, 100]


@pytest.mark.parametrize(
    ("seconds", "usual_s", "is_named"),
    [(3.0, 0.5, True), (2.9, 0.5, False), (3.6, 1.7, False), (3.8, 1.7, True), (5.9, 3.0, False)],
)
def test_a_number_is_a_fault_by_its_limit(runs, seconds, usual_s, is_named):
    words = {"side": "last", "others": "the other runs"}
    idle = Measurement("idle_end", runs[0], seconds, usual_s, (10, 50), signal="end", words=words)
    found = [(f.reason, f.start_frame, f.measured, f.usual) for f in beyond_limits([idle])]
    assert found == ([("idle_end", 10, seconds, usual_s)] if is_named else [])


def test_stretches_are_half_open():
    holds = np.array([1, 1, 0, 1, 1, 1, 0, 1], bool)
    assert stretches(holds, 2) == [(0, 2), (3, 6)]


@pytest.mark.parametrize(("starts", "num_named"), [((20, 80, 140), 0), ((20, 65, 165), 3)])
def test_a_place_that_the_camera_does_not_see(starts, num_named):
    run = made_up_run(0)
    turns = np.arange(FRAMES) * 2 * np.pi / 60
    state = np.c_[np.cos(turns), np.sin(turns), np.cos(2 * turns), np.ones(FRAMES)]
    change = np.full(FRAMES, 0.02)
    for start in starts:
        change = overwritten(change, start, start + 16, 0.0)
    spoilt = with_camera(replace(run, state=state), 0, change=change)
    found = beyond_limits(frozen_stretches(spoilt))
    front_findings = [finding for finding in found if finding.camera == "front"]
    assert len(front_findings) == num_named


@pytest.mark.parametrize("num_rows", [2, 3, 4, 7])
def test_a_median_of_others_leaves_one_row_out(num_rows):
    values = np.random.default_rng(num_rows).integers(0, 4, (num_rows, 5)).astype(float)
    expected = [np.median(np.delete(values, k, axis=0), axis=0) for k in range(num_rows)]
    assert medians_of_others(values).tolist() == np.stack(expected).tolist()
