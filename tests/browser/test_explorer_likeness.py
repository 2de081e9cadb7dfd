"""Likeness in a real browser: from the moment of one run to the same moment of another."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.kits.browser_kit import Watched, watching
from tests.kits.embedded import look_at
from tests.kits.made_corpus import Made

pytestmark = pytest.mark.browser
EVERY_PICTURE_IS_THERE = "images => images.every(i => i.complete && i.naturalWidth > 0)"


@pytest.fixture
def watched(browser: Browser, made: Made, tmp_path: Path) -> Iterator[Watched]:
    space = made.copy(tmp_path).space
    look_at(space)
    with watching(browser, space, height=860) as watched:
        yield watched


def test_from_a_moment_to_the_same_moment_of_another_run(watched: Watched):
    page = watched.open("/episode/tiny/0")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#clock")).to_have_text(re.compile("frame 4$"))
    page.get_by_role("link", name="Similar frames").click()
    expect(page).to_have_url(re.compile(r"/like/tiny/0\?frame=4$"))
    pictures = page.locator(".gallery img")
    expect(pictures).to_have_count(3)  # this one, and the two other runs that were looked at
    page.wait_for_function(f"() => ({EVERY_PICTURE_IS_THERE})([...document.querySelectorAll('.gallery img')])")
    page.locator(".gallery a").nth(1).click()
    expect(page.locator("#clock")).to_have_text(re.compile("frame 4$"))
    expect(page.locator("h1")).to_contain_text("episode 1")


def test_runs_show_their_contact_sheets(watched: Watched):
    page = watched.open("/episode/tiny/0")
    page.get_by_role("link", name="Similar episodes").click()
    expect(page.locator(".gallery li")).to_have_count(2)
    page.locator(".gallery a").first.hover()
    expect(page.locator(".gallery .sheet")).to_have_count(1)


def test_without_embeddings_there_is_a_sentence(watched: Watched):
    page = watched.open("/episode/tiny/3")
    page.get_by_role("link", name="Similar frames").click()
    expect(page.locator("#why-not")).to_contain_text("no encoder has looked at it")
    expect(page.locator(".gallery")).to_have_count(0)
