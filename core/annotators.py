"""The annotators: one row for each. The configuration's choices, their help, whose label counts
first and label runs follow from this list, and so do the words for who made a label.

A new annotator is a row here and a module of its own below `pipeline/`, with the two functions that
the row names.
"""

import pkgutil
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Annotator:
    """One annotator.

    name: in configurations, label runs and tables. precedence: among an episode's labels the one of
    the lowest number counts, where neither a person nor the configuration decides. needs: what it
    makes labels from. help: words behind its name for --annotator. settings: the section of a
    build's configuration that it has; empty: none.

    label_run, labels: import paths `module:name`, because this room imports no other.
    `label_run(build)` gives its label run, with the code version; `labels(context, episodes)` the
    labels of a chunk's episodes. An annotator without `labels` has a stage of its own.
    """

    name: str
    precedence: int
    needs: str
    help: str
    settings: str
    label_run: str
    labels: str = ""

    def label_run_of(self, build: Any) -> Any:
        """The label run (core.domain.label_run.LabelRun) of its labels in a build (pipeline.config.DatasetBuild)."""
        return pkgutil.resolve_name(self.label_run)(build)

    def labels_of(self, context: Any, episodes: Any) -> Any:
        """What the stage `segments` publishes for the episodes of a chunk (pipeline.labelled.ChunkAnswers)."""
        return pkgutil.resolve_name(self.labels)(context, episodes)


ANNOTATORS = (
    Annotator(
        name="motion",
        precedence=4,
        needs="the robot's states and gripper, and how much the pictures change",
        help="",
        settings="motion",
        label_run="pipeline.label_runs:motion_run",
        labels="pipeline.stages.segments:by_motion",
    ),
    Annotator(
        name="native",
        precedence=1,
        needs="steps with times in the source; episodes without them are labelled by motion",
        help="the source's steps",
        settings="",
        label_run="pipeline.label_runs:native_run",
        labels="pipeline.stages.segments:by_native",
    ),
    Annotator(
        name="vlm",
        precedence=3,
        needs="a server with a vision-language model",
        help="",
        settings="vlm",
        label_run="pipeline.label_runs:vlm_run",
        labels="pipeline.vlm_chunk:by_vlm",
    ),
    Annotator(
        name="transfer",
        precedence=2,
        needs="references: labelled runs of the same task",
        help="that first",
        settings="transfer",
        label_run="pipeline.label_runs:transfer_run",
    ),
)
AUTO = "auto"  # the source and its references decide which annotator it is
NAMES = tuple(annotator.name for annotator in ANNOTATORS)
CHOICES = (AUTO, *NAMES)
PRECEDENCE = tuple(
    annotator.name for annotator in sorted(ANNOTATORS, key=lambda annotator: annotator.precedence)
)
HUMAN = "human"  # annotator of the label runs that hold people's corrections
IMPORTED = "imported"  # annotator of label runs that another tool made
HOW_AUTO_CHOOSES = "native where the source brings steps, else transfer where a reference shows the task, else motion"


def annotator_named(name: str) -> Annotator:
    """The annotator of that name. Raises KeyError."""
    return {annotator.name: annotator for annotator in ANNOTATORS}[name]


def in_words(names: tuple[str, ...]) -> str:
    """Example: in_words(("auto", "motion", "vlm")) is "auto, motion or vlm"."""
    return f"{', '.join(names[:-1])} or {names[-1]}"


def choices_with_help() -> str:
    """Every choice of --annotator with the words that explain it."""
    annotators = (f"{a.name} ({a.help})" if a.help else a.name for a in ANNOTATORS)
    return ", ".join((f"{AUTO} ({HOW_AUTO_CHOOSES})", *annotators))


# Who made a label, in words. The same rule twice: over rows of the lake, and over values

FROM_THE_SOURCE = "steps of the source"
BY_PEOPLE = "people"
LIKE_THE_MODELS = "like those of vlm"


def made_by(annotator: str, steps_from: str | None, *, follows: bool) -> str:
    """Who made a label: `annotator` of its label run, `steps_from` of the label; follows: it was
    made like a label that a model made of another run.

    Example: made_by("native", None, follows=False) is "motion", which labels episodes without steps.
    """
    if steps_from is not None:
        return FROM_THE_SOURCE
    if annotator == "native":
        return "motion"
    if annotator == HUMAN:
        return BY_PEOPLE
    if follows:
        return LIKE_THE_MODELS
    return annotator


def follows_sql(annotator: str, label: str) -> str:
    """SQL condition: a label was made like one that a model made of another run.

    annotator: column of the label run; label: alias of a table with dataset, episode_index and
    label_run, or empty.
    """
    prefix = f"{label}." if label else ""
    key = ", ".join(f"{prefix}{column}" for column in ("dataset", "episode_index", "label_run"))
    return f"{annotator} = 'vlm' AND ({key}) IN ( SELECT (dataset, episode_index, label_run) FROM alignments)"


def made_by_sql(annotator: str, steps_from: str, follows: str) -> str:
    """`made_by` as an expression of SQL over columns, or conditions, of these names; null without an annotator."""
    return (
        f"CASE WHEN {steps_from} IS NOT NULL THEN '{FROM_THE_SOURCE}' WHEN {annotator} = 'native' THEN 'motion' "
        f"WHEN {annotator} = '{HUMAN}' THEN '{BY_PEOPLE}' WHEN {follows} THEN '{LIKE_THE_MODELS}' ELSE {annotator} END"
    )
