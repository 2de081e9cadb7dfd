"""The episodes of a dataset as its metadata lists them, with chunks, splits and findings. Decodes nothing."""

from pydantic import BaseModel

from ingest.episode import Finding
from ingest.episodes import CODE_VERSION, episodes_stage
from pipeline.config import DatasetBuild, config_rows
from pipeline.pictures import episodes_figure
from pipeline.stage import Output, Stage, StageContext
from warehouse.lake.outcomes import current_outcomes
from warehouse.lake.statements import takedown_marks
from warehouse.lake.stored import stored_signals


def run(context: StageContext) -> Output:
    lake, build = context.lake, context.build
    # What an earlier listing decided stays: a group's split, an episode's index
    sql = 'SELECT "group", any_value(split) FROM splits WHERE dataset = ? GROUP BY 1'
    split_of_group = dict(lake.rows(sql, [build.name]))
    sql = "SELECT source_id, episode_index FROM episode_ids WHERE dataset = ?"
    index_of_source_id = dict(lake.rows(sql, [build.name]))
    # What people said of how runs ended counts before the source
    outcomes, signals = current_outcomes(lake, build.name), stored_signals(lake.con, build.name)
    # Episodes taken down, alone or with the whole dataset
    reasons = {mark["episode_index"]: mark["reason"] for mark in takedown_marks(lake, build.name)}
    withdrawn = reasons.keys() - {None}
    listing = episodes_stage(
        context.source, build.stages.splits, split_of_group, index_of_source_id, outcomes, signals, withdrawn
    )
    findings = list(listing.findings)
    for index in (record.episode_index for record in listing.records):
        if (reason := reasons.get(index, reasons.get(None))) is not None:
            findings.append(Finding("taken_down", reason, episode_index=index))

    # The configuration is kept beside the rows, so that the dataset can be built again without its file
    upserts = {"build_configs": config_rows([build]), "episode_ids": listing.ids}
    numbers = {
        "episodes": len(listing.records),
        "unusable_by_metadata": len({f.episode_index for f in findings if f.severity == "unusable"}),
        "outcomes_known": listing.tables["episode_facts"]["success"].drop_null().length(),
    }
    return Output(listing.tables, findings, upserts, numbers=numbers)


def config_parts(build: DatasetBuild) -> tuple[BaseModel | str, ...]:
    # Where the data lies does not change what it is
    facts = build.dataset.model_dump_json(exclude={"source", "annotator"})
    return (f"{facts}{build.episodes}{build.stages.splits.model_dump_json()}",)


STAGE = Stage(
    name="episodes",
    upstream=(),
    run=run,
    config=config_parts,
    code_version=CODE_VERSION,
    description="Episodes of a dataset as its metadata lists them, with splits and findings; registers its chunks.",
    reads_source=True,
    picture=episodes_figure,
)
