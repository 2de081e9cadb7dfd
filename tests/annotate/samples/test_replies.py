"""Replies in ProgressLM's formats: the published way to read them, and the strict way."""

import pytest

from annotate.samples.wording import parse_answer, parse_reply, written_ref, written_score

NA = "n/a"

# (reply, reference, score) as the released evaluation reads them; None: no number there, an error for the score
PUBLISHED = [
    ("<ref>2</ref><score>8%</score>", 2, 0.08),
    ("<ref>The No. 3 demo image</ref><score>0.42</score>", 3, 0.42),
    ("<ref>N/A</ref><score>NA</score>", NA, NA),
    ("<ref>2</ref><score>about 40%</score>", 2, None),
    ("<ref>2</ref><score>150%</score>", 2, 1.0),
    ("<ref>2</ref><score>1</score>", 2, 1.0),
    ("<ref>2</ref><score>1%</score>", 2, 0.01),
    ("<ref>1-2</ref><score>29%</score>", 1, 0.29),
    ("<ref>none</ref>", None, None),
    ("<score>-5%</score>", None, 0.0),
    ("<ref>7</ref><score>nan</score>", 7, 1.0),
    ("<REF>2</REF><SCORE>10%</SCORE>", None, None),
    ("<ref>2</ref><score>40 %</score>", 2, 0.4),
    ("<ref>2</ref><score>0.5%</score>", 2, 0.005),
    ("<ref>1</ref><ref>3</ref><score>10%</score><score>90%</score>", 1, 0.1),
    ("", None, None),
]


@pytest.mark.parametrize(("reply", "ref", "score"), PUBLISHED)
def test_replies_are_read_as_published(
    reply: str, ref: int | str | None, score: float | str | None
) -> None:
    read = parse_reply(reply, "published")
    assert (NA if read.ref_is_na else read.ref) == ref
    assert (NA if read.score_is_na else read.score) == score


# (answer, as Qwen's is read)
NOTHINK = [
    ("75%", 0.75),
    ("75 %", 0.75),
    ("0.75", 0.75),
    ("1.0", 1.0),
    ("1", 1.0),
    ("75", 0.75),
    ("N/A", NA),
    ("n/a (0% visible)", 0.0),
    ("About 40% to 60%", 0.4),
    ("-8%", 0.08),
    ("150%", 1.0),
    (".5", 0.05),
    ("unknown", None),
    ("", None),
]


@pytest.mark.parametrize(("answer", "expected"), NOTHINK)
def test_answers_without_reasoning_are_read_as_published(
    answer: str, expected: float | str | None
) -> None:
    read = parse_answer(answer, "published")
    assert (NA if read.is_na else read.score) == expected


SCORES = [
    ("33%", 0.33), ("0.33", 0.33), ("33", 0.33), ("1", 1.0), ("1%", 0.01), ("n/a", None), ("NA", None), ("none", None),
    ("null", None), ("-", None), ("", None), (None, None), (0.5, 0.5), (50, 0.5), ("-5%", -0.05), ("150%", 1.5),
    ("33 %", 0.33), ("abc", None),
]  # fmt: skip


REFS = [
    ("2", 2),
    (2, 2),
    ("n/a", None),
    ("N/A", None),
    ("", None),
    (None, None),
    ("2.0", None),
    (2.7, 2),
    ("step 2", None),
]


def test_scores_and_references_of_files_are_read_as_published() -> None:
    for written, score in SCORES:
        assert written_score(written) == score, written
    for written, ref in REFS:
        assert written_ref(written) == ref, written


GOOD = "<ref_think>a</ref_think>\n<ref>3</ref>\n<score_think>b</score_think>\n<score>42%</score>"


def test_the_strict_way_reads_four_tags_in_order_and_a_refusal_in_three() -> None:
    strict = parse_reply(GOOD)
    assert (strict.ref, strict.score, strict.ref_think, strict.score_think) == (3, 0.42, "a", "b")
    assert strict.format_ok
    assert strict == parse_reply(GOOD, "published")
    read = parse_reply(
        "<ref_think>no</ref_think><ref>N/A</ref><score_think>n/a</score_think><score>na</score>"
    )
    assert (read.ref, read.ref_is_na, read.score, read.score_is_na, read.format_ok) == (
        None,
        True,
        None,
        True,
        True,
    )
    for reply in (
        f"Sure. {GOOD}",
        f"{GOOD} Done.",
        GOOD.replace("<ref>3</ref>\n", "") + "<ref>3</ref>",
        GOOD.replace("</ref_think>", ""),
        GOOD.upper(),
        GOOD.replace(">b<", "><score>9%</score><"),
    ):
        assert not parse_reply(reply).format_ok, reply
    twice = parse_reply("<ref>1</ref><ref>3</ref><score>10%</score><score>90%</score>")
    assert (twice.ref, twice.score, twice.score_is_na) == (None, None, False)
