import asyncio
from dataclasses import replace

import cv2
import numpy as np
import pytest

from annotate.config import VlmConfig
from annotate.model_client.calls import Image
from annotate.segments import finished
from annotate.vlm.annotator import annotate_episode, reason_episode
from annotate.vlm.pictures import beside, size_beside
from ingest.media.video import VideoError
from tests.kits.vlm_episodes import PLAN, Loader, Model, frames_shown, ignorant, knowing, view_of

CONFIG = VlmConfig()
# Grasps at the second try, rests, moves, places, and is done
TRUTH = [(0, "1", False), (47, "1", True), (101, "idle", True), (152, "2", True), (199, "3", True), (263, "done", True)]


def run(view, model, config=CONFIG):
    return asyncio.run(annotate_episode(view, model, config))


def test_the_stages_of_an_episode_begin_with_the_same_bytes():
    model = knowing(TRUTH, reason=lambda request: dict.fromkeys(request.schema["properties"], "Text"))
    view = view_of()
    label = run(view, model)
    asyncio.run(reason_episode(view, label.segments, 3, model, CONFIG))
    alike = [r for r in model.requests if r.stage != "refine"]
    assert [r.stage for r in alike] == ["plan", "segment", "verify", "reason"]
    assert len({(r.system, r.content[:-1]) for r in alike}) == 1
    assert frames_shown(alike[0]) == [*range(0, 300, 30), 299]
    assert {r.system for r in model.requests} == {alike[0].system}


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
    picture = cv2.imdecode(np.frombuffer(image.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture


def jpeg(frame: int) -> Image:
    return grey(120, 90, 40 + frame % 200)


def test_contact_sheets_hold_the_pictures_with_their_times():
    model = Model(**ignorant(3).replies)
    view = view_of(num_frames=20 * 30, load=Loader(jpeg))
    run(view, model, VlmConfig(contact_sheet=True))
    request = model.of("segment")[0]
    assert request.content[:-1] == model.of("plan")[0].content[:-1]
    sheets = [pixels(i) for i in request.images]
    assert [s.shape[:2] for s in sheets] == [(504, 672), (504, 672), (168, 672)]
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


def test_the_gate_stops_passes_that_differ_by_more_than_the_tolerance_and_asks_people():
    gate = VlmConfig(passes=2, gate_tolerance_s=0.5)
    for config in (gate, gate.model_copy(update={"strong_model": "big"})):
        label = run(view_of(), two_passes(TRUTH), config)
        assert (label.needs_review, label.notes) == (False, [])
    assert not run(view_of(), two_passes(later(15)), gate).needs_review
    for second in (TRUTH[:-1], later(75)):
        label = run(view_of(), two_passes(second), gate)
        assert (label.needs_review, label.notes) == (True, ["the two passes differ"])
        assert [s.start_frame for s in label.segments] == [t[0] for t in TRUTH]


@pytest.mark.parametrize(
    ("second", "strong", "review", "note", "labels"),
    [
        (TRUTH[:-1], TRUTH, False, "the two passes differ; the strong model agrees with the first", TRUTH),
        (TRUTH[:-1], TRUTH[:-1], False, "the two passes differ; the strong model agrees with the second", TRUTH[:-1]),
        (TRUTH[:-1], TRUTH[:-2], True, "the two passes differ, and the strong model agrees with neither", TRUTH[:-2]),
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


# --- what goes wrong


def test_without_a_picture_nothing_is_asked():
    model = knowing(TRUTH)

    def undecodable(frames):
        raise VideoError("the video is cut")

    with pytest.raises(VideoError):
        run(view_of(load=undecodable), model)
    with pytest.raises(ValueError, match="toy episode 7: no picture of frame 30"):
        run(view_of(load=lambda frames: {f: jpeg(f) for f in frames if f != 30}), model)
    assert model.requests == []


# --- any valid reply


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


# --- several cameras


@pytest.mark.parametrize("sheets", [False, True])
def test_cameras_are_named_in_the_order_in_which_they_stand(sheets: bool) -> None:
    moment = beside([grey(120, 90, 40), grey(30, 45, 200)])
    model = Model(**ignorant(3).replies)
    view = view_of(load=Loader(lambda _: moment), cameras=("front", 'the "wrist"'))
    run(view, model, VlmConfig(contact_sheet=sheets))
    for request in model.requests:
        first = request.content[0]
        assert isinstance(first, str)
        assert first.split("\n")[1].startswith(
            'Each picture shows one moment by 2 cameras at once, side by side, from left to right: "front", '
            '"the \\"wrist\\"".'
        )
    # In a sheet of three columns each camera has as much room as one alone has
    shown = pixels(model.of("segment")[0].images[0])
    assert shown.shape[1] == (3 * 2 * 224 if sheets else 184)


def test_pictures_side_by_side_are_as_high_as_the_first() -> None:
    assert size_beside([(120, 90), (30, 45)]) == (184, 90)
    picture = pixels(beside([grey(120, 90, 40), grey(30, 45, 200)]))
    assert picture.shape == (90, 184, 3)
    assert abs(float(picture[:, 4:112].mean()) - 40) < 2
    assert abs(float(picture[:, 130:].mean()) - 200) < 2
