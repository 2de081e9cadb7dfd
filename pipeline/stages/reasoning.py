"""Why the task is as far as it is, in words, at some frames of each episode; only where a VLM annotates."""

from functools import partial

from annotate.vlm.reason import reason_episode
from core.tables import TABLES
from pipeline.annotators import albums, episode_view
from pipeline.checks import cost_check
from pipeline.config import DatasetBuild
from pipeline.pictures import segments_figure
from pipeline.stage import Output, Stage, StageContext
from pipeline.vlm_chunk import EpisodeQuestions, ask_chunk
from warehouse.lake.labels import labels_of_run


def run(context: StageContext) -> Output:
    lake, build = context.lake, context.build
    label_run = build.label_run().id
    labels = labels_of_run(lake.con, build.name, context.chunk, label_run)
    task_of_episode = dict(
        lake.rows(
            "SELECT episode_index, task FROM episode_labels WHERE dataset = ? AND chunk = ? AND label_run = ?",
            [build.name, context.chunk, label_run],
        )
    )

    questions = []
    for episode, album in albums(context):
        label = labels.get(episode.episode_index)
        if label:
            view = episode_view(build, episode, album, task_of_episode[episode.episode_index])
            ask = partial(reason_episode, view, label.segments, label.num_planned, config=build.stages.vlm)
            questions.append(EpisodeQuestions(album, ask))
    answers = ask_chunk(context, questions)

    rows = []
    for episode_index, reasons in sorted(answers.by_episode.items()):
        where = {
            "dataset": build.name,
            "episode_index": episode_index,
            "chunk": context.chunk,
            "label_run": label_run,
        }
        rows += [where | reason.__dict__ for reason in reasons]
    return Output({"reasoning": TABLES["reasoning"].rows(rows)}, answers.findings, numbers=answers.numbers)


def _asks_for_reasons(build: DatasetBuild) -> bool:
    return build.annotator == "vlm" and build.stages.vlm.reason


STAGE = Stage(
    name="reasoning",
    upstream=("frames", "segments"),
    run=run,
    config=lambda build: (build.label_run().id,),
    code_version=lambda build: build.label_run().code_version,
    description=(
        "Why the task is as far as it is, in words, for some frames of each episode; only where a VLM annotates."
    ),
    main_table="reasoning",
    applies=_asks_for_reasons,
    label_run=lambda build: build.label_run().id,
    asks_model=True,
    checks=(cost_check(),),
    picture=segments_figure,  # the segments that reasons are given for
)
