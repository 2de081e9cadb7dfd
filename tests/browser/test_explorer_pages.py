"""Every page in a real browser: nothing in the console, nothing for axe to find, wide in light and narrow in dark.

`make long` looks at two further sizes.
"""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.kits.explorer_kit import FAILED, QUARANTINED, UNLABELLED
from tests.kits.lake_kit import SLOW

pytestmark = pytest.mark.browser
PAGES = (
    "/",
    "/episodes",
    "/episodes?q=no+such+thing",
    "/episode/tiny/0",
    f"/episode/tiny/{UNLABELLED}",
    "/compare/tiny",
    "/compare/tiny/0",
    "/like/tiny/0",
    "/task/tiny?task=put+the+cube+on+the+plate",
    "/docs/metrics.html",
    "/why/tiny/0",
    "/review",
    "/review?kind=quarantined",
    "/review/beside/tiny",
    "/review/bulk?query=sort%3Dlongest",
    "/episode/tiny/0?queue=all",
    "/sql?q=SELECT+dataset,hours+FROM+coverage&chart=bars",
    "/sql?q=nonsense",
    "/t",
    "/releases",
    "/t/episodes?chart=bars",
    "/training?run=tiny-model",
    "/leaderboard",
    f"/leaderboard/{FAILED}",
)


SIZES = ((1440, 900, "light"), (390, 844, "dark"))
MORE_SIZES = ((1280, 720, "dark"), (375, 700, "light"))


def violations(page: Page) -> list[str]:
    axe_violations = Axe().run(page).response["violations"]
    return [f"{v['id']}: {v['help']}: {v['nodes'][0]['html'][:200]}" for v in axe_violations]


@pytest.mark.parametrize(
    "sizes",
    [pytest.param(SIZES, id="usual"), pytest.param(MORE_SIZES, id="more", marks=pytest.mark.long)],
)
@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_in_order(watched, path, sizes):
    page = watched.open(path)
    page.wait_for_load_state("networkidle")
    for width, height, scheme in sizes:
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert violations(page) == []


# The corpus has one camera: a second one stands below it as the template would have it
SECOND = """() => {
  const cameras = document.querySelector(".cameras");
  cameras.className = cameras.className.replace("of1", "of2");
  cameras.append(cameras.querySelector(".camera").cloneNode(true));
}"""
CAMERAS = """() => [...document.querySelectorAll(".camera")].map((camera, k) => {
  const parts = [camera.closest(".side"), camera.querySelector(".screen")];
  const [box, screen] = parts.map((e) => e.getBoundingClientRect());
  return {video: screen.width, margins: box.width - screen.width, bottom: screen.bottom};
})"""


@pytest.mark.parametrize("path", ["/episode/tiny/0", "/episode/tiny/0?queue=all"])
def test_a_small_screen_has_the_cameras_and_a_low_header(watched, path):
    watched.page.set_viewport_size({"width": 1280, "height": 720})
    page = watched.open(path)
    page.wait_for_function("document.querySelector('.screen video').videoWidth")
    assert page.locator(".tool").bounding_box()["y"] <= 120  # type: ignore[index]
    page.evaluate(SECOND)
    cameras = page.evaluate(CAMERAS)
    assert len(cameras) == 2
    for camera in cameras:
        assert camera["video"] > camera["margins"]
        assert camera["bottom"] <= 720


def test_tiles_stand_in_whole_rows(watched):
    page = watched.open("/")
    for width in (1280, 1440):
        page.set_viewport_size({"width": width, "height": 720})
        tops = page.locator(".totals > div").evaluate_all(
            "all => all.map((e) => e.getBoundingClientRect().top)"
        )
        assert len(tops) > 7
        assert len(set(tops)) == 1


def test_no_picture_is_asked_for_of_what_cannot_be_used(watched):
    requests_sent: list[str] = []
    watched.page.on("request", lambda request: requests_sent.append(request.url))
    for path in ("/episodes", "/review?kind=quarantined"):
        watched.open(path)
        watched.page.wait_for_load_state("networkidle")
    pictures = [url for url in requests_sent if "/media/" in url or "curve.svg" in url]
    assert pictures
    assert [url for url in pictures if f"/tiny/{QUARANTINED}/" in url] == []


def test_an_error_is_a_page_too(watched):
    watched.allowed = ("404",)
    page = watched.open("/episode/tiny/99")
    expect(page.get_by_role("alert")).to_have_text("tiny has no episode 99")
    assert violations(page) == []


def test_light_or_dark_is_remembered(watched):
    page = watched.open("/")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_label("Light or dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    watched.open("/episodes")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_everything_can_be_reached_by_keyboard(watched):
    page = watched.open("/episodes")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("drawer")
    page.keyboard.press("Enter")
    expect(page.locator("#total")).to_have_text("2")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".gallery a").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("episode 1")


def test_the_gallery_narrows_and_leads_back(watched):
    page = watched.open("/episodes")
    expect(page.locator("#total")).to_have_text("5")
    page.locator(".facets").get_by_role("link", name="train").first.click()
    count = page.locator(".facets .chosen .n").inner_text()
    expect(page.locator("#total")).to_have_text(count)
    assert page.locator(".gallery li").count() == int(count)
    page.locator("#sort").select_option("longest")
    page.wait_for_url("**sort=longest**")
    page.go_back()
    page.go_back()
    expect(page.locator("#total")).to_have_text("5")


def test_a_contact_sheet_shows_under_the_pointer(watched):
    page = watched.open("/episodes")
    box = page.locator(".picture").first
    expect(box.locator("img").first).to_have_js_property("naturalHeight", 180)
    box.hover()
    expect(box.locator(".contact")).to_be_visible()
    assert box.locator(".contact").evaluate("e => e.naturalWidth") > 240
    page.mouse.move(5, 400)
    expect(box.locator(".contact")).to_be_hidden()


def test_a_selection_is_copied_as_a_command(watched):
    page = watched.open("/episodes?split=train")
    page.get_by_text("This selection as a command").click()
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").startswith(
        "proccorpus sql 'SELECT e.dataset, e.episode_index"
    )


def test_sql_runs_saves_and_cancels(watched):
    page = watched.open("/sql")
    page.locator("#sql").fill("SELECT dataset, episodes FROM coverage")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#result td").first).to_have_text("tiny")
    page.wait_for_url("**/sql?q=SELECT+dataset*")
    page.locator("#name").fill("how many")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("link", name="how many").click()
    expect(page.locator("#result td").nth(1)).to_have_text("5")
    page.get_by_role("button", name="Delete how many").click()
    expect(page.locator("#saved")).to_have_text("none yet")
    page.locator("#sql").fill(SLOW)
    page.locator("#run").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#told")).to_have_text("stopped")
    page.goto(f"{watched.url}/sql?q=nonsense")
    expect(page.locator("#error")).to_have_class("message error")
    for _ in range(3):  # more than run at once: the stopped one has made room
        page.goto(f"{watched.url}/sql?q=SELECT+42")
        expect(page.locator("#result td").first).to_have_text("42")


def test_why_this_label_opens_the_whole_call(watched):
    page = watched.open("/episode/tiny/0")
    page.get_by_role("link", name="Why this label?").click()
    page.locator("#call-abababababab summary").click()
    expect(page.get_by_text("You watch a robot.")).to_be_visible()
    expect(page.locator("#call-abababababab img")).to_have_js_property("complete", True)
    assert page.locator("#call-abababababab img").evaluate("e => e.naturalWidth") == 64
