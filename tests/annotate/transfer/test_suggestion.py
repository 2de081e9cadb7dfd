"""Which episode to label next."""

from annotate.motion.config import MotionConfig
from annotate.transfer.config import TransferConfig
from annotate.transfer.suggestion import suggested
from tests.kits.transfer_runs import pace, run_along

CONFIG, MOTION = TransferConfig(), MotionConfig()


def test_nothing_that_can_be_compared():
    runs = [run_along(pace(50, k), k) for k in range(2)]
    blind = [type(run)(run.fps, run.change, None, episode_index=run.episode_index) for run in runs]
    assert suggested(blind, [], [0, 1], CONFIG, MOTION) is None
