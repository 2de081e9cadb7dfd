"""The job `export`: one export, a step per chunk where its format allows it. Run again, it goes on."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field, create_model

from assets.defs.resources import CorpusResource
from assets.lib.events import chunk_key
from assets.lib.model_configs import for_dagster
from warehouse.exports import export_kind
from warehouse.exports.export import Export
from warehouse.exports.options import SAMPLES, ExportSettings, Selection

CHOOSING = Selection.model_fields | {name: ExportSettings.model_fields[name] for name in SAMPLES}
FIELDS: dict[str, Any] = {name: for_dagster(field) for name, field in CHOOSING.items()}
FIELDS["allow_licences"] = FIELDS.pop("allow")


class ExportConfig(create_model("SelectionFields", __base__=dg.Config, **FIELDS)):
    """What `proccorpus export KIND` takes: `episodes` goes with one dataset, `options` are the
    kind's own."""

    kind: str
    out: str
    overwrite: bool = False
    options: dict[str, Any] = Field(default_factory=dict)

    def opened(self, corpus: CorpusResource) -> Export:
        settings = {name: value for name, value in self if value not in (None, "", [])}
        settings["allow"] = settings.pop("allow_licences", ())
        kind = export_kind(self.kind)
        chosen = {name: settings[name] for name in Selection.model_fields if name in settings}
        options = {name: settings[name] for name in kind.options.model_fields if name in settings}
        return kind.open(
            corpus.lake(),
            Selection.model_validate(chosen),
            kind.read_options(options | self.options),
        )


@dg.op(out=dg.DynamicOut(dict))
def begin_export(corpus: CorpusResource, config: ExportConfig) -> Iterator[dg.DynamicOutput[dict]]:
    """Prepare the folder, and tell the chunks that have something in it."""
    chunks = config.opened(corpus).begin(Path(config.out), config.overwrite)
    for number, (dataset, chunk) in enumerate(chunks):
        # Unique, and readable
        key = f"{number}_" + re.sub(r"[^A-Za-z0-9_]", "_", chunk_key(dataset, chunk))
        yield dg.DynamicOutput(
            {"config": config.model_dump(), "dataset": dataset, "chunk": chunk}, mapping_key=key
        )


@dg.op
def export_chunk(context: dg.OpExecutionContext, corpus: CorpusResource, part: dict) -> int:
    """Write the files of one chunk."""
    config = ExportConfig(**part["config"])
    chunk = (part["dataset"], part["chunk"])
    count = config.opened(corpus).export_chunk(Path(config.out), chunk)
    context.log.info(f"{part['dataset']} chunk {part['chunk']}: {count} parts written")
    return count


@dg.op(ins={"written": dg.In(list[int])})
def finish_export(
    context: dg.OpExecutionContext, corpus: CorpusResource, config: ExportConfig, written: list[int]
) -> None:
    """Write what is once, and the manifest."""
    exported = config.opened(corpus).finish(Path(config.out), config.overwrite)
    for message in (*exported.left_out, *exported.notes):
        context.log.warning(message)
    facts = {
        k: v
        for k, v in vars(exported).items()
        if isinstance(v, (str, int)) and not isinstance(v, bool)
    }
    context.log_event(dg.AssetMaterialization(asset_key=["exports", exported.kind], metadata=facts))


@dg.job(
    name="export",
    config=dg.ConfigMapping(
        config_fn=lambda config: {
            "ops": {
                "begin_export": {"config": dict(config)},
                "finish_export": {"config": dict(config)},
            }
        },
        config_schema=ExportConfig.to_fields_dict(),
    ),
    description="One export, chunk by chunk; run again, it goes on.",
)
def export_job() -> None:
    finish_export(begin_export().map(export_chunk).collect())
