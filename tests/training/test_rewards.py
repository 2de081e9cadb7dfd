"""Rewards of GRPO: the published table to the last digit, and what the mended one does where that goes wrong."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.progresslm import WEIGHTS, ReplyReward, Truth, mended, published

ANSWERABLE = Truth(3, 42.0, 5)
UNANSWERABLE = Truth(None, None, 5)


def reply(ref: str = "3", score: str = "42%", score_think: str = "b") -> str:
    reference = f"<ref_think>a</ref_think>\n<ref>{ref}</ref>"
    return f"{reference}\n<score_think>{score_think}</score_think>\n<score>{score}</score>"


def overall(reward: ReplyReward) -> float:
    """The sum of the parts as GRPO weighs them."""
    return sum(weight * getattr(reward, part) for part, weight in WEIGHTS.items())


REFUSAL = reply("n/a", "n/a", "n/a")

# reply, label, overall, format, score, ref, error of ref, error of score
PUBLISHED = {
    "right": (reply(), ANSWERABLE, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0),
    "one and ten off": (reply("4", "52%"), ANSWERABLE, 0.93875, 1.0, 0.9, 0.9375, 0.25, 0.1),
    "two and 58 off": (reply("5", "100%"), ANSWERABLE, 0.701, 1.0, 0.42, 0.75, 0.5, 0.58),
    "a fraction is read as percent": (
        reply(score="0.42"),
        ANSWERABLE,
        0.87526,
        1.0,
        0.5842,
        1.0,
        0.0,
        0.4158,
    ),
    "refuses": (REFUSAL, ANSWERABLE, -0.5, 0.7, -0.8, -0.8, 1.0, 1.0),
    "refuses only the reference": (reply("n/a"), ANSWERABLE, 0.04, 0.7, 1.0, -0.8, 1.0, 0.0),
    "empty": ("", ANSWERABLE, 0.12, 0.6, 0.0, 0.0, 1.0, 1.0),
    "rightly refuses": (REFUSAL, UNANSWERABLE, 0.84, 1.0, 0.8, 0.8, 0.0, 0.0),
    "refuses with a reason": (
        reply("n/a", "n/a", "another"),
        UNANSWERABLE,
        0.78,
        0.7,
        0.8,
        0.8,
        0.0,
        0.0,
    ),
    "answers": (reply("2", "30%"), UNANSWERABLE, -0.1, 0.7, -0.3, -0.3, 1.0, 1.0),
    "empty, unanswerable": ("", UNANSWERABLE, -0.18, 0.3, -0.3, -0.3, 1.0, 1.0),
    "names the picture": (reply("The No. 3 image"), ANSWERABLE, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0),
    "speaks first": (f"Sure. {reply()}", ANSWERABLE, 0.92, 0.6, 1.0, 1.0, 0.0, 0.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_reward(name: str) -> None:
    response, truth, *expected = PUBLISHED[name]
    r = published(response, truth)
    reward_values = [overall(r), r.format, r.score, r.ref, r.ref_error, r.score_error]
    assert reward_values == pytest.approx(expected, abs=1e-12)


def test_the_published_reward_does_not_know_na() -> None:
    assert overall(published(reply("na", "na", "na"), UNANSWERABLE)) < 0
    assert overall(mended(reply("na", "na", "na"), UNANSWERABLE)) == pytest.approx(1)


def test_a_refusal_beats_silence_only_in_the_mended_reward() -> None:
    assert overall(published("", ANSWERABLE)) > overall(published(REFUSAL, ANSWERABLE))
    assert overall(mended("", ANSWERABLE)) < overall(mended(REFUSAL, ANSWERABLE))


def test_right_beats_wrong_beats_refusal_beats_silence() -> None:
    order = [reply(), reply("4"), reply("5", "90%"), REFUSAL, "The arm moves."]
    values = [overall(mended(response, ANSWERABLE)) for response in order]
    assert all(a > b for a, b in pairwise(values))


@given(
    st.text() | st.builds(reply, st.text(), st.text(), st.text()),
    st.sampled_from([ANSWERABLE, UNANSWERABLE, Truth(1, 0.0, 1), Truth(9, 100.0, 9)]),
)
def test_every_reply_has_a_reward(response: str, truth: Truth) -> None:
    assert -0.8 - 1e-9 <= overall(published(response, truth)) <= 1 + 1e-9
    assert -0.8 - 1e-9 <= overall(mended(response, truth)) <= 1 + 1e-9


@pytest.mark.parametrize(
    "wrong", [(None, 3.0, 5), (2, None, 5), (6, 3.0, 5), (0, 3.0, 5), (1, 101.0, 5)]
)
def test_a_label_that_contradicts_itself_is_refused(wrong) -> None:
    with pytest.raises(
        ValueError, match=r"of reference and score one|reference . of 5 items|a score of"
    ):
        Truth(*wrong)
