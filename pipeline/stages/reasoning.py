"""Why the task is as far as it is, in words, at some frames of each episode; only where a VLM annotates."""

from functools import partial

from annotate.vlm.annotator import Reasoning, reason_episode
from core.tables import TABLES
from pipeline.labelled import LabelPlace, kept_reasons, with_kept_findings, with_kept_rows
from pipeline.stage import Output, StageContext
from pipeline.vlm_chunk import ChunkModel, albums, episode_view
from warehouse.lake.stored import followers, labels_of


def run(context: StageContext) -> Output:
    lake = context.lake
    build = context.build
    label_run = build.label_run().id
    labels = labels_of(lake.con, build.name, context.chunk, label_run=label_run, whole=True)
    questions = []
    not_asked = followers(lake.con, label_run)
    stored_reasons = kept_reasons(context)
    for episode, album in albums(
        context, [e for e in context.signals() if e.episode_index not in stored_reasons]
    ):
        label = labels.get(episode.episode_index)
        # The model was not asked about a run that follows others
        if label and (build.name, episode.episode_index) not in not_asked:
            view = episode_view(build.name, episode, album, label.task)
            ask_reasons = partial(
                reason_episode, view, label.segments, label.num_planned, config=build.stages.vlm
            )
            questions.append((album, ask_reasons))
    model = ChunkModel[list[Reasoning]](context)
    model.run(model.ask(questions))
    answers = model.answers()
    place = LabelPlace(build.name, context.chunk, label_run)
    rows = [
        place.of(k) | vars(reason)
        for k, reasons in sorted(answers.by_episode.items())
        for reason in reasons
    ]
    tables = {"reasoning": TABLES["reasoning"].rows(rows)}
    findings = answers.findings
    if stored_reasons:
        tables = with_kept_rows(context, tables, stored_reasons)
        findings = with_kept_findings(context, findings, stored_reasons)
    return Output(tables, findings, numbers=answers.numbers, unanswered=answers.unanswered)
