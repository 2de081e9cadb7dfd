"""Whole tasks in a real browser, as a labeller does them."""

import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.kits.browser_kit import Watched, watching
from tests.kits.lake_kit import change
from tests.kits.made_corpus import Made, repeat
from warehouse.lake.lake import lake_to_read

pytestmark = pytest.mark.browser


@pytest.fixture
def at(browser: Browser, own: Made) -> Iterator[Watched]:
    with watching(browser, own.space) as watched:
        yield watched


def told(part_name: str, start_s: float, actions: int) -> None:
    print(f"\n{part_name}: {actions} actions, {time.monotonic() - start_s:.1f} s")


def is_in_sight(page: Page, selector: str) -> bool:
    box = page.locator(selector).first.bounding_box()
    return box is not None and box["y"] >= 0 and box["y"] + box["height"] <= 900


def test_ten_episodes_are_reviewed_by_keyboard(at, own):
    added = repeat(own, 3)
    change(
        own.space,
        f"UPDATE episode_labels SET needs_review = true WHERE list_contains({added}, episode_index)",
    )
    total = own.rows("SELECT count(*) FROM review_queue")[0][0]
    assert total >= 13

    page = at.open("/review")
    page.get_by_label("Your name").fill("ada")
    page.locator("h1").click()
    assert page.locator("#queue tbody tr").count() == total
    # Pictures are asked for where they come into sight
    for row in page.locator("#queue tbody tr").all():
        row.scroll_into_view_if_needed()
    page.wait_for_function(
        "() => [...document.querySelectorAll('#queue img:not(.contact)')].every(i => i.complete && i.naturalWidth)"
    )
    start_s = time.monotonic()
    page.keyboard.press("Enter")
    # Picture, curve and label are in one view, before anything is said
    expect(page.locator("#place")).to_have_text(f"1 of {total}")
    expect(page.locator("video").first).not_to_have_js_property("videoWidth", 0)
    for part in ("video", "#editor-lane", "#progress .track", "#queue [data-act=accept]"):
        page.locator(part).first.wait_for()
        assert is_in_sight(page, part), part

    keys = 1
    for k, key in enumerate("aaxsaaaaxas", 1):
        expect(page.locator("#place")).to_have_text(f"{k} of {total}")
        page.keyboard.press(key)
        keys += 1
    expect(page.locator("#place")).to_have_text(f"12 of {total}")
    told("ten episodes reviewed by keyboard, two more skipped", start_s, keys)
    # A wrong boundary is corrected in the queue, too: save, and the next one comes
    page.keyboard.press("f")
    expect(page.locator("#editor-lane :focus")).to_be_visible()
    page.locator(".editor-edge").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Control+s")
    expect(page.locator("#place")).to_have_text(f"13 of {total}")
    page.goto(f"{at.url}/review")
    expect(page.locator("#pace")).to_contain_text("ada 10")
    # The lake follows behind: whoever reads it next takes in what was judged
    with closing(lake_to_read(own.space).con) as con:
        sql = "SELECT status, count(*) FROM corrections WHERE author = 'ada' GROUP BY 1 ORDER BY 1"
        judged = con.execute(sql).fetchall()
    assert judged == [("accepted", 8), ("rejected", 2)]
    assert keys <= 2 * 10


def test_how_a_run_ended_is_said_by_keys_and_taken_back(at, own):
    """So is an accepted label; an outcome of a moment on is in the label."""
    page = at.open("/review")
    page.locator("#start").click()
    page.locator("#editor[data-ready]").wait_for(state="attached")
    heading = page.locator("h1").inner_text()
    page.keyboard.press("a")
    expect(page.locator("h1")).not_to_have_text(heading)
    page.keyboard.press("z")
    expect(page.locator("#last")).to_contain_text("taken back")
    words = page.locator("#outcome-words b")
    page.goto(f"{at.url}/episode/tiny/2")
    page.locator("#editor[data-ready]").wait_for(state="attached")
    page.keyboard.press("u")
    expect(words).to_have_text("unfinished")
    page.get_by_role("button", name="Take it back").click()
    expect(words).not_to_have_text("unfinished")
    page.locator("#editor[data-ready]").wait_for(state="attached")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("b")
    expect(words).to_contain_text("failed from frame")
    ended = own.rows("SELECT episode_index, success, file FROM current_outcomes")
    assert ended == [(2, False, "explorer")]


def test_a_curve_of_training_is_reached_by_lists(watched):
    start_s = time.monotonic()
    page = watched.open("/")
    page.get_by_role("link", name="Lists", exact=True).click()
    page.get_by_role("link", name="Training runs", exact=True).click()
    page.get_by_role("link", name="tiny-model-slower").first.click()
    told("a training curve found", start_s, 3)
    expect(page.locator("figure svg path")).to_have_count(1)
    expect(page.locator("figcaption")).to_contain_text("loss by step")


def test_the_worst_runs_of_a_task_are_found_and_tagged(at, own):
    task, total = own.rows(
        "SELECT task, count(*) FROM episode_facts GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 1"
    )[0]
    start_s = time.monotonic()
    page = at.open("/episodes")
    page.get_by_role("link", name=task).first.click()  # 1: the task, as a facet
    expect(page.locator("#total")).to_have_text(str(total))
    page.locator("#sort").select_option("end")  # 2: the worst first
    page.wait_for_url("**sort=end**")
    worst = page.locator(".gallery li")
    places = [int(worst.nth(k).get_attribute("data-episode") or -1) for k in range(2)]
    lowest = own.rows(
        "SELECT e.episode_index FROM episode_facts e JOIN label_quality q USING (dataset, episode_index) "
        "JOIN active_runs a USING (dataset, episode_index, label_run) "
        f"WHERE e.task = '{task}' ORDER BY end_progress, 1 LIMIT 2"
    )
    assert places[: len(lowest)] == [e for (e,) in lowest] != []
    page.locator(".pick").nth(0).check()  # 3 and 4: the two worst
    page.locator(".pick").nth(1).check()
    expect(page.locator("#num-picked")).to_have_text("2")
    page.keyboard.press("t")
    page.keyboard.type("too short")  # 5
    page.keyboard.press("Enter")
    expect(page.locator(".gallery .tag")).to_have_count(2)
    told("the worst runs of a task found and tagged", start_s, 6)
    rows = own.rows("SELECT episode_index, tag FROM current_tags ORDER BY 1")
    assert rows == [(e, "too short") for e in sorted(places)]

    # They are a view of their own, kept by name; and a command
    page.get_by_role("link", name="too short").first.click()
    expect(page.locator("#total")).to_have_text("2")
    page.get_by_label("Name of this view").fill("short ones")
    page.get_by_role("button", name="Save this view").click()
    page.get_by_role("link", name="short ones").wait_for()
    page.goto(f"{at.url}/episodes")
    page.get_by_role("link", name="short ones").click()
    expect(page.locator("#total")).to_have_text("2")
    assert "current_tags" in page.locator(".commands").inner_html()
    # A slider narrows the rest
    page.goto(f"{at.url}/episodes")
    slider = page.get_by_role("slider").first
    slider.focus()
    page.keyboard.press("End")
    page.wait_for_url("**seconds_from=**")
    assert int(page.locator("#total").inner_text()) < 5


def test_a_bad_stretch_is_looked_at_and_accepted(browser, faulty):
    with watching(browser, faulty.space) as watched:
        page = watched.open("/episode/tiny/2")
        stretch = page.locator("#faults a")
        label = page.locator("#timeline .track").first
        track = page.locator("#faults .track").bounding_box()
        below = label.bounding_box()
        assert track
        assert below
        assert (track["x"], track["width"]) == (below["x"], below["width"])
        stretch.hover()
        expect(page.locator("#fault-words")).to_contain_text(
            "shows one picture for 2.4 s from 2.0 s on"
        )
        stretch.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#clock")).to_contain_text("frame 10")
        page.get_by_label("Known:").fill("the lens was covered")
        page.get_by_role("button", name="Accept", exact=True).click()
        expect(page.locator("form.finding")).to_contain_text("the lens was covered")
    assert faulty.rows("SELECT check_name, episode_index FROM current_acceptances") == [
        ("camera_frozen", 2)
    ]
