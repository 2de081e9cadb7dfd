"""From where on a demonstration is odd: the numbers of the view `demonstration_quality` (warehouse/lake/views).

The view compares each run with the others of its task, over the table `demonstration_measures`. It
is SQL and not a table, since it depends on all chunks of a dataset: nothing that is stored goes out
of date.
"""

FEWEST = 5  # runs of a task that did not fail: fewer do not show what is usual
ODD_Z = 2  # robust standard deviations from which on a part is named
MOST_Z = 5  # more of them say no more
HALVES_Z = 3  # one part that is so far off halves the score
MOST_COMPARED = 50  # runs of a task whose ends others are compared with, evenly spread
MAD_TO_STD = 1.4826  # times the median absolute deviation estimates the standard deviation of a normal distribution
LEAST_SPREAD = 0.05  # of the dimension that moves most: others that move less do not count in full
STATE_FLOOR = 0.05  # standard deviations of the task's states
PICTURE_FLOOR = 4.0  # bits of the perceptual hash
AS_USUAL = "as usual"
TOO_FEW = "too few runs to compare"
NOT_MEASURED = "not measured"

# What a demonstration is judged by, and the least deviation of it that counts as one, however alike the runs are
LEAST_DEVIATIONS = {
    "rest": 0.05,  # share of its time
    "pauses": 1.0,
    "reversals": 1.0,
    "jerk": 0.1,  # of the logarithm
    "length": 0.05,  # likewise; less than usual is odd, too
    "gripper": 0.8,  # one needless closing and opening is odd where the others need none
    "end_state": 0.35,  # of the logarithm of the distance, to which a floor is added
    "end_picture": 0.35,  # likewise
}

# What the view's SQL names
SQL_VALUES = {
    "AS_USUAL": AS_USUAL,
    "FEWEST": FEWEST,
    "HALVES_Z_SQUARED": HALVES_Z**2,
    "LEAST_SPREAD": LEAST_SPREAD,
    "MAD_TO_STD": MAD_TO_STD,
    "MOST_COMPARED": MOST_COMPARED,
    "MOST_Z": MOST_Z,
    "ODD_Z": ODD_Z,
    "PICTURE_FLOOR": PICTURE_FLOOR,
    "STATE_FLOOR": STATE_FLOOR,
    "TOO_FEW": TOO_FEW,
    **{f"LEAST_{part.upper()}": deviation for part, deviation in LEAST_DEVIATIONS.items()},
}
