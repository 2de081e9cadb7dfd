"""The episodes of a dataset as its metadata lists them, with chunks, splits and findings. Decodes nothing."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
from pydantic import BaseModel

from core.tables import TABLES
from ingest.episode import EpisodeRecord, Finding
from ingest.episodes import CODE_VERSION, episodes_stage
from pipeline.config import DatasetBuild
from pipeline.pictures import episodes_figure
from pipeline.stage import Output, Stage, StageContext
from warehouse.lake import Lake, content_key
from warehouse.lake.outcomes import current_outcomes
from warehouse.lake.signals import stored_signals
from warehouse.releases.takedown import takedown_marks


def run(context: StageContext) -> Output:
    lake, build = context.lake, context.build

    # What an earlier listing decided stays: a group's split, an episode's index
    split_of_group = dict(
        lake.rows('SELECT "group", any_value(split) FROM splits WHERE dataset = ? GROUP BY 1', [build.name])
    )
    index_of_source_id = dict(
        lake.rows("SELECT source_id, episode_index FROM episode_ids WHERE dataset = ?", [build.name])
    )
    # What people said of how runs ended counts before the source
    outcomes = current_outcomes(lake, build.name)
    signals = stored_signals(lake.con, build.name)
    marked = [mark["episode_index"] for mark in takedown_marks(lake, build.name)]
    withdrawn = {episode for episode in marked if episode is not None}
    listing = episodes_stage(
        context.source, build.stages.splits, split_of_group, index_of_source_id, outcomes, signals, withdrawn
    )
    findings = [*listing.findings, *_taken_down(lake, build.name, listing.records)]

    # The configuration is kept beside the rows, so that the dataset can be built again without its file
    upserts = {"build_configs": config_rows([build]), "episode_ids": listing.ids}

    unusable = {finding.episode_index for finding in findings if finding.severity == "unusable"}
    numbers = {
        "episodes": len(listing.records),
        "unusable_by_metadata": len(unusable),
        "outcomes_known": listing.tables["episode_facts"]["success"].drop_null().length(),
    }
    return Output(listing.tables, findings, upserts, numbers=numbers)


def config_hash(build: DatasetBuild) -> str:
    """A hash of what a dataset is built with, wherever its data and its store lie."""
    return content_key(build.identity())


def config_rows(builds: Sequence[DatasetBuild]) -> pa.Table:
    """Rows of `build_configs`: what some datasets are built with now."""
    rows = [
        {
            "dataset": build.name,
            "config_hash": config_hash(build),
            "config": build.json_text(),
            "created_at": datetime.now(UTC),
        }
        for build in builds
    ]
    return TABLES["build_configs"].rows(rows)


def _taken_down(lake: Lake, dataset: str, records: Sequence[EpisodeRecord]) -> list[Finding]:
    """A finding for each listed episode that was taken down, alone or with its whole dataset."""
    reasons = {mark["episode_index"]: mark["reason"] for mark in takedown_marks(lake, dataset)}
    of_dataset = reasons.get(None)
    findings = []
    for record in records:
        reason = reasons.get(record.episode_index, of_dataset)
        if reason is not None:
            findings.append(Finding("taken_down", reason, episode_index=record.episode_index))
    return findings


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
    main_table="episode_facts",
    per="dataset",
    reads_source=True,
    picture=episodes_figure,
)
