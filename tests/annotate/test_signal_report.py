"""Grippers and hands in words."""

from annotate.signal_report import lag, lag_columns, lag_span, line, rests_on_enough
from tests.kits.signal_kit import RIGHT_HAND, signal


def lag_row(signal: str, lag_s: float, *, is_corrected: bool = True) -> dict:
    return {
        "signal": signal,
        "lag_s": lag_s,
        "likeness": 9.0,
        "num_observed": 5,
        "is_corrected": is_corrected,
    }


def test_an_unknown_polarity_and_an_unused_hand_are_said():
    moves = line(RIGHT_HAND)
    assert moves.startswith(
        "right hand: state[7-10] thumb ... ring, -0.02..1.2 rad, which end is open is unknown, "
    )
    assert moves.endswith("; why: nothing shows it")
    assert "sure" not in moves
    unused = line(signal(is_used=False, closings_per_episode=None))
    assert "not used: it does not go from end to end in 10 episodes" in unused
    assert "times an episode" not in unused


def test_a_lag_is_shown_where_labels_are_corrected_by_it():
    left_signal = signal(arm="left")
    right = signal(arm="right")
    lags = [
        lag_row("left gripper: closing", 1.04),
        lag_row("left gripper: closing", 0.9),
        lag_row("left gripper: opening", 1.6),
        lag_row("right gripper: closing", 2.0, is_corrected=False),
        lag_row("state", -0.3),
    ]
    assert lag(left_signal, lags) == "closing 0.9 to 1.0 s behind, opening 1.6 s behind"
    assert (
        "closes 1.4 times an episode, closing 0.9 to 1.0 s behind, opening 1.6 s behind the pictures (corrected)"
        in (line(left_signal, lags))
    )
    assert (lag(right, lags), "behind" in line(right, lags)) == ("", False)
    assert lag_span("state", lags) == "0.3 s ahead of"
    assert lag_span("action", lags) == ""


def test_a_measured_lag_says_on_what_it_rests():
    assert lag_columns(lag_row("left gripper: closing", 1.04)) == {
        "signal": "left gripper: closing",
        "behind the pictures": "1.04 s",
        "likeness": 9.0,
        "measured on": "5 moves",
        "labels corrected": "yes",
    }
    assert rests_on_enough(lag_row("left gripper: closing", 1.04))
    assert not rests_on_enough(lag_row("left gripper: closing", 1.04) | {"num_observed": 1})
    of_arm = lag_columns(lag_row("state", 0.1, is_corrected=False))
    assert (of_arm["measured on"], of_arm["labels corrected"]) == ("5 episodes", "no")
