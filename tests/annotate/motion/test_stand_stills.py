"""Stand-stills between which grippers work."""

from annotate.motion import MotionConfig
from annotate.motion.stand_stills import without_spans

CONFIG = MotionConfig()


def test_a_gripper_that_works_in_a_stand_still_parts_it():
    assert without_spans([(20, 50)], [(30, 34)], 100, CONFIG, 10.0) == [(20, 30), (34, 50)]
    assert without_spans([(20, 50)], [(22, 26)], 100, CONFIG, 10.0) == [(26, 50)]


def test_a_gripper_that_works_all_the_time_costs_no_more_than_its_events():
    """Each event once doubled the pieces, empty ones included: 40 of them did not fit into memory."""
    works = [(100 + 20 * k, 110 + 20 * k) for k in range(200)]
    rests = [(0, 50), (4_200, 4_300)]
    assert without_spans(rests, works, 5_000, CONFIG, 10.0) == rests
