"""An episode's page in a real browser: which frame is shown, and that everything follows one cursor."""

import base64
import io
import re

import av
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.kits.explorer_kit import HOSTILE
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import FPS, LENGTHS, video_path

pytestmark = pytest.mark.browser
PIXELS = """video => { const c = document.createElement('canvas');
  c.width = video.videoWidth; c.height = video.videoHeight;
  c.getContext('2d').drawImage(video, 0, 0); return c.toDataURL('image/png').split(',')[1]; }"""


def frame(page: Page) -> int:
    return int(page.locator("#clock").inner_text().split("frame ")[1])


def at_frame(page: Page, number: int) -> None:
    expect(page.locator("#clock")).to_have_text(re.compile(rf"frame {number}$"))


def pixels(page: Page) -> np.ndarray:
    """What the first camera shows, RGB."""
    video = page.locator("video").first
    page.wait_for_function("v => !v.seeking && v.readyState >= 2", arg=video.element_handle())
    data = base64.b64decode(video.evaluate(PIXELS))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def decoded(made_corpus: Made, episode: int) -> list[np.ndarray]:
    container = av.open(str(video_path(made_corpus.source, episode)))
    frames = [f.to_ndarray(format="rgb24").astype(int) for f in container.decode(video=0)]
    container.close()
    return frames


def test_the_frame_that_is_named_is_the_frame_that_is_shown(watched, made):
    page = watched.open(f"/episode/tiny/0?t={7 / FPS}")
    at_frame(page, 7)
    frames = decoded(made, 0)
    for number in (7, 8, 9, 13, LENGTHS[0] - 1, 0):
        page.locator("#scrub").fill(str(number))
        at_frame(page, number)
        canvas_pixels = pixels(page)
        nearest = min(
            range(len(frames)), key=lambda k: float(np.abs(frames[k] - canvas_pixels).mean())
        )
        assert nearest == number


def test_keys_step_jump_and_say_what_they_do(watched):
    page = watched.open("/episode/tiny/0")
    at_frame(page, 0)
    for key, number in (
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("Shift+ArrowRight", 1 + FPS),
        ("End", LENGTHS[0] - 1),
        ("ArrowRight", LENGTHS[0] - 1),
        ("Home", 0),
        ("ArrowLeft", 0),
    ):
        page.keyboard.press(key)
        at_frame(page, number)
    page.keyboard.press("ArrowDown")
    assert frame(page) > 0
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("play, pause")
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    expect(page.locator("h1")).to_contain_text("episode 1")


def test_a_click_on_any_track_seeks_everything_and_is_in_the_url(watched):
    page = watched.open("/episode/tiny/0")
    at_frame(page, 0)
    tracks = page.locator(".track")
    assert tracks.count() >= 6  # two label runs, progress, visual change, gripper, speed, state
    pixels_before = pixels(page)
    for k in range(tracks.count()):
        box = tracks.nth(k).bounding_box()
        assert box is not None
        share = (k + 1) / (tracks.count() + 1)
        tracks.nth(k).click(position={"x": box["width"] * share, "y": box["height"] / 2})
        number = frame(page)
        assert abs(number + 0.5 - share * LENGTHS[0]) <= 1
        cursor = page.locator("#cursor").bounding_box()
        assert cursor is not None
        assert abs(cursor["x"] - box["x"] - box["width"] * (number + 0.5) / LENGTHS[0]) < 3
    assert np.abs(pixels(page) - pixels_before).max() > 50
    page.wait_for_url(f"**?t={frame(page) / FPS:.2f}")
    page.reload()
    at_frame(page, number)


def test_actions_come_or_say_why_not(watched):
    page = watched.open("/episode/tiny/0")
    expect(page.locator("#actions")).to_contain_text("the actions of tiny 0: the source has none")


def test_it_plays_to_the_end_and_stops(watched):
    page = watched.open("/episode/tiny/0?t=2")
    at_frame(page, 2 * FPS)
    page.locator("#speed").select_option("4")
    page.locator("h1").click()
    page.keyboard.press("Space")
    at_frame(page, LENGTHS[0] - 1)
    expect(page.locator("#play")).to_have_text("▶")
    expect(page.locator("video")).to_have_js_property("paused", True)


def test_the_values_at_the_cursor_are_those_of_the_label(watched):
    page = watched.open("/episode/tiny/0")
    data = page.evaluate("fetch('/api/episode/tiny/0').then(a => a.json())")
    for number in (0, 11, LENGTHS[0] - 1):
        page.locator("#scrub").fill(str(number))
        for k, run in enumerate(data["runs"]):
            output_field = page.locator(".legend li", has_text=run["label_run"][:8]).first.locator(
                "output"
            )
            expect(output_field).to_have_text(f"{run['progress'][number]:.3f}")
            assert k < 2
    # answers of a model lie frames apart; between them the line counts
    clock_prediction = next(p for p in data["predictions"] if p["model"] == "clock")
    page.locator("#scrub").fill(str(clock_prediction["frames"][0] + 1))
    step = (clock_prediction["prediction"][1] - clock_prediction["prediction"][0]) / (
        clock_prediction["frames"][1] - clock_prediction["frames"][0]
    )
    expect(page.locator(".legend li", has_text="clock").locator("output")).to_have_text(
        f"{clock_prediction['prediction'][0] + step:.3f}"
    )


def test_the_words_of_the_moment_are_marked(watched):
    page = watched.open("/episode/tiny/0")
    page.locator(".reasoning .seek").nth(1).click()
    at_frame(page, 12)
    expect(page.locator(".reasoning .now")).to_contain_text("At 12 the hand moves on.")


def test_a_video_that_cannot_be_had_gives_way_to_stored_pictures(watched):
    watched.allowed = ("404", "Failed to load resource")
    page = watched.page
    page.route(
        "**/video/0",
        lambda route: route.fulfill(status=404, body="<p class='message'>It is gone</p>"),
    )
    watched.open("/episode/tiny/0")
    expect(page.locator(".camera .message")).to_have_text("It is gone. Stored pictures are shown.")
    still = page.locator(".still")
    expect(still).to_be_visible()
    first = still.get_attribute("src")
    page.locator("#scrub").fill(str(LENGTHS[0] - 1))
    expect(still).not_to_have_attribute("src", first or "")
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    page.wait_for_function("() => Number(document.getElementById('scrub').value) > 2")


def test_a_video_of_another_codec_is_converted_and_frame_exact(watched, made):
    page = watched.page
    # As a browser that knows no H.264 of this file: the original is refused, what the server makes of it plays
    damaged = {"status": 200, "content_type": "video/mp4", "body": b"\0" * 5000}
    page.route(re.compile(r"/video/0$"), lambda route: route.fulfill(**damaged))
    watched.open(f"/episode/tiny/0?t={7 / FPS}")
    at_frame(page, 7)
    expect(page.locator("video").first).to_have_js_property("videoWidth", 64)
    expect(page.locator(".camera .message").first).to_be_hidden()
    frames = decoded(made, 0)
    for number in (7, 12, LENGTHS[0] - 1):
        page.locator("#scrub").fill(str(number))
        at_frame(page, number)
        canvas_pixels = pixels(page)
        assert (
            min(range(len(frames)), key=lambda k: float(np.abs(frames[k] - canvas_pixels).mean()))
            == number
        )


def test_a_video_with_pictures_that_have_no_row_is_converted(watched, made):
    page = watched.page
    page.route(re.compile(r"/video/0/in_order$"), lambda route: route.fulfill(json=False))
    watched.open(f"/episode/tiny/0?t={7 / FPS}")
    expect(page.locator("video").first).to_have_attribute("src", re.compile(r"/video/0/h264$"))
    at_frame(page, 7)
    expect(page.locator(".camera .message").first).to_be_hidden()
    frames = decoded(made, 0)
    page.locator("#scrub").fill("12")
    at_frame(page, 12)
    assert (
        min(range(len(frames)), key=lambda k: float(np.abs(frames[k] - pixels(page)).mean())) == 12
    )


def test_the_time_axis_is_zoomed_and_a_range_loops_and_both_are_in_the_url(watched):
    page = watched.open("/episode/tiny/0")
    at_frame(page, 0)
    wide = page.locator(".track.tall svg").evaluate("e => e.getBoundingClientRect().width")
    ruler = page.locator("#ruler").bounding_box()
    assert ruler
    page.mouse.move(ruler["x"] + ruler["width"] / 2, ruler["y"] + 8)
    page.mouse.wheel(0, -240)
    page.wait_for_url("**view=*")
    assert (
        page.locator(".track.tall svg").evaluate("e => e.getBoundingClientRect().width")
        > 1.9 * wide
    )
    assert (
        page.locator("#editor-lane").evaluate("e => e.getBoundingClientRect().width") > 1.9 * wide
    )
    # What is under the pointer is what the click seeks, zoomed as well
    page.locator(".track.tall").click(position={"x": ruler["width"] / 2, "y": 20})
    assert abs(frame(page) - LENGTHS[0] / 2) <= 1
    page.locator("#ruler").scroll_into_view_if_needed()  # the click has scrolled the page
    ruler = page.locator("#ruler").bounding_box()
    assert ruler
    page.mouse.move(ruler["x"] + ruler["width"] * 0.25, ruler["y"] + 8)
    page.mouse.down()
    page.mouse.move(ruler["x"] + ruler["width"] * 0.75, ruler["y"] + 8, steps=4)
    page.mouse.up()
    page.keyboard.press("l")
    page.wait_for_url("**range=*loop=1*")
    low, high = (float(x) * FPS for x in re.findall(r"range=([\d.]+)-([\d.]+)", page.url)[0])
    page.keyboard.press("Space")
    frames_seen = set()
    for _ in range(40):
        frames_seen.add(frame(page))
        page.wait_for_timeout(50)
    page.keyboard.press("Space")
    assert min(frames_seen) >= low - 1
    assert max(frames_seen) <= high
    assert len(frames_seen) > 1
    address = page.url
    page.reload()
    expect(page.locator("#loop")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#range")).to_be_visible()
    assert re.findall("view=[^&]*", page.url) == re.findall("view=[^&]*", address)
    page.keyboard.press("0")
    page.keyboard.press("Escape")
    expect(page.locator("#range")).to_be_hidden()
    assert page.locator(".track.tall svg").evaluate(
        "e => e.getBoundingClientRect().width"
    ) == pytest.approx(wide, abs=1)


def test_curves_are_switched_and_every_track_tells_its_value(watched):
    page = watched.open("/episode/tiny/0")
    clock = page.locator(".legend li", has_text="clock")
    line = page.locator(".track.tall path").nth(
        page.locator(".legend li").all_inner_texts().index(clock.inner_text())
    )
    expect(line).to_be_hidden()  # a baseline is there to be switched on
    clock.locator("input").check()
    expect(line).to_be_visible()
    page.wait_for_url("**switch=progress*clock*")
    page.reload()
    expect(line).to_be_visible()
    # The pointer over one track, and all tracks say what they are there
    data = page.evaluate("fetch('/api/episode/tiny/0').then(a => a.json())")
    track = page.locator(".track[data-chart='state']")
    track.scroll_into_view_if_needed()
    box = track.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 10.5 / LENGTHS[0], box["y"] + 10)
    output_field = page.locator("output[data-of='state']").first
    expect(output_field).to_have_text(f"{data['measures']['state'][0][10]:.3f}")
    change = next(iter(data["measures"]["visual_change"].values()))
    expect(page.locator("output[data-of='visual change']").first).to_have_text(f"{change[10]:.3f}")
    assert frame(page) == 0


def test_pictures_have_no_bars(watched):
    page = watched.open("/episode/tiny/0")
    video = page.locator("video").first
    expect(video).not_to_have_js_property("videoWidth", 0)
    page.wait_for_function(
        "v => Math.abs(v.clientWidth / v.clientHeight - v.videoWidth / v.videoHeight) < 0.02",
        arg=video.element_handle(),
    )


def test_an_episode_without_a_label_still_plays(watched):
    page = watched.open("/episode/tiny/3")
    expect(page.locator("#no-label")).to_be_visible()
    page.keyboard.press("ArrowRight")
    at_frame(page, 1)


def test_a_hostile_task_runs_nothing(watched):
    page = watched.page
    page.on("dialog", lambda d: pytest.fail(f"a script of the data ran: {d.message}"))
    watched.open("/episode/tiny/2")
    expect(page.locator("p.task")).to_have_text(HOSTILE)
    watched.open("/episodes?q=script")
    expect(page.locator(".gallery .task")).to_have_text(HOSTILE)
    watched.open("/why/tiny/0")
    page.locator("summary").last.click()


def test_two_labels_are_compared(watched):
    page = watched.open("/compare/tiny/0")
    assert page.locator(".moved").count() > 0
    expect(page.locator("#difference")).to_contain_text("progress differs by")
    box = page.locator(".track.tall").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)
    at_frame(page, 12)
    expect(page.locator(".legend output").nth(1)).to_have_text("0.522")
    page.locator("#b").select_option(index=0)
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#difference")).to_contain_text("differs by 0 on average")
