"""What stands below the pictures of a run."""

import numpy as np

from ingest.media.curve_panel import LEAST_PX, PANEL_PX, PAPER, RIGHT_PX, CurvePanel

ROWS = [{"frame_index": 0, "timestamp_s": 0.0, "progress": 0.5, "done": None, "success": None}]
LONG = "put the red cup from the table on the upper shelf"
WORDS = slice(16, 30)  # px from above, of the step's line


def test_a_long_name_of_a_step_has_room():
    picture = np.zeros((64, 64, 3), np.uint8)
    panel = CurvePanel(10.0, ROWS, [(0, 9, LONG)]).below(picture, 0)[-PANEL_PX:]
    at_right = panel[WORDS, LEAST_PX - RIGHT_PX - 80 : LEAST_PX - RIGHT_PX]
    assert (at_right != PAPER).any()
