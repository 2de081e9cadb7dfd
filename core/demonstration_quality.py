"""The view `demonstration_quality`: each run against the others of its task, over `demonstration_measures`.

It is SQL and not a table, since it depends on all chunks of a dataset: nothing that is stored goes out of date.
"""

from collections.abc import Sequence
from dataclasses import dataclass

FEWEST = 5  # runs of a task that did not fail: fewer do not show what is usual
ODD_Z = 2  # robust standard deviations from which on a part is named
MOST_Z = 5  # more of them say no more
HALVES_Z = 3  # one part that is so far off halves the score
MOST_COMPARED = 50  # runs of a task whose ends others are compared with, evenly spread
MAD_TO_STD = 1.4826  # times the median absolute deviation estimates the standard deviation of a normal distribution
LEAST_SPREAD = 0.05  # of the dimension that moves most: others that move less do not count in full
STATE_FLOOR, PICTURE_FLOOR = (
    0.05,
    4.0,
)  # standard deviations of the task's states; bits of the perceptual hash
AS_USUAL = "as usual"
TOO_FEW = "too few runs to compare"
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Part:
    """One thing that a demonstration is judged by.

    value: SQL over the columns of a run, and the same with _usual for the median of its task.
    least: a smaller deviation does not count as one, however alike the runs are.
    both_ways: less than usual is odd, too. short, why: SQL of the word for facets, and of the sentence for people.
    """

    name: str
    value: str
    least: float
    short: str
    why: str
    both_ways: bool = False


def _times(name: str) -> str:
    """SQL of how many times as much as usual, of a part whose value is a logarithm."""
    return f"format('{{:.2g}}', exp({name} - {name}_usual))"


def _counts(name: str) -> str:
    return f"{name}::INTEGER || ', others of its task ' || format('{{:.2g}}', {name}_usual)"


PARTS = (
    Part(
        "rest",
        "rest_s / duration_s",
        0.05,
        "'stands still'",
        "format('stands still for {:.0f} % of its time, others of its task {:.0f} %', 100 * rest, 100 * rest_usual)",
    ),
    Part(
        "pauses",
        "pauses",
        1.0,
        "'stops on the way'",
        f"'stand-stills on the way: ' || {_counts('pauses')}",
    ),
    Part(
        "reversals", "reversals", 1.0, "'turns back'", f"'turns back: ' || {_counts('reversals')}"
    ),
    Part(
        "jerk",
        "ln(jerk)",
        0.1,
        "'moves roughly'",
        f"'its jerk is ' || {_times('jerk')} || ' times the usual'",
    ),
    Part(
        "length",
        "ln(duration_s)",
        0.05,
        "CASE WHEN length > length_usual THEN 'takes long' ELSE 'is short' END",
        f"{_times('length')} || ' times as long as others of its task'",
        both_ways=True,
    ),
    Part(
        "gripper",
        "gripper_moves",
        0.8,  # one needless closing and opening is odd where the others need none
        "'gripper moves more'",
        f"'closings and openings of the gripper: ' || {_counts('gripper')}",
    ),
    Part(
        "end_state",
        f"ln(end_state_apart + {STATE_FLOOR})",
        0.35,
        "'ends elsewhere'",
        f"'ends ' || {_times('end_state')} || ' times as far from others of its task as is usual'",
    ),
    Part(
        "end_picture",
        f"ln(end_picture_apart + {PICTURE_FLOOR})",
        0.35,
        "'last picture differs'",
        f"'its last picture is ' || {_times('end_picture')} || ' times as unlike those of others as is usual'",
    ),
)
NAMES = [part.name for part in PARTS]


def _z(part: Part) -> str:
    """SQL of how odd a run is in one part: 0 where it is as the others or better; null where it is not known."""
    away = f"({part.name} - {part.name}_usual)"
    # greatest(0, NULL) is 0
    away = f"abs({away})" if part.both_ways else f"CASE WHEN {away} < 0 THEN 0 ELSE {away} END"
    return f"{away} / greatest({part.least}, {MAD_TO_STD} * {part.name}_mad) AS {part.name}_z"


def _each(template: str, parts: Sequence[str] = NAMES, between: str = ", ") -> str:
    return between.join(template.replace("PART", part) for part in parts)


# As far as each of the nearer half of the runs that it is compared with
_NEARER_HALF = (
    "list_avg(list_sort(list(PART) FILTER (PART IS NOT NULL))[1:greatest(1, count(PART) // 2)])"
)
DEMONSTRATION_SQL = f"""
        WITH runs AS (
          SELECT *, row_number() OVER (of_task ORDER BY episode_index) AS nth, count(*) OVER of_task AS num
          FROM (SELECT m.*, f.task, f.success, f.success IS DISTINCT FROM false AS is_usual,
                  -- Nobody knows what a run without a text has in common with others: it is a task of its own
                  coalesce(j.same_as, f.task, chr(0) || m.episode_index) AS same_as
                FROM demonstration_measures m JOIN episode_facts f USING (dataset, episode_index)
                LEFT JOIN current_joined_tasks j ON j.dataset = f.dataset AND j.task = f.task)
          WINDOW of_task AS (PARTITION BY dataset, same_as, is_usual)),
        -- Ends are compared with those of some runs, evenly spread: with all of them large tasks would take forever
        shown AS (FROM runs WHERE is_usual AND nth * least(num, {MOST_COMPARED}) // num
                  <> (nth - 1) * least(num, {MOST_COMPARED}) // num),
        spreads AS (
          SELECT dataset, same_as, list(spread ORDER BY d) AS spreads FROM (
            SELECT dataset, same_as, d, median(spread) AS spread FROM (
              SELECT dataset, same_as, unnest(state_spread)::DOUBLE AS spread,
                     generate_subscripts(state_spread, 1) AS d FROM shown) GROUP BY ALL) GROUP BY ALL),
        scaled AS (
          SELECT r.dataset, r.episode_index, same_as, camera, end_phash,
                 CASE WHEN len(end_state) = len(spreads) THEN
                   list_transform(list_zip(end_state, spreads), lambda x: CASE WHEN list_max(spreads) > 0
                     THEN x[1] / greatest(x[2], {
    LEAST_SPREAD
} * list_max(spreads)) / sqrt(len(spreads)) ELSE 0 END)
                   END AS place
          FROM runs r LEFT JOIN spreads USING (dataset, same_as)),
        apart AS (
          SELECT a.dataset, a.episode_index,
                 list_distance(a.place, b.place) AS state,
                 CASE WHEN a.camera = b.camera THEN bit_count(xor(a.end_phash, b.end_phash)) END AS picture
          FROM scaled a JOIN (SELECT c.* FROM scaled c SEMI JOIN shown USING (dataset, episode_index)) b
            ON a.dataset = b.dataset AND a.same_as = b.same_as AND a.episode_index <> b.episode_index),
        ends AS (
          SELECT dataset, episode_index, {_NEARER_HALF.replace("PART", "state")} AS end_state_apart,
                 {
    _NEARER_HALF.replace("PART", "picture")
} AS end_picture_apart FROM apart GROUP BY ALL),
        measured AS (
          SELECT r.dataset, r.episode_index, r.task, r.same_as, r.success, r.is_usual,
                 {", ".join(f"{part.value} AS {part.name}" for part in PARTS)}
          FROM runs r LEFT JOIN ends USING (dataset, episode_index)),
        usual AS (
          SELECT dataset, same_as, count(*) AS num_usual,
                 {_each("median(PART) AS PART_usual, mad(PART) AS PART_mad")}
          FROM measured WHERE is_usual GROUP BY ALL),
        -- Where too few runs show what is usual, the usual is null, and so is all that is compared with it
        compared AS (
          SELECT m.*, coalesce(num_usual, 0) AS num_usual, {_each("PART_usual")},
                 {", ".join(map(_z, PARTS))}
          FROM measured m LEFT JOIN usual u
            ON u.dataset = m.dataset AND u.same_as = m.same_as AND u.num_usual >= {FEWEST}),
        judged AS (
          SELECT *, list_filter([{
    ", ".join(f"{{'z': {p.name}_z, 'short': {p.short}, 'why': {p.why}}}" for p in PARTS)
}], lambda part: part.z >= {ODD_Z}) AS odd FROM compared)
        SELECT dataset, episode_index, task, success, num_usual,
               CASE WHEN num_usual > 0 THEN round(0.5 ^ (({
    _each(f"least({MOST_Z}, coalesce(PART_z, 0)) ^ 2", between=" + ")
}) / {HALVES_Z**2}), 6) END AS score,
               CASE WHEN num_usual = 0 THEN '{TOO_FEW}' WHEN len(odd) = 0 THEN '{AS_USUAL}'
                 ELSE list_sort(odd, 'DESC')[1].short END AS main,
               CASE WHEN num_usual = 0 THEN ['{TOO_FEW}']
                 ELSE list_transform(list_sort(odd, 'DESC'), lambda part: part.why) END AS why,
               {_each("round(PART_z, 4) AS PART_z")},
               rest AS rest_share, rest_usual AS rest_share_usual, exp(length - length_usual) AS times_as_long
        FROM judged ORDER BY score NULLS LAST, dataset, episode_index"""
DEMONSTRATION_COLUMNS = """
  num_usual: number of runs of its task that it is compared with; known failures do not count; 0: fewer than five
  score: 1: typical for its task; each part that is 3 robust deviations off halves it; null: too few runs
  main: its most unusual part in two or three words; else 'as usual' or 'too few runs to compare'
  why: its unusual parts in words, the most unusual first
  rest_z: share of time at rest: robust deviations above the task's median; 0: not above it
  pauses_z: number of stand-stills on the way: robust deviations above the task's median
  reversals_z: number of times that it turns back: the same; null: no state
  jerk_z: jerk: the same; null: no state
  length_z: logarithm of its duration: robust deviations from the task's median, above or below
  gripper_z: closings and openings of its gripper: robust deviations above the task's median; null: no gripper
  end_state_z: distance of its last state from those of other runs: the same; null: no state
  end_picture_z: difference of its last picture from those of other runs, by perceptual hash: the same
  rest_share: share of its time in which it stands still
  rest_share_usual: median of that share over the runs of its task
  times_as_long: its duration divided by the median of its task"""
