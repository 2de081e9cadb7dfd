"""Labels by a model: what becomes of its answers; moments that an arm's signals show."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import cv2
import numpy as np
import pytest

from annotate.config import MotionConfig, VlmConfig
from annotate.model_client.calls import Image, Reply, Request, VlmError
from annotate.motion.observe import GripperCurve, Signals
from annotate.vlm.annotator import annotate_episode, reason_episode
from annotate.vlm.pictures import NO_MOMENTS, ArmMoments, joined_picture, moments_of, settled_starts
from annotate.vlm.windows import Span
from core.domain.label import DONE, IDLE, finished
from ingest.media.video import VideoError
from tests.kits.vlm_episodes import PLAN, Loader, Model, frames_shown, ignorant, knowing, view_of

# A picture by itself says its frame; every boundary is narrowed to a frame
CONFIG = VlmConfig(model="toy", contact_sheet=False, refine=True)
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


def test_a_boundary_that_is_not_refined_lies_between_its_pictures():
    label = run(view_of(), knowing(TRUTH), CONFIG.model_copy(update={"refine": "doubtful"}))
    assert [s.start_frame for s in label.segments] == [0, 53, 98, 158, 203, 263]


def test_a_label_stays_as_it_was_where_refine_or_verify_fails():
    def fails(request):
        raise VlmError("bad_reply", "no JSON")

    label = run(view_of(), knowing(TRUTH, refine=fails, verify=fails))
    assert [s.start_frame for s in label.segments] == [0, 53, 98, 158, 203, 263]
    assert [s.completed for s in label.segments][:2] == [False, True]
    assert label.notes == [
        "refine failed, so the label is coarser (bad_reply): no JSON",
        "verify failed, so the label is coarser (bad_reply): no JSON",
    ]


def holding(model: Model, max_images: int, *stages: str):
    async def ask(request: Request) -> Reply:
        if len(request.images) > max_images and request.stage in (stages or (request.stage,)):
            raise VlmError("wrong_request", "too long", is_too_long=True)
        return await model(request)

    return ask


def test_a_question_that_its_server_cannot_hold_shows_fewer_pictures():
    model = knowing(TRUTH, reason=lambda r: dict.fromkeys(r.schema["properties"], "Text"))
    view = view_of(num_frames=600)
    label = run(view, holding(model, 9))
    reasons = asyncio.run(reason_episode(view, label.segments, 3, holding(model, 9), CONFIG))
    assert len(reasons) == 10
    shown = set(chain.from_iterable(map(frames_shown, model.of("segment"))))
    assert shown == {*range(0, 600, 15), 599}
    whole = run(view, knowing(TRUTH))
    assert [s.start_frame for s in label.segments] == [s.start_frame for s in whole.segments]
    assert label.notes == [
        "plan: a question shows 1/4 of the usual pictures, more do not fit the server",
        "segment: a question shows 1/8 of the usual pictures, more do not fit the server",
        "verify: a question shows 1/4 of the usual pictures, more do not fit the server",
    ]


def test_where_the_fewest_pictures_are_too_many_the_question_is_lost():
    with pytest.raises(VlmError, match="too long"):
        run(view_of(), holding(knowing(TRUTH), 1))

    label = run(view_of(), holding(knowing(TRUTH), 0, "verify"))
    assert label.notes[-1] == "verify failed, so the label is coarser (wrong_request): too long"


def judged(success, truth=TRUTH, **replies):
    return run(view_of(success=success), knowing(truth, **replies))


def test_a_known_success_is_stronger_than_verify():
    def deny(request):
        nothing = {"criterion": "It", "evidence": "It", "completed": False}
        return dict.fromkeys(request.schema["properties"], nothing)

    label = judged(True, verify=deny)
    assert finished(label.segments, 3)
    assert [s.completed for s in label.segments if s.step is not None] == [False, True, True, True]
    assert label.needs_review
    assert any("the model denies it of step 1, 2, 3" in note for note in label.notes)
    assert not judged(True).needs_review


def test_a_step_that_a_success_lacks_was_done_between_two_pictures():
    lacking = [(0, "1", True), (152, "3", True), (263, "done", True)]
    label = judged(
        True, lacking, refine=lambda request: {"seen": "x", "picture": frames_shown(request)[-1]}
    )
    assert [s.step for s in label.segments] == [0, 1, 2, None]
    assert finished(label.segments, 3)
    assert "step 2 was not seen" in " ".join(label.notes)
    assert label.segments[1].confidence < 0.5
    assert not finished(judged(None, lacking).segments, 3)


NONSENSE = {
    "one step for all": [(0, "1", True)],
    "another order": [
        (0, "3", True),
        (60, "2", True),
        (150, "1", True),
        (200, "3", True),
        (280, "1", True),
    ],
    "equal parts": [(0, "1", True), (100, "2", True), (200, "3", True)],
    "nothing completed": [(0, "1", False), (100, "2", False), (160, "3", False)],
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_what_no_run_looks_like_is_unsure_and_for_review(kind):
    label = run(view_of(), knowing(NONSENSE[kind]))
    assert label.needs_review
    assert max(s.confidence for s in label.segments) <= 0.3


def test_several_changes_at_one_picture_are_unsure():
    def segment(request):
        frame = frames_shown(request)[5]
        changes = [
            {"picture": frame, "label": label, "outcome": "achieved"} for label in ("1", "2", "3")
        ]
        return {"seen": "x", "first": {"label": "idle", "outcome": "achieved"}, "changes": changes}

    assert run(view_of(), knowing(TRUTH, segment=segment)).needs_review


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


def test_a_failure_that_the_dataset_states_overrules_the_last_step():
    label = run(view_of(success=False), knowing(TRUTH))
    assert [s.completed for s in label.segments] == [False, True, False, True, False, False]
    assert label.segments[4].notes == "not completed: the dataset calls the episode a failure"
    assert not finished(label.segments, 3)


def grey(width: int, height: int, luma: int) -> Image:
    return Image.of(cv2.imencode(".jpg", np.full((height, width, 3), luma, np.uint8))[1].tobytes())


def pixels(image: Image) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(image.jpeg, np.uint8), cv2.IMREAD_COLOR)


def jpeg(frame: int) -> Image:
    return grey(120, 90, 40 + frame % 200)


def test_contact_sheets_hold_the_pictures_with_their_times():
    model = Model(**ignorant(3).replies)
    view = view_of(num_frames=20 * 30, load=Loader(jpeg))
    run(view, model, VlmConfig(contact_sheet=True))
    request = model.of("segment")[0]
    assert len(model.of("plan")[0].images) == 3
    sheets = [pixels(i) for i in request.images]
    assert [s.shape[:2] for s in sheets] == [(576, 768)] * 4 + [(384, 768)]
    # the fifth picture shows frame 60, luma 100; its caption is white on black
    tile = sheets[0][192:384, 256:512]
    assert abs(float(tile[60:].mean()) - 100) < 2
    assert tile[:20, :60].min() < 60
    assert tile[:20, :60].max() > 200
    assert request.content[1] == "Pictures 0 to 120:"
    numbers = request.schema["properties"]["changes"]["items"]["properties"]["picture"]["enum"]
    assert numbers == [*range(15, 600, 15), 599]


def test_a_damaged_stored_picture_is_named():
    view = view_of(load=Loader(lambda f: Image.of(b"no jpeg")))
    with pytest.raises(ValueError, match="is not a picture that can be read"):
        run(view, knowing(TRUTH), VlmConfig(contact_sheet=True))


def later(frames):
    return [(start and start + frames, label, is_completed) for start, label, is_completed in TRUTH]


def two_passes(second, strong=None):
    """The first pass tells the truth, the shifted one `second`, model big `strong`."""
    first = knowing(TRUTH)
    second_model = knowing(second)
    best = knowing(strong or TRUTH)

    def segment(request):
        if request.model == "big":
            return best.replies["segment"](request)
        shifted = 30 not in frames_shown(request)
        return (second_model if shifted else first).replies["segment"](request)

    return Model(**(first.replies | {"segment": segment}))


def test_two_passes_that_agree_make_a_label_sure():
    model = two_passes(TRUTH)
    label = run(
        view_of(motion_cuts=(47, 101, 152, 199, 263)),
        model,
        CONFIG.model_copy(update={"passes": 2}),
    )
    assert len(model.of("segment")) == 2
    assert frames_shown(model.of("segment")[1]) == [0, *range(22, 280, 15), 292, 299]
    assert [s.start_frame for s in label.segments] == [t[0] for t in TRUTH]
    assert min(s.confidence for s in label.segments) > 0.85
    assert not label.needs_review


def test_the_gate_stops_passes_that_differ():
    gate = CONFIG.model_copy(update={"passes": 2, "gate_tolerance_s": 0.5})
    for config in (gate, gate.model_copy(update={"strong_model": "big"})):
        label = run(view_of(), two_passes(TRUTH), config)
        assert (label.needs_review, label.notes) == (False, [])
    assert not run(view_of(), two_passes(later(15)), gate).needs_review
    for second in (TRUTH[:-1], later(75)):
        label = run(view_of(), two_passes(second), gate)
        assert (label.needs_review, label.notes) == (True, ["the two passes differ"])
        assert [s.start_frame for s in label.segments] == [t[0] for t in TRUTH]


@pytest.mark.parametrize(
    ("strong", "review", "note"),
    [
        (TRUTH, False, "the two passes differ; the strong model agrees with the first"),
        (TRUTH[:-1], False, "the two passes differ; the strong model agrees with the second"),
        (TRUTH[:-2], True, "the two passes differ, and the strong model agrees with neither"),
    ],
)
def test_the_strong_model_decides(strong, review, note):
    model = two_passes(TRUTH[:-1], strong)
    changes = {"passes": 2, "gate_tolerance_s": 0.5, "strong_model": "big", "verify": False}
    label = run(view_of(), model, CONFIG.model_copy(update=changes))
    assert (label.needs_review, label.notes) == (review, [note])
    assert [s.start_frame for s in label.segments] == [t[0] for t in strong]
    assert [r.model for r in model.of("segment")] == ["", "", "big"]
    assert {r.model for r in model.requests if r.stage != "segment"} == {""}
    same = model.of("segment")[0]
    strong_request = model.of("segment")[2]
    assert replace(strong_request, model="") == same


def unreadable(_):
    raise VlmError("bad_reply", "no JSON")


def looks(second):
    return knowing(second).replies["segment"]


@pytest.mark.parametrize(
    ("look", "doubt"),
    [
        (looks(later(29)), ""),
        (looks(later(46)), "the two passes differ"),
        (looks(TRUTH[:-1]), "the two passes differ"),
        (looks([*TRUTH[:2], *TRUTH[3:]]), "the two passes differ"),
        (unreadable, "no JSON"),
    ],
)
def test_a_dear_model_labels_where_cheap_looks_differ(look, doubt):
    text = {f"picture_{k}": "Text" for k in range(0, 300, 60)}
    small = knowing(TRUTH, reason=text)
    tiny = knowing(TRUTH, segment=look)
    dear = knowing(later(-7))
    alone = knowing(later(-7))
    models = {"small": small, "tiny": tiny, "": dear}
    config = CONFIG.model_copy(update={"cheap_models": ("small", "tiny")})
    label = run(view_of(), lambda request: models[request.model](request), config)
    assert [r.stage for r in tiny.requests] == ["segment"]
    if doubt:
        notes = [f"labelled by toy: {doubt}"]
        assert label == replace(run(view_of(), alone), notes=notes)
        assert dear.requests == alone.requests
    else:
        assert (dear.requests, label.notes) == ([], ["labelled by small and tiny"])
        assert [s.start_frame for s in label.segments] == [t[0] for t in TRUTH]
    asyncio.run(reason_episode(view_of(), label.segments, 3, small, config))
    assert {r.model for r in small.requests} == {"small"}


def test_without_a_picture_nothing_is_asked():
    model = knowing(TRUTH)

    def undecodable(frames):
        raise VideoError("the video is cut")

    with pytest.raises(VideoError):
        run(view_of(load=undecodable), model)
    with pytest.raises(ValueError, match="no picture of frame 30"):
        run(view_of(load=lambda frames: {f: jpeg(f) for f in frames if f != 30}), model)
    assert model.requests == []


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
    labels = [
        run(view, shuffled(seed), CONFIG.model_copy(update={"passes": 2})) for seed in range(5)
    ]
    assert all(label == labels[0] for label in labels)


@pytest.mark.parametrize("sheets", [False, True])
def test_cameras_are_named_in_the_order_in_which_they_stand(sheets):
    moment = joined_picture([grey(120, 90, 40), grey(30, 45, 200)])
    model = Model(**ignorant(3).replies)
    view = view_of(load=Loader(lambda _: moment), cameras=("front", 'the "wrist"'))
    run(view, model, VlmConfig(contact_sheet=sheets))
    for request in model.requests:
        first = request.content[0]
        assert first.split("\n")[1].startswith(
            'Each picture shows one moment by 2 cameras at once, side by side, from left to right: "front", '
            '"the \\"wrist\\"".'
        )
    # In a sheet of three columns each camera has as much room as one alone has
    picture = pixels(model.of("segment")[0].images[0])
    assert picture.shape[1] == (3 * 2 * 256 if sheets else 184)


def test_pictures_side_by_side_are_as_high_as_the_first():
    picture = pixels(joined_picture([grey(120, 90, 40), grey(30, 45, 200)]))
    assert picture.shape == (90, 184, 3)
    assert abs(float(picture[:, 4:112].mean()) - 40) < 2
    assert abs(float(picture[:, 130:].mean()) - 200) < 2


FPS = 10.0
N = 200


def arm(closes_at: int = 60, stops: tuple[int, int] = (100, 120), slow_at: int = 160) -> Signals:
    speed = np.ones(N)
    speed[stops[0] : stops[1]] = 0.0
    speed[slow_at - 4 : slow_at + 5] = np.abs(np.arange(-4, 5)) / 10
    opening = np.clip(1 - (np.arange(N) - closes_at) / 5, 0, 1)
    return Signals(FPS, speed, speed, [GripperCurve(opening)])


def test_rests_grips_and_slow_moments_are_found_where_they_are():
    run_moments = moments_of(arm(), MotionConfig())
    assert run_moments.comes_to_rest == pytest.approx((100,), abs=1)
    assert run_moments.sets_out == pytest.approx((120,), abs=1)
    assert run_moments.grips == pytest.approx((60,), abs=1)
    assert any(abs(frame - 160) <= 1 for frame in run_moments.slow)
    still = Signals(FPS, np.zeros(N), np.zeros(N), [GripperCurve(np.ones(N))])
    assert moments_of(still, MotionConfig()) == NO_MOMENTS


SEEN = (60, 100, 120, 160)  # where a person cuts the run of `arm`
LABELS = (0, 1, IDLE, 2, 3)
AT = ArmMoments(comes_to_rest=(100,), sets_out=(120,), grips=(60,), slow=(160,))


def spans(starts: Sequence[int], labels: Sequence[int | str] = LABELS) -> list[Span]:
    inner = [
        Span(label, start - 3, start + 2, True)
        for label, start in zip(labels[1:], starts, strict=True)
    ]
    return [Span(labels[0], -1, 0, True), *inner]


def put(
    starts: Sequence[int], moments: ArmMoments = AT, labels: Sequence[int | str] = LABELS
) -> list[int]:
    return settled_starts(spans(starts, labels), [0, *starts], moments, FPS, N)[1:]


def test_boundaries_that_lie_off_what_the_arm_shows_are_put_there():
    assert put([55, 106, 114, 167]) == [*SEEN]
    # As exact as the pictures: nothing is known better
    assert put([62, 98, 121, 158]) == [62, 98, 121, 158]
    assert put([55, 106, 114, 167], NO_MOMENTS) == [55, 106, 114, 167]
    # Half a second off on the whole, one of them too far from any moment
    assert put([55, 106, 114, 180]) == [60, 100, 120, 180]
    # Only moments of slowness: what is within half a second of them stays
    assert put([55, 156], ArmMoments(slow=(60, 160)), (0, 1, 2)) == [55, 156]
    assert put([54, 154], ArmMoments(slow=(60, 160)), (0, 1, 2)) == [60, 160]


def test_a_moment_is_of_one_boundary_and_of_its_kind():
    # Nobody stands still before the first step ends, so it does not begin where the arm comes to rest
    assert put([94, 130], ArmMoments(comes_to_rest=(100,), grips=(124,)), (0, 1, 2)) == [94, 124]
    assert put([94, 130], ArmMoments(comes_to_rest=(100,), grips=(124,)), (0, DONE, 2)) == [
        100,
        124,
    ]
    # Two boundaries, one moment: the nearer one gets it; and no boundary passes another
    assert put([54, 68], ArmMoments(grips=(60,)), (0, 1, 2)) == [60, 68]
    crossed = put([55, 62], ArmMoments(grips=(48,), comes_to_rest=(69,)), (0, IDLE, 2))
    assert crossed == sorted(crossed)


def test_a_label_says_where_the_arm_decided():
    view = view_of(300, moments=ArmMoments(grips=(84, 205)), frames=(0,))
    model = knowing([(0, "1", True), (99, "2", True), (190, "3", True)])
    label = asyncio.run(annotate_episode(view, model, VlmConfig(verify=False, contact_sheet=False)))
    assert [s.start_frame for s in label.segments] == [0, 84, 205]
    assert "put where the arm shows it, 0.5 s off the model's" in label.segments[1].notes


def test_equal_parts_that_were_moved_are_doubted_all_the_same():
    model = knowing([(0, "1", True), (100, "2", True), (200, "3", True)])
    moved_label = asyncio.run(
        annotate_episode(
            view_of(300, moments=ArmMoments(grips=(84, 221))), model, VlmConfig(contact_sheet=False)
        )
    )
    assert [s.start_frame for s in moved_label.segments] == [0, 84, 221]
    assert "the model divides the run into equal parts" in moved_label.notes
    assert moved_label.needs_review
