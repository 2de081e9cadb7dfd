"""The tables of the stand-in beside its first one: what a confidence means, and what a minute of pictures costs."""

from itertools import product

from benchmarks.vlm_other_ways import minute_rows
from benchmarks.vlm_stand_in import PAGE, Outcome, reliability_rows, with_reliability


def test_reliability_is_that_of_other_robots_where_one_is_left_out() -> None:
    """F1 is twice the confidence on each robot but one, whose labels are for that reason told too low."""
    usual_outcomes = [
        Outcome(f1=2 * c, confidence=c, for_review=False, robot=r)
        for r, c in product("ab", (0.25, 0.35, 0.45))
    ]
    outlier = [Outcome(f1=1.0, confidence=0.2, for_review=False, robot="c")]
    rows = reliability_rows(
        [*usual_outcomes, *outlier, Outcome(f1=0.0, confidence=0.95, for_review=True, robot="a")]
    )
    assert [row[1] for row in rows] == ["5", "2", "0", "0", "0"]
    assert rows[0][2] == "0.68"
    assert rows[1][2] == "0.90"
    # By a and b, c's confidence of 0.2 means an F1 of 0.4: in the second row, though it is 1.0
    assert rows[1][3:] == ["1 runs", "1.00"]


def test_reliability_takes_the_place_of_what_the_page_has() -> None:
    page = with_reliability(PAGE.read_text(), [["0.0 to 0.4", "3", "0.31", "2 runs", "0.30"]])
    assert "| 0.0 to 0.4 | 3 | 0.31 |\n" in page
    assert page.count("<!-- confidence -->") == page.count("<!-- end of confidence -->") == 1
    assert with_reliability(page, []).count("0.0 to 0.4") == 0


def test_a_video_is_no_cheaper_than_sheets_that_tell_as_many_times() -> None:
    """Why no video is sent: it is, for as many pictures, but has half of their times."""
    tokens = {(name, times): int(cost.replace(",", "")) for name, _, times, cost in minute_rows()}
    assert tokens["as a video", "60"] < 0.6 * tokens["in contact sheets", "120"]
    for times in ("60", "120"):
        assert tokens["as a video", times] > tokens["in contact sheets", times]
    assert tokens["each by itself", "120"] > 1.5 * tokens["in contact sheets", "120"]
