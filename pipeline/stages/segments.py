"""Subtask spans of each episode of a chunk, by the configured annotator."""

from functools import partial

from core.tables import TABLES
from pipeline.annotators import ANNOTATORS
from pipeline.checks import cost_check
from pipeline.labelled import LabelPlace, alignment_table, label_columns, of_label_run, segment_tables
from pipeline.pictures import segments_figure
from pipeline.stage import Output, Stage, StageContext


def run(context: StageContext) -> Output:
    label_run = context.build.label_run()
    annotated = ANNOTATORS[label_run.annotator](context)
    labels = sorted(annotated.by_episode.items())
    place = LabelPlace(context.dataset, context.chunk, label_run.id)
    tables = segment_tables(
        place,
        ((episode, label.segments, label.num_planned, label_columns(label)) for episode, label in labels),
    )
    # Pictures decoded to find boundaries are a part of what the label rests on
    if annotated.keyframes is not None:
        keyframes = [row | {"label_run": label_run.id} for row in annotated.keyframes]
        tables["keyframes"] = TABLES["keyframes"].rows(keyframes)

    if annotated.alignments:
        tables["alignments"] = alignment_table(place, annotated.alignments)

    per_episode = tables["segments"].num_rows / len(labels) if labels else 0.0
    numbers = {"label_run": label_run.id, "episodes": len(labels), "segments_per_episode": per_episode}
    return Output(
        tables,
        annotated.findings,
        registered=of_label_run(label_run.id, vars(label_run)),
        numbers=numbers | dict(annotated.numbers),
    )


STAGE = Stage(
    name="segments",
    upstream=("episodes", "frames"),
    run=run,
    config=lambda build: (build.label_run().id,),
    code_version=lambda build: build.label_run().code_version,
    description="Subtask spans of each episode, by the configured annotator.",
    reads=("outcomes",),
    label_run=lambda build: build.label_run().id,
    asks_model=True,
    checks=(cost_check(),),
    picture=partial(segments_figure, "segments"),
)
