"""Which named steps of motion's labels did not happen, by what people saw on the hand-labelled sets.

    python -m benchmarks.named_deeds [--data FOLDER] [--dataset NAME ...] [--workspace W]

A step that is named by a deed, such as "Grasp the cup", and counts as completed, happened where a person says that the
run completed that deed; an attempt, where a person's segment of the deed is within half a second. A completed deed that
is farther than that from every such segment is mistimed. Steps that are called by the task's text claim no deed. Prints
a line for each step that did not happen or is mistimed, and counts per set.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import annotate.motion.annotator as motion
from annotate.config import MotionConfig
from benchmarks.harness import table, trial_workspace
from benchmarks.label_truth import TRUTH, Known, hand_labelled, names, real_sets
from core.domain.label import IDLE, STEP, Segment
from eval.annotators.truth import NEAR_S

# What people call each deed that motion names
WORDS: Mapping[str, str] = {
    "Reach": r"reach",
    "Grasp": r"grasp|close the \w+ on",
    "Carry": r"carry|lift",
    "Lift": r"lift|carry",
    "Place": r"place|lower|set|put|lay",
    "Lower": r"lower|place|set|put|lay",
    "Release": r"let (it )?go|open the (gripper|hand)|release",
}


@dataclass(frozen=True)
class Deed:
    """A named step of a label, and what people saw: did it happen, and then?"""

    episode_index: int
    step: Segment
    happened: bool
    is_timed: bool


def deeds(known_episode: Known, segments: Sequence[Segment]) -> Iterator[Deed]:
    """The steps of a label of one episode that name a deed."""
    near = NEAR_S * known_episode.signals.fps
    for step in segments:
        words = WORDS.get(step.name.split(" ")[0])
        if (
            step.kind != STEP
            or not step.named
            or words is None
            or step.name == known_episode.signals.task
        ):
            continue
        matching_segments = [
            s
            for s in known_episode.segments
            if s.kind != IDLE
            and re.search(rf"\b(?:{words})\b", s.name)
            and (s.completed or not step.completed)
        ]
        is_timed = any(
            s.start_frame < step.end_frame + near and s.end_frame > step.start_frame - near
            for s in matching_segments
        )
        yield Deed(
            known_episode.signals.episode_index,
            step,
            bool(matching_segments) if step.completed else is_timed,
            is_timed,
        )


def judged(name: str, episodes: Sequence[Known]) -> list[str]:
    """The counts of a set; prints each step that did not happen, or is mistimed."""
    labels = motion.annotate([episode.signals for episode in episodes], MotionConfig())
    segments = [label.segments for label in labels]
    named_deeds = list(chain.from_iterable(map(deeds, episodes, segments)))
    false = [deed for deed in named_deeds if not deed.happened]
    mistimed = [deed for deed in named_deeds if deed.happened and not deed.is_timed]
    for deed in (*false, *mistimed):
        step = deed.step
        deed_kind = "completed" if step.completed else "attempted"
        verdict = "mistimed" if deed.happened else "did not happen"
        frames = f"frames {step.start_frame} to {step.end_frame}"
        print(
            f"{name} episode {deed.episode_index}: {step.name!r}, {deed_kind}, {frames}: {verdict}"
        )
    return [name, *map(str, map(len, (named_deeds, false, mistimed)))]


def main() -> None:
    args = hand_labelled(__doc__)
    with trial_workspace(args.workspace) as space:
        sets = real_sets(space, args.data, TRUTH, names(args))
    rows = [judged(name, episodes) for name, episodes in sets.items()]
    _, *counts = zip(*rows, strict=True)
    rows.append(["all", *(str(sum(map(int, column))) for column in counts)])
    print()
    table(["set", "named deeds", "did not happen", "mistimed"], rows)


if __name__ == "__main__":
    main()
