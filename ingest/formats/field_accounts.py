"""Accounting for the fields of metadata: objects of JSON, rows of side files, columns of tables."""

from collections.abc import Iterable, Mapping

from ingest.episode import PartKind
from ingest.outcomes import fields_of
from ingest.registry import DatasetConfig
from ingest.source_parts import PartCensus

Uses = Mapping[str, tuple[str, str]]  # what a field is read as, and what shows it


def usual_uses(config: DatasetConfig) -> Uses:
    """Of fields that any metadata of an episode may have: the outcome's names, and the group's."""
    uses = dict.fromkeys(fields_of(config.success_field), ("outcome", "its name"))
    if config.group_field:
        return uses | {config.group_field: ("group", "the registry entry names it")}
    return uses


def account_for_fields(
    parts: PartCensus,
    prefix: str,
    names: Iterable[str],
    uses: Uses,
    known_reasons: Mapping[str, str],
    *,
    kind: PartKind = "text",
    reason: str = "no key of this format is called so",
    file: str | None = None,
) -> None:
    """Account for some fields, each by its name behind `prefix`.

    `known_reasons`: those that are left out on purpose, and why. `reason`: why any other is not used.
    """
    for name in names:
        title = f"{prefix}{name}"
        if name in uses:
            parts.used(kind, title, *uses[name], file=file)
        elif name in known_reasons:
            parts.known(kind, title, known_reasons[name], file=file)
        else:
            parts.unknown(kind, title, reason, file=file)


def account_for_cameras(parts: PartCensus, files: Mapping[str, str]) -> None:
    """Cameras of one episode that are used, each with the file of its pictures."""
    for camera, file in files.items():
        parts.used("camera", camera, "camera", "a video of its own", file=file)
