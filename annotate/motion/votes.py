"""Episodes whose own signals do not show their steps are labelled by the others of their task.

Each is laid beside those whose labels are sure, or, where there are none, beside all; its progress is the mean of what
these say of each of its moments. An episode that failed is laid beside those that did not.
"""

from collections.abc import Container, Mapping, Sequence

from annotate.alignment.moments import Moments, task_moments, usual_distances
from annotate.carrying import Carried, LabelReading, carry_over, laid, with_usual
from annotate.motion.observe import Observed
from annotate.motion.structure import OwnLabel
from core.values import spread

MIN_EPISODES = 3  # of a task: fewer do not show what is usual for it
MOST_VOTERS = 12  # more make it slow and say little that is new


def votes(episodes: Sequence[Observed], labels: Sequence[OwnLabel]) -> dict[int, Carried]:
    """What the others say, by the place of each episode that needs it; none where nothing can be compared."""
    finished = [i for i, e in enumerate(episodes) if not e.failed]
    sure = [i for i in finished if labels[i].shows_others]
    by_all = len(sure) < MIN_EPISODES - 1
    voters = spread(finished if by_all else sure, MOST_VOTERS)
    wanting = [i for i in range(len(episodes)) if i not in sure]
    if len(episodes) < MIN_EPISODES or not wanting or len(voters) < MIN_EPISODES - 1:
        return {}
    moments = task_moments(episodes)
    if not moments[0].is_comparable:
        return {}

    beside = {i: [v for v in voters if v != i] for i in sorted({*wanting, *voters})}
    beside = {i: others for i, others in beside.items() if len(others) >= MIN_EPISODES - 1}
    found = _voted(moments, labels, beside, voters, finished if by_all else ())
    return {i: carried for i, carried in with_usual(found, voters).items() if i in wanting}


def _voted(
    moments: Sequence[Moments],
    labels: Sequence[OwnLabel],
    beside: Mapping[int, Sequence[int]],
    voters: Sequence[int],
    own_counts: Container[int],
) -> dict[int, Carried]:
    """What the episodes that each is laid beside say of it; what it says itself where `own_counts`."""
    usual = usual_distances([moments[v] for v in voters])
    said, found = [LabelReading(own.curve, dict(enumerate(own.ends))) for own in labels], {}
    for i, besides in laid({i: moments[i] for i in beside}, beside, moments, usual):
        references = [(moments[v], said[v], one) for v, one in besides.items()]
        found[i] = carry_over(moments[i], references, said[i] if i in own_counts else None)
    return found
