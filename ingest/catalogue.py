"""The registry for people and scripts: one row per dataset, and all that is known of one."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ingest.registry import DatasetConfig

Built = Mapping[str, Mapping[str, Any]]  # rows of the lake's table `datasets`, by name
COLUMNS = ("dataset", "title", "robot", "format", "role", "license")


def overview(entries: Mapping[str, DatasetConfig], built: Built) -> list[dict[str, Any]]:
    """One row per dataset of the registry, then those that only the workspace knows. `episodes` is as published."""
    rows = []
    for entry in entries.values():
        known = entry.model_dump(mode="json") | {"dataset": entry.name}
        episodes = entry.published.episodes
        rows.append({k: known[k] for k in COLUMNS} | {"episodes": episodes, "source": entry.source})
    for name in built.keys() - entries.keys():
        row = built[name]
        rows.append({k: row[k] for k in COLUMNS} | {"episodes": None, "source": row["source_uri"]})
    rows.sort(key=lambda r: r["dataset"])
    return [r | {"built": r["dataset"] in built} for r in rows]


def facts(entry: DatasetConfig | None, row: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the registry says of a dataset, overruled by what the workspace was built with."""
    known: dict[str, Any] = {}
    if entry:
        known = {"dataset": entry.name} | entry.model_dump(mode="json")
        known |= {"cameras": list(entry.cameras.ordered()), "cameras_by_role": known["cameras"]}
    return known | {k: v for k, v in (row or {}).items() if v is not None} | {"built": row is not None}


def readable(known: Mapping[str, Any]) -> list[dict[str, str]]:
    """Facts as lines of text: no empty ones, cameras by role, the gripper as an index into its vector, notes last."""
    flat: dict[str, Any] = {}
    for key, value in sorted(known.items(), key=lambda item: item[0] == "notes"):
        if key == "gripper" and value:
            flat[key] = _gripper(value)
        elif key == "cameras" and "cameras_by_role" in known:
            flat |= {f"cameras {role}": names for role, names in known["cameras_by_role"].items()}
        elif isinstance(value, Mapping) and key != "cameras_by_role":
            flat |= {f"{key} {k}": v for k, v in value.items()}
        elif key not in ("name", "cameras_by_role"):
            flat[key] = value
    return [{"field": k, "value": _text(v)} for k, v in flat.items() if v not in (None, "", [])]


def _gripper(value: Mapping[str, Any]) -> str:
    if value["column"] == "none":
        return "none"
    dimensions = value["dimension"] if isinstance(value["dimension"], list) else [value["dimension"]]
    return ", ".join(f"{value['column']}[{d}]" for d in dimensions)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"
    return str(value)


def near_names(name: str, known: Sequence[str]) -> list[str]:
    """What may have been meant: names that hold it, else names spelt alike, best first."""
    asked = name.lower()
    return [k for k in known if asked and asked in k][:3] or get_close_matches(asked, known, n=3, cutoff=0.6)
