"""Lines of JSON of Dagster's runs, as deploy/dagster.yaml asks for."""

import logging

from core.logs import as_json


class JsonFormatter(logging.Formatter):
    """With run, dataset, chunk and stage: of the event that a line tells, or of the step that logged it."""

    def format(self, record: logging.LogRecord) -> str:
        told = getattr(record, "dagster_meta", {})
        event, of_run = told.get("dagster_event"), told.get("job_tags", {}).get("dagster/partition", "")
        dataset, _, chunk = ((event and event.partition) or of_run).partition(":")
        asset = event and event.asset_key
        where = {"dataset": dataset or None, "chunk": int(chunk) if chunk else None}
        where["stage"] = asset.to_user_string() if asset else told.get("step_key")
        return as_json(super().format(record), record.levelname.lower(), run=told.get("run_id"), **where)
