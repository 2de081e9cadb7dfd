"""Correcting a label in a real browser, by mouse and by keyboard, down to the shard that the next build makes of it."""

import re
import tarfile
from collections.abc import Iterator
from functools import partial

import pytest
from playwright.sync_api import Browser, Page, expect

from explorer.site import Options
from pipeline.labelled import label_curves
from tests.kits.browser_kit import SCRIPTS, Watched, watching
from tests.kits.explorer_kit import UNLABELLED
from tests.kits.lake_kit import change
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import FPS

pytestmark = pytest.mark.browser
EPISODE = 2
FRAMES = 30


@pytest.fixture
def at(browser: Browser, own: Made) -> Iterator[Watched]:
    with watching(
        browser, own.space, Options(label_curves=partial(label_curves, own.space))
    ) as watched:
        yield watched


def edit(watched: Watched) -> Page:
    page = watched.open(f"/episode/tiny/{EPISODE}")
    page.locator("#editor[data-ready]").wait_for()
    return page


def unfold(page: Page) -> None:
    page.get_by_text("Pace, final progress, plan").click()


def segments(page: Page) -> list[tuple[str, int, int]]:
    labels = [
        b.get_attribute("aria-label") or "" for b in page.locator("#editor-lane button").all()
    ]
    matches = [re.fullmatch(r"(.*), frames (\d+) to (\d+), .*", x) for x in labels]
    return [(m[1], int(m[2]), int(m[3])) for m in matches if m]


def say(page: Page, text: str) -> None:
    expect(page.locator("#editor-state")).to_contain_text(text, timeout=30_000)


def save(page: Page) -> None:
    page.get_by_role("button", name="Save", exact=True).click()
    say(page, "Saved")
    page.locator("#editor[data-ready]").wait_for()


def test_a_boundary_is_dragged_and_the_shard_shows_it(at, own):
    page = edit(at)
    segments_before = segments(page)
    page.locator("#editor-lane").scroll_into_view_if_needed()
    lane = page.locator("#editor-lane").bounding_box()
    edge = page.locator(".editor-edge").first.bounding_box()
    assert lane
    assert edge
    target = segments_before[0][2] + 4
    page.mouse.move(edge["x"] + edge["width"] / 2, edge["y"] + edge["height"] / 2)
    page.mouse.down()
    page.mouse.move(lane["x"] + lane["width"] * target / FRAMES, edge["y"] + 5, steps=5)
    # The video shows the frame while the boundary is held
    page.wait_for_function(
        f"() => Math.floor(document.querySelector('video').currentTime * {FPS}) === {target}"
    )
    page.mouse.up()
    assert segments(page)[0] == (segments_before[0][0], 0, target)
    assert segments(page)[1][1] == target
    say(page, "Changed, not saved yet")

    page.locator("#editor-lane button").first.click()
    page.get_by_label("Step", exact=True).fill("Reach for the blue cube")
    page.get_by_label("Step", exact=True).press("Tab")
    page.get_by_label("Your name").fill("ada")
    unfold(page)
    page.get_by_label("Comment").fill("late by four frames")
    page.evaluate("window.stays = true")
    y = page.evaluate("scrollY")
    page.keyboard.press("Control+s")
    say(page, "Saved")
    page.locator("#editor[data-ready]").wait_for()
    # at once, for everybody who looks
    expect(page.locator("#timeline")).to_contain_text("human")
    expect(page.locator("#timeline")).to_contain_text("Reach for the blue cube")
    say(page, "follow with the next build")
    assert page.evaluate("[window.stays, scrollY]") == [
        True,
        y,
    ]  # nothing was loaded anew, nothing moved

    # A usable run without a label would stop the chunk
    change(
        own.space,
        "INSERT INTO findings (dataset, episode_index, chunk, stage, reason, detail, severity) "
        f"VALUES ('tiny', {UNLABELLED}, 1, 'frames', 'camera_black', 'front is black', 'unusable')",
    )
    # No other run has its task, so nothing else is labelled like it
    assert own.rebuild() == [
        (stage, 1) for stage in ("corrections", "progress", "samples", "shards")
    ]
    rows = own.rows(
        f"SELECT label_run, name, start_frame, end_frame FROM active_segments WHERE episode_index = {EPISODE} "
        "ORDER BY segment_index LIMIT 1"
    )
    assert rows == [("human/tiny", "Reach for the blue cube", 0, target)]
    shard_rows = own.rows(
        "SELECT DISTINCT l.shard, h.split FROM samples s JOIN sample_location l USING (sample_id) "
        f"JOIN shards h ON h.shard = l.shard WHERE s.episode_index = {EPISODE} AND s.label_run = 'human/tiny'"
    )
    assert len(shard_rows) == 1
    with tarfile.open(own.space.shard(shard_rows[0][1], shard_rows[0][0])) as tar:
        texts = [tar.extractfile(m).read() for m in tar if m.name.endswith(".json")]  # type: ignore[union-attr]
    assert any(b"Reach for the blue cube" in t for t in texts)

    page = edit(at)
    say(page, "The label that ada saved")
    expect(page.locator("#timeline")).to_contain_text("human")
    assert page.locator("#editor-history").inner_text().count("ada") == 0  # folded
    page.locator("#editor-history summary").click()
    expect(page.locator("#editor-history")).to_contain_text("late by four frames")
    page.get_by_role("button", name="Undo it").click()
    say(page, "Undone.")
    page.locator("#editor[data-ready]").wait_for()
    assert segments(page) == segments_before


def test_everything_by_keyboard(at):
    page = edit(at)
    segments_before = segments(page)
    page.keyboard.press("e")
    lane = page.locator("#editor-lane")
    expect(lane.locator("button").first).to_be_focused()
    # the page's own keys seek; then the segment is split there
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("s")
    name = segments_before[0][0]
    assert segments(page)[:2] == [(name, 0, 5), (f"{name}, part 2", 5, segments_before[0][2])]
    expect(lane.locator("[data-segment='1']")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("Close the gripper")
    page.keyboard.press("Tab")
    assert segments(page)[1][0] == "Close the gripper"
    # a boundary, a frame and ten at a time
    edge = lane.locator("[data-edge='0']")
    edge.focus()
    page.keyboard.press("ArrowRight")
    expect(edge).to_have_attribute("aria-valuenow", "6")
    page.keyboard.press("Home")
    expect(edge).to_have_attribute("aria-valuenow", "1")
    expect(edge).to_be_focused()
    # failed, undone, done again
    lane.locator("[data-segment='1']").focus()
    page.keyboard.press("c")
    assert "failed" in (lane.locator("[data-segment='1']").get_attribute("aria-label") or "")
    page.keyboard.press("Control+z")
    assert "completed" in (lane.locator("[data-segment='1']").get_attribute("aria-label") or "")
    page.keyboard.press("Control+Shift+Z")
    assert "failed" in (lane.locator("[data-segment='1']").get_attribute("aria-label") or "")
    # an attempt at the first planned step, undone
    lane.locator("[data-segment='1']").focus()
    page.keyboard.press("1")
    assert segments(page)[1][0] == name
    page.keyboard.press("Control+z")
    assert segments(page)[1][0] == "Close the gripper"
    # merged, deleted
    lane.locator("[data-segment='0']").focus()
    page.keyboard.press("m")
    assert segments(page)[0] == (name, 0, segments_before[0][2])
    page.keyboard.press("Delete")
    assert segments(page)[0] == ("Between steps", 0, segments_before[0][2])
    page.get_by_label("Your name").fill("grace")
    page.keyboard.press("Control+s")
    say(page, "Saved")
    page.locator("#editor[data-ready]").wait_for()
    assert segments(page)[0] == ("Between steps", 0, segments_before[0][2])


def test_final_progress_a_fall_and_where_all_is_lost(at):
    page = edit(at)
    page.locator("#editor-lane button").last.click()
    page.get_by_label("completed", exact=True).uncheck()
    unfold(page)
    page.get_by_label("Pace").select_option("mistake")
    page.get_by_label("State the final progress").check()
    slider = page.get_by_label("Final progress", exact=True)
    slider.fill("40")
    expect(page.locator("#editor-rest output")).to_have_text("40 %")
    page.locator("#editor-lane button").last.press("x")
    expect(page.locator(".editor-lost")).to_have_count(1)
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(page.locator(".editor-lost")).to_have_count(0)
    page.get_by_label("Your name").fill("ada")
    save(page)
    # The lake follows behind: the explorer knows it at once
    [said] = page.request.get(f"{at.url}/api/corrections/tiny/{EPISODE}").json()["current"]
    stated = said["final_progress"], said["catastrophic_frame"], said["segments"][-1]["pace"]
    assert stated == (0.4, None, "mistake")
    expect(page.get_by_label("Final progress", exact=True)).to_have_value("40")


def test_the_second_person_is_told_and_can_compare(browser, at):
    mine = edit(at)
    theirs = Watched(browser.new_context(), at.url)
    other_page = edit(theirs)
    theirs.allowed = ("409",)
    for page, author_name, frame in ((mine, "ada", 9), (other_page, "grace", 15)):
        page.locator("#editor-lane button").first.click()
        page.get_by_label("End frame (exclusive)").fill(str(frame))
        page.get_by_label("End frame (exclusive)").press("Tab")
        page.get_by_label("Your name").fill(author_name)
    save(mine)
    other_page.get_by_role("button", name="Save", exact=True).click()
    box = other_page.locator("#editor-conflict")
    expect(box).to_contain_text("ada saved a correction of episode 2 of tiny")
    other_page.get_by_role("button", name="Show theirs below mine").click()
    assert "0 to 9" in (other_page.locator("#editor-theirs").get_attribute("aria-label") or "")
    assert segments(other_page)[0][2] == 15
    other_page.get_by_role("button", name="Save mine after theirs").click()
    say(other_page, "Saved")
    other_page.locator("#editor[data-ready]").wait_for()
    other_page.locator("#editor-history summary").click()
    history = other_page.locator("#editor-history").inner_text()
    assert history.index("grace") < history.index("ada")
    assert theirs.problems == []
    other_page.context.close()


def test_every_segment_can_be_clicked_at_every_zoom(at):
    page = edit(at)
    page.set_viewport_size({"width": 1280, "height": 720})
    # What one works with is in sight together
    for part in (
        ".cameras .screen",
        "#editor-lane",
        "#editor-save .main",
        "#editor-segment",
        "#progress .track",
    ):
        box = page.locator(part).first.bounding_box()
        assert box, part
        assert box["y"] + box["height"] <= 720, part

    page.keyboard.press("e")
    for frame in (10, 11, 12, 14):
        page.locator("#scrub").fill(str(frame))
        page.locator("#editor-lane button").first.focus()
        page.keyboard.press("s")
    parts = page.locator("#editor-lane [data-segment]")
    for _ in range(3):
        lane = page.locator("#editor .lane").first.bounding_box()
        assert lane
        for k in range(parts.count()):
            box = parts.nth(k).bounding_box()
            assert box
            assert box["width"] >= 13.9
            if box["x"] >= lane["x"] and box["x"] + box["width"] <= lane["x"] + lane["width"]:
                parts.nth(k).click()
                expect(parts.nth(k)).to_have_attribute("aria-pressed", "true")
        page.locator("#zoom-in").click()


# The server answers after half a second, and the page is never read again: times of what the state line says
SLOW = (SCRIPTS / "slow.js").read_text()


def test_saving_is_said_at_once_and_leaving_asks(at):
    page = edit(at)
    page.get_by_label("Your name").fill("ada")
    page.locator("#editor-lane [data-segment='0']").click()
    page.keyboard.press("c")
    say(page, "Changed, not saved yet")
    dialog_types: list[str] = []
    page.on("dialog", lambda dialog: (dialog_types.append(dialog.type), dialog.dismiss()))
    page.evaluate("location.assign('/')")
    page.wait_for_timeout(500)
    assert dialog_types == ["beforeunload"]
    page.evaluate(SLOW)
    page.keyboard.press("Control+s")
    say(page, "Saving")
    page.keyboard.press(
        "m"
    )  # one goes on while the answer is on its way, and nothing of it is lost
    say(page, "Changed, not saved yet")
    assert page.evaluate("said.find(([text]) => text.startsWith('Saving'))[1] - pressed") < 450
    page.evaluate("said.length = 0; answered = null")
    page.keyboard.press("Control+s")
    say(page, "Saved")
    # 20 to 60 ms on a free machine; what matters: the page, which is never read again, is not waited for
    assert page.evaluate("said.find(([text]) => text.startsWith('Saved'))[1] - answered") < 3000


# Nothing is asked any more: what is drawn is the curve of the label as it stands
SETTLED = """async () => {
  const drawn = () => document.querySelector("#progress path.edited:not(.published)").getAttribute("d");
  const before = drawn();
  await new Promise((go) => setTimeout(go, 500));
  return before === drawn();
}"""


def hold_a_boundary(page: Page, edge: int, frame: int) -> None:
    """Press on a boundary, and move it to a frame; it stays held."""
    page.locator("#editor-lane").scroll_into_view_if_needed()
    lane = page.locator("#editor-lane").bounding_box()
    grip = page.locator(f"[data-edge='{edge}']").bounding_box()
    assert lane
    assert grip
    page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2)
    page.mouse.down()
    page.mouse.move(lane["x"] + lane["width"] * frame / FRAMES, grip["y"] + 5, steps=5)


def test_the_curve_and_the_fields_follow_a_boundary_and_stay_after_saving(at):
    page = edit(at)
    page.get_by_label("Your name").fill("ada")
    segments_before = segments(page)
    edge = len(segments_before) - 2
    end_frame = segments_before[edge][2] - 3
    stored = page.locator("#progress path").first.get_attribute("d")
    hold_a_boundary(page, edge, end_frame)
    edited = page.locator("#progress path.edited:not(.published)")
    expect(edited).to_have_count(1)
    expect(page.get_by_label("Step", exact=True)).to_have_value(segments_before[edge][0])
    expect(page.get_by_label("End frame (exclusive)")).to_have_value(str(end_frame))
    assert edited.get_attribute("d") != stored
    page.mouse.up()
    page.wait_for_function(SETTLED)
    curve = edited.get_attribute("d")
    save(page)
    expect(page.locator("#progress path title").first).to_contain_text("human")
    assert page.locator("#progress path").first.get_attribute("d") == curve
    expect(page.locator("#progress path.edited")).to_have_count(0)
    expect(page.locator("#progress .legend")).to_contain_text("human/ti, published formula")
    page.get_by_role("button", name="Make idle").click()
    expect(edited).to_have_count(1)
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(edited).to_have_count(0)


def test_parts_of_parts_are_counted_and_a_step_of_one_frame_asks(at):
    page = edit(at)
    page.get_by_label("Your name").fill("ada")
    name, _, end = segments(page)[0]
    for frame in (4, 6):
        page.locator("#scrub").fill(str(frame))
        page.get_by_role("button", name="Split at cursor").click()
    parts = [(name, 0, 4), (f"{name}, part 2", 4, 6), (f"{name}, part 3", 6, end)]
    assert segments(page)[:3] == parts
    page.get_by_label("End frame (exclusive)").fill("7")
    page.get_by_label("End frame (exclusive)").press("Tab")
    # Cancel shows it, and saves nothing; OK saves
    questions: list[str] = []
    page.once("dialog", lambda dialog: (questions.append(dialog.message), dialog.dismiss()))
    page.keyboard.press("Control+s")
    expect(page.get_by_label("Step", exact=True)).to_have_value(f"{name}, part 3")
    assert f"“{name}, part 3” at" in questions[0]
    assert page.request.get(f"{at.url}/api/corrections/tiny/{EPISODE}").json()["history"] == []
    page.once("dialog", lambda dialog: dialog.accept())
    page.keyboard.press("Control+s")
    say(page, "Saved")
    # It is known now, and nobody is asked again
    page.locator("#editor[data-ready]").wait_for()
    page.locator("#editor-lane [data-segment='0']").focus()
    page.keyboard.press("c")
    save(page)
