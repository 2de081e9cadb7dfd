"""Likeness in a real browser: from the moment of one run to the same moment of another."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.kits.browser_kit import Watched, watching
from tests.kits.embedded import look_at
from tests.kits.made_corpus import Made

pytestmark = pytest.mark.browser
EVERY_PICTURE_IS_THERE = "images => images.every(i => i.complete && i.naturalWidth > 0)"


@pytest.fixture
def watched(browser: Browser, made: Made, tmp_path) -> Iterator[Watched]:
    space = made.copy(tmp_path).space
    look_at(space)
    with watching(browser, space, height=860) as watched:
        yield watched


def test_from_a_moment_to_the_same_moment_of_another_run(watched):
    page = watched.open("/episode/tiny/0")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#clock")).to_have_text(re.compile("frame 4$"))
    page.get_by_role("link", name="Similar frames").click()
    expect(page).to_have_url(re.compile(r"/like/tiny/0\?frame=4$"))
    pictures = page.locator(".gallery img")
    expect(pictures).to_have_count(3)  # this one, and the two other runs that were looked at
    page.wait_for_function(
        f"() => ({EVERY_PICTURE_IS_THERE})([...document.querySelectorAll('.gallery img')])"
    )
    page.locator(".gallery a").nth(1).click()
    expect(page.locator("#clock")).to_have_text(re.compile("frame 4$"))
    expect(page.locator("h1")).to_contain_text("episode 1")
