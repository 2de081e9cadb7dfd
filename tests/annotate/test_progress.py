"""Progress labels: the published formula, and our rules on random segmentations."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.content_hash import _former_grippers
from annotate.native import annotate
from annotate.progress import (
    BUDGET_CLIP,
    ProgressConfig,
    budgets,
    nearness,
    procvlm_labels,
    procvlm_progress,
    progress,
    stated_progress,
)
from core.domain.label import DONE, IDLE, STEP, Segment, StatedEnd, check_stated, check_tiling
from ingest.episode import NativeStep
from tests.kits.files import table

CONFIG = ProgressConfig()
FPS = 10.0
FLOOR = CONFIG.noise_floor_per_s / FPS  # change per frame of a still picture


def hashes_of(distances: Sequence[int]) -> np.ndarray:
    hashes = [0x9E3779B97F4A7C15]
    for d in distances:
        hashes.append(hashes[-1] ^ ((1 << d) - 1))
    return np.array(hashes, np.uint64)


LABELS = ["A"] * 4 + ["B"] * 3 + ["C"] * 2
# 33 and 21 lie across a boundary: they must not count
DISTANCES = [4, 8, 0, 33, 16, 0, 21, 12]
GOLDEN = [0, 0, 0.1389, 0.2932, 0.4167, 0.4167, 0.6167, 0.75, 0.75]


def test_golden_table_of_the_published_formula():
    p = procvlm_progress([*LABELS, "done", "done", "done"], hashes_of([*DISTANCES, 40, 3, 0]))
    np.testing.assert_allclose(p, [*GOLDEN, 1, 1, 1], atol=1e-4)
    assert p.dtype == np.float32
    assert p[9] == p[10] == p[11] == 1.0
    # Without done frames it never reaches one
    p = procvlm_progress(LABELS, hashes_of(DISTANCES))
    np.testing.assert_allclose(p, GOLDEN, atol=1e-4)
    assert p.max() == 0.75
    # A single frame counts in the budgets only. K = 3, T = 6: A and C have K x len / T = 1.5 and 1.0, B 0.5; clipped
    # 1.25, 1.0, 0.75, and B earns nothing
    p = procvlm_progress(["A"] * 3 + ["B"] + ["C"] * 2 + ["done"], hashes_of([0, 0, 9, 9, 0, 9]))
    np.testing.assert_allclose(
        p, [0, 0, 0.625 / 2.25, 1.25 / 2.25, 1.25 / 2.25, 1.25 / 2.25, 1], atol=1e-6
    )
    p = procvlm_progress(["A"] * 5 + ["done"], hashes_of([0] * 5))  # a frozen picture is paid
    np.testing.assert_allclose(p, [0, 0, 0.25, 0.5, 0.75, 1], atol=1e-6)


@pytest.mark.parametrize("name", ["done", "Done.", "NOT DONE", "not done.", "", "  "])
def test_published_formula_gives_nothing_to_frames_that_are_no_step(name):
    p = procvlm_progress([name] * 3 + ["A"] * 3, hashes_of([30, 30, 30, 10, 22]))
    # only A counts: 0.5 + 10/64 and 0.5 + 22/64, each one frame late
    np.testing.assert_allclose(p, [0, 0, 0, 0, 0, 0.65625 / 1.5], atol=1e-6)
    assert not procvlm_progress([name] * 4, hashes_of([9, 9, 9])).any()


@pytest.mark.parametrize(("segments", "expected"), table("published_flattening"))
def test_published_flattening(segments, expected):
    our_segments = []
    start = 0
    for name, end, completed in segments:
        step = "ABC".find(name) if name in "ABC" else None
        kind = {"idle": IDLE, "done": DONE}.get(name, "step")
        our_segments.append(Segment(name, start, end, kind, completed, step))
        start = end
    labels = procvlm_labels(our_segments, 2 if segments[-1][0] == "B" else 3, 60)
    cuts = [0, *(i for i in range(1, 60) if labels[i] != labels[i - 1]), 60]
    assert " ".join(f"{labels[a]}{b - a}" for a, b in pairwise(cuts)) == expected


def test_budgets_of_known_lengths():
    # A step that is never attempted counts as a mean one
    low, high = BUDGET_CLIP
    np.testing.assert_allclose(budgets([4, 3, 2]), [high / 3, 1 / 3, low / 3], atol=1e-12)
    np.testing.assert_allclose(
        budgets([10, None, 12]), np.array([10 / 11, 1, 12 / 11]) / 3, atol=1e-12
    )
    np.testing.assert_allclose(budgets([None, None]), [0.5, 0.5])


@given(st.lists(st.one_of(st.none(), st.integers(0, 10_000).map(float)), min_size=1, max_size=12))
def test_budgets_sum_to_one_and_keep_the_clip_ratio(lengths):
    share = budgets(lengths)
    assert abs(share.sum() - 1) < 1e-9
    assert share.max() / share.min() <= BUDGET_CLIP[1] / BUDGET_CLIP[0] + 1e-9


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Segment], int]:
    """Segments that tile a run, and how many steps are planned."""
    planned = draw(st.integers(1, 4))
    segments: list[Segment] = []
    done_steps: set[int] = set()
    start_frame = 0
    for _ in range(draw(st.integers(1, 8))):
        end = start_frame + draw(st.integers(2, 12))
        step = draw(
            st.one_of(
                st.none(), st.integers(0, planned - 1), st.just(min(len(done_steps), planned - 1))
            )
        )
        if step is None:
            rest_kind = DONE if len(done_steps) == planned else IDLE
            segments.append(Segment(rest_kind, start_frame, end, rest_kind, rest_kind == DONE))
        else:
            completed = draw(st.booleans())
            segments.append(
                Segment(f"step {step}", start_frame, end, completed=completed, step=step)
            )
            if step in done_steps:
                done_steps = {k for k in done_steps if k < step}
            if completed:
                done_steps.add(step)
        start_frame = end
    check_tiling(segments, start_frame, planned)
    return segments, planned


def follow(segments: list[Segment], planned: int) -> tuple[set[int], bool]:
    restarts = set()
    complete = [False] * planned
    for s in segments:
        if s.step is None:
            continue
        if complete[s.step]:
            restarts.add(s.start_frame)
            complete[s.step :] = [False] * (planned - s.step)
        complete[s.step] = complete[s.step] or s.completed
    return restarts, all(complete)


changes = st.integers(0, 2**32).map(np.random.default_rng)


@settings(deadline=None)
@given(runs(), changes, st.floats(0, 1))
def test_rules_of_our_label(run, rng, still):
    segments, planned = run
    n = segments[-1].end_frame
    change = rng.uniform(0, 0.05, n) * (rng.random(n) >= still)
    state = rng.uniform(-1, 1, (n, 3)).cumsum(axis=0) * (rng.random(3) < 0.5)
    p = progress(segments, planned, change, FPS, CONFIG, None, state)
    restarts, complete = follow(segments, planned)
    assert p.shape == (n,)
    assert p.dtype == np.float32
    assert p[0] == 0
    assert p.min() >= 0
    assert p.max() <= 1
    assert (p[-1] == 1) == complete
    assert {i for i in range(1, n) if p[i] < p[i - 1] - 1e-6} <= restarts


@settings(deadline=None)
@given(runs(), changes)
def test_our_label_falls_where_a_step_is_begun_again(run, rng):
    segments, planned = run
    n = segments[-1].end_frame
    change = rng.uniform(2, 20, n) * FLOOR
    restarts, _ = follow(segments, planned)
    p = progress(segments, planned, change, FPS, CONFIG)
    assert {i for i in range(1, n) if p[i] < p[i - 1] - 1e-6} == restarts
    frozen = [s for s in segments if s.step is not None and not s.completed]
    for s in frozen:
        # Noise, up to the floor
        change[s.start_frame : s.end_frame] = rng.uniform(0, 1, len(s)) * FLOOR
    p = progress(segments, planned, change, FPS, CONFIG)
    for s in frozen:
        assert np.ptp(p[s.start_frame : s.end_frame]) <= 1e-6
        if s.start_frame and s.start_frame not in restarts:
            assert abs(p[s.start_frame] - p[s.start_frame - 1]) <= 1e-6


@st.composite
def motions(draw: st.DrawFn) -> tuple[list[tuple[int, int | None, bool]], int, list[float]]:
    """Spans (tenths of a second, step, completed), planned steps, change in each tenth."""
    planned = draw(st.integers(1, 3))
    spans = draw(
        st.lists(
            st.tuples(
                st.integers(3, 12), st.one_of(st.none(), st.integers(0, planned - 1)), st.booleans()
            ),
            min_size=1,
            max_size=5,
        )
    )
    tenths = sum(s[0] for s in spans)
    # Either side of the noise floor
    rate = st.one_of(st.just(0.0), st.integers(1, 50).map(lambda k: k / 100))
    return spans, planned, draw(st.lists(rate, min_size=tenths, max_size=tenths))


@settings(deadline=None)
@given(motions())
def test_our_label_does_not_depend_on_the_frame_rate(motion):
    spans, planned, rates = motion
    labels = {}
    for fps in (10, 20, 30):
        per_tenth = fps // 10
        # frame i owns the time from (i - 1) / fps to i / fps, so a span that begins at t owns frames from t * fps + 1
        change = np.r_[0.0, np.repeat(np.array(rates) / fps, per_tenth)]
        state = change.cumsum()[:, None] * [0.3, -0.4]
        segments = []
        start_frame = 0
        for tenths, step, completed in spans:
            end = start_frame + tenths * per_tenth + (start_frame == 0)
            segments.append(
                Segment("", start_frame, end, "step" if step is not None else IDLE, completed, step)
            )
            start_frame = end
        p = progress(segments, planned, change, fps, CONFIG, None, state)
        labels[fps] = p[::per_tenth]
    np.testing.assert_allclose(labels[20], labels[10], atol=1e-5)
    np.testing.assert_allclose(labels[30], labels[10], atol=1e-5)


def test_how_near_an_arm_is_counts_as_much_as_its_way_is_straight():
    positions = np.array([0.0, 6, 8, 9, 10])[:, None] * [0.6, 0.8]
    near, straight = nearness(positions, fps=10)
    np.testing.assert_allclose(near, [0, 0.6, 0.8, 0.9, 1], atol=1e-12)
    assert straight == pytest.approx(1)
    # five there, back again, five there: a third of the way is straight; it does not fall on the way back
    near, straight = nearness(np.array([0.0, 5, 2.5, 0, 5])[:, None], fps=5)
    np.testing.assert_allclose(near, [0, 1, 1, 1, 1], atol=1e-12)
    assert straight == pytest.approx(1 / 3)
    assert nearness(np.array([[0.0], [5], [0]]), fps=5)[1] == 0


def test_an_arm_that_trembles_goes_no_farther():
    rng = np.random.default_rng(0)
    way = np.linspace(0, 1, 101)[:, None] * [3.0, 4.0]
    # At 50 frames a second: a way of 0.5 between points
    trembling = way + rng.normal(0, 0.05, way.shape)
    assert nearness(way, fps=50)[1] == pytest.approx(1)
    assert nearness(trembling, fps=50)[1] > 0.9
    assert np.linalg.norm(np.diff(trembling, axis=0), axis=1).sum() > 1.5 * 5


def test_a_step_is_done_as_far_as_the_arm_is_near_its_end():
    state = np.array([0, 0, 6, 6, 8, 9, 10, 10, 11, 14, 18])[:, None] * [1.0, 0]
    segments = [Segment("A", 0, 7, step=0), Segment("B", 7, 11, step=1)]
    p = progress(segments, 2, steady(11), FPS, CONFIG, None, state)
    share = budgets([6, 4])
    np.testing.assert_allclose(p[1:7] / share[0], [0, 0.6, 0.6, 0.8, 0.9, 1], atol=1e-6)
    np.testing.assert_allclose((p[7:] - share[0]) / share[1], [0, 1 / 8, 4 / 8, 1], atol=1e-6)


def steady(n: int) -> np.ndarray:
    return np.full(n, 11 * FLOOR)


def test_frame_i_owns_the_change_between_frames_i_minus_1_and_i():
    change = np.array([9, 1, 3, 0, 2, 2, 0]) * 10 * FLOOR + FLOOR
    segments = [Segment("A", 0, 4, step=0), Segment("B", 4, 7, step=1)]
    p = progress(segments, 2, change, FPS, CONFIG)
    # both have three frame intervals; half of a step by the change above the floor, half by the frames that have any
    np.testing.assert_allclose(p, [0, 0.1875, 0.5, 0.5, 0.75, 1, 1], atol=1e-6)


def test_an_unfinished_run_stops_at_its_completed_share():
    segments = [
        Segment("A", 0, 11, step=0),
        Segment("B", 11, 21, completed=False, step=1),
        Segment("i", 21, 30, IDLE),
    ]
    p = progress(segments, 3, steady(30), FPS, CONFIG)
    np.testing.assert_allclose(
        p[[10, 20, 29]], [1 / 3, 1 / 3 + CONFIG.incomplete_share / 3, 0.5], atol=1e-6
    )
    p = progress(segments, 3, steady(30), FPS, ProgressConfig(incomplete_share=0.0))
    np.testing.assert_allclose(p[[10, 20, 29]], [1 / 3] * 3, atol=1e-6)


@pytest.mark.parametrize("end", [0.0, 0.2, 0.4, 0.6, 0.66, 0.9])
def test_a_known_end_is_met_as_far_as_the_last_attempts_budget_allows(end):
    segments = [Segment("A", 0, 10, step=0), Segment("B", 10, 30, completed=False, step=1)]
    p = progress(segments, 3, steady(30), FPS, CONFIG, end)
    assert p[9] == pytest.approx(1 / 3, abs=0.01)
    assert p[-1] == pytest.approx(min(max(end, 1 / 3), 1 / 3 + 0.95 / 3), abs=0.01)
    assert (np.diff(p) >= 0).all()
    segments = [Segment("A", 0, 30, step=0)]  # of a run that finished it says nothing
    np.testing.assert_array_equal(
        progress(segments, 1, steady(30), FPS, CONFIG, end),
        progress(segments, 1, steady(30), FPS, CONFIG),
    )


def test_a_retry_goes_on_and_a_step_without_motion_fills_evenly():
    segments = [Segment("A", 0, 11, completed=False, step=0), Segment("A", 11, 21, step=0)]
    p = progress(segments, 1, steady(21), FPS, CONFIG)
    np.testing.assert_allclose(p[[5, 10, 11, 15, 20]], [0.25, 0.5, 0.55, 0.75, 1], atol=1e-6)
    p = progress([Segment("A", 0, 5, step=0)], 1, np.full(5, FLOOR), FPS, CONFIG)
    np.testing.assert_allclose(p, [0, 0.25, 0.5, 0.75, 1], atol=1e-6)


def test_doing_a_step_again_undoes_it_and_later_ones_but_nothing_before():
    segments = [
        Segment("A", 0, 11, completed=False, step=0),  # earns half of its third
        Segment("B", 11, 21, step=1),
        Segment("C", 21, 31, completed=False, step=2),  # and so does C
        Segment("B", 31, 41, step=1),
    ]
    p = progress(segments, 3, steady(41), FPS, CONFIG)
    np.testing.assert_allclose(p[[10, 20, 30, 31, 40]] * 6, [1, 3, 4, 1.2, 3], atol=1e-5)


def test_without_paces_the_ordinary_curve_is_stretched():
    segments = [Segment("A", 0, 3, step=0), Segment("B", 3, 6, completed=False, step=1)]
    ordinary = np.array([0, 0.2, 0.5, 0.5, 0.6, 0.75], np.float32)
    np.testing.assert_allclose(
        stated_progress(segments, ordinary, StatedEnd(0.6)), ordinary * 0.8, atol=1e-6
    )
    curve_without = stated_progress(segments, ordinary, StatedEnd(None, 4))
    np.testing.assert_allclose(curve_without, [0, 0.2, 0.5, 0.5, 0, 0], atol=1e-6)
    # An arm that was not seen to move came somewhere all the same, if a person says so
    np.testing.assert_allclose(
        stated_progress(segments, np.zeros(6), StatedEnd(0.5)), np.linspace(0, 0.5, 6), atol=1e-6
    )


def test_more_falls_than_rises_are_refused():
    spans = ((0, 2, "slow"), (2, 11, "mistake"))
    with pytest.raises(ValueError, match="fall by more than they rise"):
        check_stated(
            [Segment("Fold", a, b, STEP, False, 0, pace=pace) for a, b, pace in spans],
            1,
            StatedEnd(0.2),
        )


@pytest.mark.parametrize(
    "steps",
    [
        [NativeStep("a", 0, 10), NativeStep("b", 9, 20)],  # overlap
        [NativeStep("a", 10, 20), NativeStep("b", 0, 10)],  # backwards
        [NativeStep("a", 5, 5)],
        [NativeStep("a", 8, 5)],
        [NativeStep("a", -1, 5)],
        [NativeStep("a", 30, 40)],  # behind the last frame
    ],
)
def test_spans_that_cannot_be(steps):
    with pytest.raises(ValueError, match=r"^step \d \('[ab]'\) covers frames"):
        annotate(steps, 30, None)


@pytest.mark.parametrize(
    ("names", "grippers_now", "width", "choices"),
    [
        (["arm_0", "gripper_0", "gripper_1"], [], 3, {(1, 2), (1,), (2,)}),
        (
            ["left_arm", "left_gripper", "right_arm", "right_gripper"],
            [(1,), (3,)],
            4,
            {(1, 3), (1,), (3,)},
        ),
        ([], [(2, 3)], 5, {(2, 3), (2,), (4,)}),
        # What lies beyond the vector is none of its dimensions
        (["gripper"], [(7,)], 1, {(0,)}),
    ],
)
def test_former_grippers(names, grippers_now, width, choices):
    assert _former_grippers(names, grippers_now, width) == choices
