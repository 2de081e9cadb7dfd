"""The registry for people and scripts: one row per dataset, and all that is known of one."""

from collections.abc import Mapping, Sequence
from typing import Any

from ingest.registry import DatasetConfig

Built = Mapping[str, Mapping[str, Any]]  # rows of the lake's table `datasets`, by name
COLUMNS = ("dataset", "title", "robot", "format", "role", "license")


def overview(entries: Mapping[str, DatasetConfig], built: Built) -> list[dict[str, Any]]:
    """One row per dataset of the registry, then those that only the workspace knows. `episodes` is as published."""
    rows = []
    for entry in entries.values():
        entry_facts = entry.model_dump(mode="json") | {"dataset": entry.name}
        rows.append(_columns(entry_facts) | {"episodes": entry.published.episodes, "source": entry.source})
    for name in built.keys() - entries.keys():
        rows.append(_columns(built[name]) | {"episodes": None, "source": built[name]["source_uri"]})
    rows.sort(key=lambda r: r["dataset"])
    return [row | {"built": row["dataset"] in built} for row in rows]


def _columns(row: Mapping[str, Any]) -> dict[str, Any]:
    return {column: row[column] for column in COLUMNS}


def facts(entry: DatasetConfig | None, row: Mapping[str, Any] | None) -> dict[str, Any]:
    """The registry entry of a dataset, overruled by the configuration that the workspace was built with."""
    known: dict[str, Any] = {}
    if entry:
        known = {"dataset": entry.name} | entry.model_dump(mode="json")
        known |= {"cameras": list(entry.cameras.ordered()), "cameras_by_role": known["cameras"]}
    return known | {k: v for k, v in (row or {}).items() if v is not None} | {"built": row is not None}


def readable(known: Mapping[str, Any]) -> list[dict[str, str]]:
    """Facts as lines of text: no empty ones, cameras by role, the gripper as an index into its vector, notes last."""
    flat: dict[str, Any] = {}
    for key in sorted(known, key=lambda k: k == "notes"):
        flat |= _flattened(key, known)
    filled = {key: value for key, value in flat.items() if value not in (None, "", [])}
    return [{"field": key, "value": _text(value)} for key, value in filled.items()]


def _flattened(key: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """A fact as lines: one, or one for each of its parts."""
    value = known[key]
    # The name is `dataset` too, and roles are shown in the place of the cameras
    if key in ("name", "cameras_by_role"):
        return {}
    if key == "gripper" and value:
        return {key: _grippers(value)}
    # Without a registry entry only the cameras' order is known
    if key == "cameras" and "cameras_by_role" in known:
        value = known["cameras_by_role"]
    if isinstance(value, Mapping):
        return {f"{key} {part}": of_part for part, of_part in value.items()}
    return {key: value}


def _grippers(value: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    """Of one arm, or of several. Example: "left: state[7], closed 1, open 0; right: state[15]"."""
    entries = [value] if isinstance(value, Mapping) else value
    return "; ".join(f"{entry['arm']}: {_gripper(entry)}" if entry["arm"] else _gripper(entry) for entry in entries)


def _gripper(entry: Mapping[str, Any]) -> str:
    """Example: "state[7], closed 1, open 0"."""
    if entry["column"] == "none":
        return "none"
    dimensions = entry["dimension"] if isinstance(entry["dimension"], list) else [entry["dimension"]]
    ends = () if entry["open"] is None else (f"closed {entry['closed']:g}", f"open {entry['open']:g}")
    return ", ".join((*(f"{entry['column']}[{d}]" for d in dimensions), *ends))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"
    return str(value)
