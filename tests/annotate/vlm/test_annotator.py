import asyncio
import re
from dataclasses import replace
from itertools import pairwise

import cv2
import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotate.model_client.calls import Image, Request, VlmError
from annotate.segments import Segment, check_tiling, finished
from annotate.vlm import annotate_episode
from annotate.vlm.config import VlmConfig
from annotate.vlm.reason import reason_episode
from ingest.media.video import VideoError
from tests.kits.vlm_episodes import (
    NAMES,
    PLAN,
    Loader,
    Model,
    frames_shown,
    ignorant,
    knowing,
    question,
    view_of,
)

CONFIG = VlmConfig()
# Grasps at the second try, rests, moves, places, and is done
TRUTH = [
    (0, "1", False),
    (47, "1", True),
    (101, "idle", True),
    (152, "2", True),
    (199, "3", True),
    (263, "done", True),
]


def run(view, model, config=CONFIG):
    return asyncio.run(annotate_episode(view, model, config))


def reason(view, segments, model, config=CONFIG, num_planned=3):
    return asyncio.run(reason_episode(view, segments, num_planned, model, config))


def texts_of(request: Request):
    return {k: f"Text {k}" for k in request.schema["properties"]}


def test_all_stages_with_failure_retry_idle_and_done():
    model = knowing(TRUTH)
    label = run(view_of(), model)
    assert label.segments == [
        Segment(NAMES[0], 0, 47, "step", False, 0, 0.5),
        Segment(NAMES[0], 47, 101, "step", True, 0, 0.5),
        Segment("Idle", 101, 152, "idle", False, None, 0.5),
        Segment(NAMES[1], 152, 199, "step", True, 1, 0.5),
        Segment(NAMES[2], 199, 263, "step", True, 2, 0.5),
        Segment("Done", 263, 300, "done", True, None, 0.5),
    ]
    assert (label.num_planned, label.task, label.task_inferred) == (3, "Put the red cup on the plate", False)
    assert (label.needs_review, label.notes) == (False, [])
    assert [len(model.of(s)) for s in ("plan", "segment", "refine", "verify")] == [1, 1, 2 * 5, 1]


def test_the_stages_of_an_episode_begin_with_the_same_bytes():
    model = knowing(TRUTH, reason=texts_of)
    view = view_of()
    label = run(view, model)
    reason(view, label.segments, model)
    alike = [r for r in model.requests if r.stage != "refine"]
    assert [r.stage for r in alike] == ["plan", "segment", "verify", "reason"]
    assert len({(r.system, r.content[:-1]) for r in alike}) == 1
    assert frames_shown(alike[0]) == [*range(0, 300, 30), 299]
    assert {r.system for r in model.requests} == {alike[0].system}


def test_pictures_are_loaded_once_per_round():
    view = view_of()
    run(view, knowing(TRUTH))
    coarse, first, second = view.load.calls  # the loader refuses two calls at once
    assert coarse == [*range(0, 300, 30), 299]
    assert len(first) <= 5 * 8
    assert len(second) <= 5 * 8


@st.composite
def truths(draw):
    """Activities that each cover at least one keyframe of their own."""
    every = draw(st.integers(1, 40))
    count = draw(st.integers(9, 60))
    marks = sorted(draw(st.sets(st.integers(1, count - 1), min_size=1, max_size=10)))
    labels = [draw(st.sampled_from(["1", "2", "3", "idle", "done"]))]
    for _ in marks:  # one boundary at most between two keyframes; idle does not follow idle
        before = labels[-1]
        labels.append(draw(st.sampled_from([x for x in ("1", "2", "3", "idle", "done") if x != before or x.isdigit()])))
    starts = [0, *(draw(st.integers((m - 1) * every + 1, m * every)) for m in marks)]
    return every, (count - 1) * every + 1, [(s, x, draw(st.booleans())) for s, x in zip(starts, labels, strict=True)]


@settings(max_examples=40, deadline=None)
@given(truths(), st.integers(3, 12))
def test_boundaries_are_exact_to_the_frame(truth, refine_images):
    every, num_frames, activities = truth
    view = view_of(num_frames=num_frames, every=every)
    label = run(view, knowing(activities), VlmConfig(refine_images=refine_images, max_images=60, verify=False))
    assert [s.start_frame for s in label.segments] == [t[0] for t in activities]


def test_without_refinement_a_boundary_is_at_a_keyframe():
    label = run(view_of(), knowing(TRUTH), VlmConfig(refine=False))
    assert [s.start_frame for s in label.segments] == [0, 60, 120, 180, 210, 270]


def test_a_missing_task_is_inferred_and_marked():
    for task in (None, "", " \n"):
        model = knowing(TRUTH, plan=PLAN | {"task": "Put the  cup\ndown"})
        label = run(view_of(task=task), model)
        assert (label.task, label.task_inferred) == ("Put the cup down", True)
        assert "task" in model.of("plan")[0].schema["required"]
    model = knowing(TRUTH)
    run(view_of(), model)
    assert "task" not in model.of("plan")[0].schema["properties"]


def test_a_step_planned_twice_in_a_row_is_one_and_noted():
    steps = [PLAN["steps"][k] for k in (0, 0, 1, 0)]
    label = run(view_of(), knowing([(0, "1", True), (99, "2", True)], plan=PLAN | {"steps": steps}))
    assert label.num_planned == 3
    assert label.notes == ["plan: 'Grasp the red cup' told twice in a row: merged"]


def test_the_vocabulary_and_the_bound_of_the_plan_are_the_configurations():
    model = knowing(TRUTH)
    run(view_of(), model, VlmConfig(vocabulary=("Grasp", "Hide"), max_steps=5))
    schema = model.of("plan")[0].schema["properties"]["steps"]
    assert schema["items"]["properties"]["verb"]["enum"] == ["Grasp", "Hide"]
    assert (schema["minItems"], schema["maxItems"]) == (2, 5)
    assert '"verb" is one of "Grasp", "Hide".' in question(model.of("plan")[0])
    assert "From 2 to 5 steps" in question(model.of("plan")[0])


def verdicts(*completed):
    return {f"attempt_{k}": {"criterion": "x", "evidence": "x", "completed": c} for k, c in enumerate(completed, 1)}


def test_verification_decides_what_is_completed():
    model = knowing(TRUTH, verify=verdicts(False, True, True, False))
    label = run(view_of(), model)
    assert [(s.kind, s.completed) for s in label.segments] == [
        ("step", False),
        ("step", True),
        ("idle", False),
        ("step", True),
        ("step", False),
        ("idle", False),  # there is no done while a step is left
    ]
    assert [s.notes for s in label.segments[-2:]] == [
        "seen as completed before it was verified",
        "told done, but steps are left",
    ]
    assert not finished(label.segments, label.num_planned)


def test_words_decide_nothing():
    said = {"criterion": "No, not completed", "evidence": "The task failed: not done", "completed": True}
    model = knowing(TRUTH, verify={f"attempt_{k}": said for k in range(1, 5)})
    assert finished(run(view_of(), model).segments, 3)


def test_without_verification_the_outcomes_count():
    model = knowing(TRUTH)
    label = run(view_of(), model, VlmConfig(verify=False))
    assert [s.completed for s in label.segments] == [False, True, False, True, True, True]
    assert model.of("verify") == []


def test_a_failure_that_the_dataset_states_overrules_the_last_step():
    label = run(view_of(success=False), knowing(TRUTH))
    assert [s.completed for s in label.segments] == [False, True, False, True, False, False]
    assert label.segments[4].notes == "not completed: the dataset calls the episode a failure"
    assert not finished(label.segments, 3)


def test_a_stated_failure_leaves_earlier_steps_alone():
    label = run(view_of(success=False), knowing(TRUTH[:4]))  # step 3 is never tried
    assert [s.completed for s in label.segments] == [False, True, False, True]


def test_a_stated_success_that_was_not_seen_is_noted_and_changes_nothing():
    label = run(view_of(success=True), knowing(TRUTH[:4]))
    assert label.notes == ["the dataset calls the episode a success, but not every planned step was seen completed"]
    assert [s.completed for s in label.segments] == [False, True, False, True]
    assert run(view_of(success=True), knowing(TRUTH)).notes == []


def test_many_attempts_are_judged_twelve_at_a_time_in_one_prefix():
    tries = [(30 * k, "1", k == 14) for k in range(15)]
    model = knowing(tries)
    label = run(view_of(num_frames=450), model)
    assert [len(r.schema["properties"]) for r in model.of("verify")] == [12, 3]
    assert [s.completed for s in label.segments] == [False] * 14 + [True]


LONG = [
    (0, "1", False),
    (500, "1", True),
    (1450, "2", True),
    (2203, "idle", True),
    (3001, "2", True),
    (4100, "3", True),
]


def test_a_long_episode_is_seen_in_overlapping_windows():
    view = view_of(num_frames=5000)  # 168 pictures: 1 + ceil((168 - 24) / 18) = 9 windows
    model = knowing(LONG, reason=texts_of)
    label = run(view, model)
    assert [(s.start_frame, s.step, s.completed) for s in label.segments] == [
        (0, 0, False), (500, 0, True), (1450, 1, True), (2203, None, False), (3001, 1, True), (4100, 2, True),
    ]  # fmt: skip
    assert [len(model.of(s)) for s in ("plan", "segment")] == [1, 9]
    assert all(len(r.images) <= 24 for r in model.requests)
    prefixes = {r.content[:-1] for r in model.of("segment")}
    verified = model.of("verify")
    assert {r.content[:-1] for r in verified} <= prefixes
    ends = [[float(x) for x in re.findall(r"to ([\d.]+) s$", question(r), re.M)] for r in verified]
    for r, times in zip(verified, ends, strict=True):  # each is judged where its end is seen
        assert all(frames_shown(r)[0] <= t * 30 <= frames_shown(r)[-1] + 2 for t in times)
    reasons = reason(view, label.segments, model)
    assert [r.frame_index for r in reasons] == [*range(0, 5000, 60)]
    assert {r.content[:-1] for r in model.of("reason")} <= prefixes


def jpeg(frame: int) -> Image:
    picture = np.full((90, 120, 3), 40 + frame % 200, np.uint8)
    return Image.of(cv2.imencode(".jpg", picture)[1].tobytes())


def test_contact_sheets_hold_the_pictures_with_their_times():
    model = Model(**ignorant(3).replies)
    view = view_of(num_frames=20 * 30, load=Loader(jpeg))
    config = VlmConfig(contact_sheet=True)
    run(view, model, config)
    request = model.of("segment")[0]
    assert request.content[:-1] == model.of("plan")[0].content[:-1]
    sheets = [cv2.imdecode(np.frombuffer(i.jpeg, np.uint8), cv2.IMREAD_COLOR) for i in request.images]
    sizes = [(s.shape[1], s.shape[0]) for s in sheets]
    assert sizes == [(672, 504), (672, 504), (672, 168)]
    # picture 5 shows frame 120, so luma 160, below its caption; the caption is white on black
    tile = sheets[0][168:336, 224:448]
    assert abs(float(tile[60:].mean()) - 160) < 2
    assert tile[:20, :60].min() < 60
    assert tile[:20, :60].max() > 200
    assert request.content[1] == "Pictures 1 to 9:"
    assert request.schema["properties"]["changes"]["items"]["properties"]["picture"]["enum"] == [*range(2, 22)]
    assert all(len(r.images) == len(frames) for r, frames in [(model.of("refine")[0], range(8))])


def test_a_damaged_stored_picture_is_named():
    view = view_of(load=Loader(lambda f: Image.of(b"no jpeg")))
    with pytest.raises(ValueError, match="is no JPEG"):
        run(view, knowing(TRUTH), VlmConfig(contact_sheet=True))


# --- confidence and the gate


def later(frames):
    return [(start and start + frames, label, done) for start, label, done in TRUTH]


def two_passes(second, strong=None):
    """The first pass tells the truth; the shifted one tells `second`, the model named strong tells `strong`."""
    first, other = knowing(TRUTH), knowing(second)
    best = knowing(strong or TRUTH)

    def segment(request):
        if request.model == "big":
            return best.replies["segment"](request)
        shifted = 30 not in frames_shown(request)
        return (other if shifted else first).replies["segment"](request)

    return Model(**(first.replies | {"segment": segment}))


def test_two_passes_that_agree_make_a_label_sure():
    model = two_passes(TRUTH)
    label = run(view_of(motion_cuts=(47, 101, 152, 199, 263)), model, VlmConfig(passes=2))
    assert len(model.of("segment")) == 2
    assert frames_shown(model.of("segment")[1]) == [0, *range(45, 270, 30), 284, 299]
    assert [s.start_frame for s in label.segments] == [t[0] for t in TRUTH]
    assert min(s.confidence for s in label.segments) > 0.85
    assert not label.needs_review


def test_where_passes_differ_the_label_is_less_sure():
    second = [*TRUTH[:3], (152, "3", True), *TRUTH[4:]]
    second = [t for t in second if t[0] != 199]  # the second pass sees step 3 where the first sees steps 2 and 3
    label = run(view_of(), two_passes(second), VlmConfig(passes=2))
    sure = [s.confidence for s in label.segments]
    assert sure[3] < 0.35  # label never agrees, nor does either boundary
    assert sure[0] > 0.85
    assert not label.needs_review  # there is no gate


GATE = VlmConfig(passes=2, gate_tolerance_s=0.5)


def test_the_gate_lets_passes_through_that_agree():
    label = run(view_of(), two_passes(TRUTH), VlmConfig(passes=2, gate_tolerance_s=0.5, strong_model="big"))
    assert (label.needs_review, label.notes) == (False, [])


def test_the_gate_without_a_strong_model_asks_people():
    label = run(view_of(), two_passes(TRUTH[:-1]), GATE)
    assert (label.needs_review, label.notes) == (True, ["the two passes differ"])
    assert [s.start_frame for s in label.segments] == [t[0] for t in TRUTH]


def test_passes_that_differ_by_more_than_the_tolerance_are_stopped():
    assert not run(view_of(), two_passes(later(15)), GATE).needs_review
    assert run(view_of(), two_passes(later(75)), GATE).needs_review


@pytest.mark.parametrize(
    ("second", "strong", "review", "note", "labels"),
    [
        (TRUTH[:-1], TRUTH, False, "the two passes differ; the strong model agrees with the first", TRUTH),
        (TRUTH[:-1], TRUTH[:-1], False, "the two passes differ; the strong model agrees with the second", TRUTH[:-1]),
        (
            TRUTH[:-1],
            TRUTH[:-2],
            True,
            "the two passes differ, and the strong model agrees with neither",
            TRUTH[:-2],
        ),
    ],
)
def test_the_strong_model_decides(second, strong, review, note, labels):
    model = two_passes(second, strong)
    label = run(view_of(), model, VlmConfig(passes=2, gate_tolerance_s=0.5, strong_model="big", verify=False))
    assert (label.needs_review, label.notes) == (review, [note])
    assert [s.start_frame for s in label.segments] == [t[0] for t in labels]
    assert [r.model for r in model.of("segment")] == ["", "", "big"]
    assert {r.model for r in model.requests if r.stage != "segment"} == {""}
    same, asked = model.of("segment")[0], model.of("segment")[2]
    assert replace(asked, model="") == same


# --- reasoning


def test_reasons_are_given_for_chosen_frames():
    model = knowing(TRUTH, reason=texts_of)
    view = view_of()
    segments = run(view, model).segments
    reasons = reason(view, segments, model)
    assert [(r.frame_index, r.text, r.finished) for r in reasons] == [
        (0, "Text picture_1", False),
        (60, "Text picture_3", False),
        (120, "Text picture_5", False),
        (180, "Text picture_7", False),
        (240, "Text picture_9", False),
    ]
    assert [r.frame_index for r in reason(view, segments, model, VlmConfig(reason_interval_s=4.5))] == [0, 150, 299]
    assert [r.finished for r in reason(view, segments, model, VlmConfig(reason_interval_s=4.5))] == [False, False, True]


def test_what_is_told_of_each_moment():
    model = knowing(TRUTH, reason=texts_of)
    view = view_of()
    reason(view, run(view, model).segments, model)
    lines = re.findall(r"^picture_\d+, .*$", question(model.of("reason")[0]), re.M)
    assert lines == [
        'picture_1, 0.00 s: step 1, "Grasp the red cup"; steps still to complete: 1, 2, 3',
        'picture_3, 2.00 s: step 1, "Grasp the red cup"; steps still to complete: 1, 2, 3',
        "picture_5, 4.00 s: idle; steps still to complete: 2, 3",
        'picture_7, 6.00 s: step 2, "Move the red cup over the plate"; steps still to complete: 2, 3',
        'picture_9, 8.00 s: step 3, "Place the red cup on the plate"; steps still to complete: 3',
    ]


def test_a_step_begun_again_is_to_be_completed_again():
    segments = [
        Segment("Open it", 0, 100, "step", True, 0),
        Segment("Wait", 100, 200, "idle", False),
        Segment("Open it", 200, 300, "step", False, 0),
    ]
    model = Model(reason=texts_of)
    reason(view_of(), segments, model, VlmConfig(reason_interval_s=4.5), num_planned=2)
    asked = question(model.of("reason")[0])
    assert '1. "Open it"\n2. "not attempted in this run"' in asked
    assert re.findall(r"complete: (.*)$", asked, re.M) == ["1, 2", "2", "1, 2"]


def test_near_identical_frames_of_a_segment_share_a_text():
    phash = np.zeros(300, np.uint64)
    phash[60] = 0b1  # one bit from frame 0: shared
    phash[120] = 0b11  # two bits: a text of its own, though one bit from frame 60
    segments = [Segment("A", 0, 170, "step", True, 0), Segment("B", 170, 300, "step", True, 1)]
    model = Model(reason=texts_of)
    reasons = reason(view_of(phash=phash), segments, model, num_planned=2)
    assert [(r.frame_index, r.text) for r in reasons] == [
        (0, "Text picture_1"),
        (60, "Text picture_1"),
        (120, "Text picture_5"),
        (180, "Text picture_7"),  # like frame 0, but of another segment
        (240, "Text picture_7"),
    ]
    assert list(model.of("reason")[0].schema["properties"]) == ["picture_1", "picture_5", "picture_7"]


def test_many_moments_are_asked_for_twelve_at_a_time():
    model = Model(reason=texts_of)
    segments = [Segment("A", 0, 690, "step", True, 0)]
    reasons = reason(view_of(num_frames=690), segments, model, VlmConfig(reason_interval_s=1), num_planned=1)
    assert len(reasons) == 23
    assert [len(r.schema["properties"]) for r in model.of("reason")] == [12, 11]


# --- what goes wrong


@pytest.mark.parametrize(
    ("stage", "value"),
    [
        ("plan", {}),
        ("plan", {"steps": []}),
        ("plan", {"steps": None}),
        ("plan", {"steps": ["Grasp it", "Lift it"]}),
        ("plan", {"steps": [{"verb": "Grasp"}]}),
        ("segment", {}),
        ("segment", {"first": None, "changes": 3}),
        ("refine", {}),
        ("refine", {"picture": 1}),
        ("refine", {"picture": 9}),
        ("refine", {"picture": "2"}),
        ("refine", {"picture": True}),
        ("verify", {}),
        ("verify", {"attempt_1": "yes"}),
        ("verify", verdicts(False, True, "yes", True)),
    ],
)
def test_a_reply_that_cannot_be_used_is_an_error_that_names_the_stage(stage, value):
    with pytest.raises(VlmError, match=f"{stage} stage") as e:
        run(view_of(), knowing(TRUTH, **{stage: value}))
    assert e.value.reason == "bad_reply"


@pytest.mark.parametrize("value", [{}, {"picture_1": None}, {"picture_1": " "}])
def test_a_reason_that_says_nothing_is_an_error(value):
    segments = [Segment("A", 0, 300, "step", True, 0)]
    with pytest.raises(VlmError, match="reason stage"):
        reason(view_of(), segments, Model(reason=value), num_planned=1)


def test_an_error_waits_for_the_requests_under_way():
    model = knowing(TRUTH)
    ended = []

    async def ask(request):
        if request.stage != "refine":
            return await model(request)
        first = not ended
        ended.append("failed" if first else "asked")
        if first:
            raise VlmError("budget", "spent")
        await asyncio.sleep(0.01)
        ended.append("answered")
        return await model(request)

    with pytest.raises(VlmError, match="spent"):
        run(view_of(), ask)
    assert ended == ["failed", *["asked"] * 4, *["answered"] * 4]


def test_without_a_picture_nothing_is_asked():
    model = knowing(TRUTH)

    def undecodable(frames):
        raise VideoError("the video is cut")

    with pytest.raises(VideoError):
        run(view_of(load=undecodable), model)
    with pytest.raises(ValueError, match="toy episode 7: no picture of frame 30"):
        run(view_of(load=lambda frames: {f: jpeg(f) for f in frames if f != 30}), model)
    with pytest.raises(ValueError, match="1 frame"):
        run(view_of(num_frames=1), model)
    assert model.requests == []


# --- any valid reply


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_frames=st.one_of(st.integers(2, 40), st.integers(41, 2500)),
    every=st.integers(1, 60),
    success=st.sampled_from([None, True, False]),
    task=st.sampled_from([None, "Lift it"]),
    config=st.builds(
        VlmConfig,
        max_images=st.integers(4, 24),
        overlap_images=st.integers(1, 8),
        refine=st.booleans(),
        refine_images=st.integers(3, 8),
        verify=st.booleans(),
        passes=st.integers(1, 2),
        gate_tolerance_s=st.sampled_from([None, 0.1, 2.0]),
        strong_model=st.sampled_from([None, "big"]),
    ),
)
def test_whatever_valid_replies_say_segments_tile_and_repeat(seed, num_frames, every, success, task, config):
    phash = np.random.default_rng(seed).integers(0, 4, num_frames, dtype=np.uint64)
    view = view_of(num_frames=num_frames, every=every, success=success, task=task, phash=phash, motion_cuts=(5,))
    model = ignorant(seed)
    label = run(view, model, config)
    check_tiling(label.segments, num_frames, label.num_planned)
    assert all(0 <= s.confidence <= 1 and len(s) >= 1 and s.name for s in label.segments)
    assert not any(s.completed for s in label.segments if s.kind == "idle")
    if success is False:
        assert not finished(label.segments, label.num_planned)
    for k, s in enumerate(label.segments):
        assert s.kind != "done" or finished(label.segments[:k], label.num_planned)
    for a, b in pairwise(label.segments):
        assert a.kind == "step" or a.kind != b.kind or a.notes or b.notes
    assert label.task == (task or label.task)
    assert label.task_inferred == (task is None)
    reasons = reason(view, label.segments, model, config, label.num_planned)
    assert reasons[0].frame_index == 0
    assert len({r.frame_index for r in reasons}) == len(reasons)
    stages = {r.stage for r in model.requests}
    assert {"plan", "segment", "reason"} <= stages
    assert ("verify" in stages) == (config.verify and any(s.kind == "step" for s in label.segments))
    for r in model.requests:
        assert len(r.images) <= max(config.max_images, config.refine_images)
        assert all(0 <= f < num_frames for f in frames_shown(r))
        jsonschema.Draft202012Validator.check_schema(r.schema)
    again = ignorant(seed)
    assert run(view, again, config) == label


def test_the_order_in_which_replies_come_changes_nothing():
    def shuffled(seed):
        model = ignorant(11)
        rng = np.random.default_rng(seed)

        async def ask(request):
            for _ in range(int(rng.integers(0, 20))):
                await asyncio.sleep(0)
            return await model(request)

        return ask

    view = view_of(num_frames=2000)
    labels = [run(view, shuffled(seed), VlmConfig(passes=2)) for seed in range(5)]
    assert all(label == labels[0] for label in labels)


def test_sampling_parameters_reach_every_request():
    model = knowing(TRUTH)
    run(view_of(), model, VlmConfig(temperature=0.25, seed=9))
    assert {(r.temperature, r.seed) for r in model.requests} == {(0.25, 9)}
