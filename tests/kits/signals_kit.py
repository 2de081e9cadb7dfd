"""Grippers and hands for tests: one signal, and a corpus whose robot has two."""

from dataclasses import replace
from typing import Any

from core.tables import TABLES
from ingest.episodes import signals_table
from ingest.signals.gripper import GripperSignal
from warehouse.lake import Lake

SIGNAL = GripperSignal(
    arm="",
    kind="gripper",
    column="state",
    dimensions=(6,),
    names=("main_gripper",),
    weights=(1.0,),
    unit="m",
    closed=0.0,
    open=0.07,
    polarity="high_is_open",
    polarity_by="0 to 0.07 is a width in metres",
    confidence=0.953,
    located_by="name",
    is_used=True,
    closings_per_episode=1.4,
    num_surveyed=10,
    survey_version="0123456789abcdef",
)


def signal(**changes: Any) -> GripperSignal:
    """A gripper in metres; `changes`: fields that are other."""
    return replace(SIGNAL, **changes)


LEFT = signal(arm="left")
RIGHT_HAND = signal(
    arm="right",
    kind="hand",
    dimensions=(7, 8, 9, 10),
    names=("thumb", "index", "middle", "ring"),
    weights=(0.25, 0.25, 0.25, 0.25),
    unit="rad",
    closed=-0.02,
    open=1.2,
    polarity="unknown",
    polarity_by="nothing shows it",
    confidence=0.5,
)


def give_two_arms(lake: Lake, dataset: str = "tiny", *more: GripperSignal) -> None:
    """Make a built corpus one of a robot with a left gripper and a right hand, whose openings add up to 1.

    `more`: further signals, which are not used. A lag of the left gripper is corrected.
    """
    lags = [
        {
            "dataset": dataset,
            "chunk": 0,
            "signal": f"left gripper: {direction}",
            "lag_s": lag_s,
            "likeness": 9.0,
            "num_observed": 5,
            "is_corrected": True,
        }
        for direction, lag_s in (("closing", 1.04), ("opening", 1.6))
    ]
    lake.upsert(
        "two arms",
        signals=signals_table(dataset, [LEFT, RIGHT_HAND, *more]),
        signal_lags=TABLES["signal_lags"].rows(lags),
    )
    unused = ", NULL" * len(more)
    lake.con.execute(f"UPDATE frames SET grippers = [gripper, 1 - gripper{unused}] WHERE dataset = ?", [dataset])
