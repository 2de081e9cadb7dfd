"""What checks found, on the pages: a filter, the queue's words, stretches under the video."""

import re

from tests.explorer.test_marks import listed
from tests.kits.faulty import BLACK, FROZEN
from tests.kits.made_corpus import Made
from tests.kits.visitor import post, visit

WORDS = "observation.images.front is black for 2.0 s from 3.6 s on"
EVERYWHERE = {
    "dataset": "tiny",
    "check": "camera_black",
    "author": "ada",
    "why": "the lamp was off",
}


def test_stretches_stand_under_the_video_and_are_filtered_by(made_faulty: Made):
    with visit(made_faulty.space) as client:
        assert listed(client, "/episodes?check=camera_black") == ["0"]
        assert listed(client, "/episodes?check=camera_frozen&check=camera_black") == ["0", "2"]
        assert listed(client, "/episodes?check=nothing") == []
        assert '<span>camera_frozen</span><span class="n">1</span>' in client.get("/episodes").text
        assert "a check found a fault" in client.get("/episodes?check=camera_black").text
        page = client.get("/episode/tiny/0").text
        assert re.findall(
            r'class="seek stretch" href="(\S+)" data-frame="(\d+)" data-words="([^"]+)"', page
        ) == [("?t=3.60", str(BLACK.start), WORDS)]
        # On the axis of the label's strip: in percent of all frames
        assert 'class="span fault" x="25.0000%" width="13.8889%"' in page
        assert client.get("/episode/tiny/1").text.count("stretch") == 0
        faults = client.get("/api/episode/tiny/2").json()["faults"]
        assert [(f["start_frame"], f["end_frame"], f["check_name"]) for f in faults] == [
            (FROZEN.start, FROZEN.stop, "camera_frozen")
        ]


def test_the_queue_says_what_was_found(made_faulty: Made):
    with visit(made_faulty.space) as client:
        text = client.get("/review?kind=checks").text
        rows = re.findall(
            r'data-episode="(\d)".*?<td>([^<]*)</td>\s*<td>[\d.]+</td>', text, re.DOTALL
        )
        assert rows[0] == ("0", f"{WORDS}; the annotator is unsure")
        assert [episode for episode, _ in rows] == ["0", "2"]
        assert "Faults found by checks" in text


def test_a_fault_is_accepted_on_its_page(faulty: Made):
    with visit(faulty.space) as client:
        refused = post(client, "/api/acceptances", EVERYWHERE | {"episode_index": 1})
        assert (refused.status_code, "found nothing in episode 1" in refused.text) == (422, True)
        assert post(client, "/api/acceptances", EVERYWHERE | {"why": " "}).status_code == 422
        assert post(client, "/api/acceptances", EVERYWHERE | {"episode_index": 0}).json() == {
            "changed": 1
        }
        assert listed(client, "/episodes?check=camera_black") == []
        page = client.get("/episode/tiny/0").text
        assert "accepted by ada: the lamp was off" in page
        assert 'class="span fault accepted"' in page
        assert "is black" not in client.get("/review").text
        withdrawal = EVERYWHERE | {"episode_index": 0, "on": False, "why": ""}
        assert post(client, "/api/acceptances", withdrawal).json() == {"changed": 1}
        assert post(client, "/api/acceptances", EVERYWHERE).json() == {"changed": 1}
        assert (
            "accepted by ada for all of tiny: the lamp was off"
            in client.get("/episode/tiny/0").text
        )
