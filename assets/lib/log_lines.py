"""Lines of JSON of Dagster's runs, as deploy/dagster.yaml asks for."""

import logging

from core.logs import as_json


class JsonFormatter(logging.Formatter):
    """With run, dataset, chunk and stage: of the event that a line tells, or of the step that logged it."""

    def format(self, record: logging.LogRecord) -> str:
        dagster_meta = getattr(record, "dagster_meta", {})
        event = dagster_meta.get("dagster_event")
        of_run = dagster_meta.get("job_tags", {}).get("dagster/partition", "")
        dataset, _, chunk = ((event and event.partition) or of_run).partition(":")
        asset = event and event.asset_key
        fields = {"dataset": dataset or None, "chunk": int(chunk) if chunk else None}
        fields["stage"] = asset.to_user_string() if asset else dagster_meta.get("step_key")
        return as_json(
            super().format(record),
            record.levelname.lower(),
            run=dagster_meta.get("run_id"),
            **fields,
        )
