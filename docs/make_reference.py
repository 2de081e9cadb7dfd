"""Write the pages of docs/ that are made from code: `python docs/make_reference.py`.

Those of the registry and of the reason codes are here, the others in reference_pages.py; formats.md is written by hand.
"""

import re
from pathlib import Path

import reference_pages
from reference_pages import table

from ingest.reasons import REASONS
from ingest.registry import BUILT_IN, DatasetConfig, load_registry

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
COMMAND = "python docs/make_reference.py"
HEADER = f"<!-- Made by `{COMMAND}`: change what it reads, not this file. -->"

# What the reader of a dataset was tried on. The best that is true; parts of three samples are in tests/data/real/
DATASET, FORMAT, GENERATED = "dataset", "format", "generated"
PROOF_BY_FORMAT = {
    # v2.0: robot_sim.PickNPlace of NVIDIA's GR1 demo data; v2.1: a bimanual SO-101 set; v3.0: ours, and the rows of a
    # Piper set and the videos of a Franka set, neither of which is whole
    "lerobot": FORMAT,
    "rlds": FORMAT,  # 25 episodes of BridgeData V1, scaled down, from Octo's tests
    # An xArm file without pictures proves only that it is refused
    "hdf5": GENERATED,
    "agibot": GENERATED,
    "rh20t": GENERATED,
    "droid": GENERATED,
    "table30": GENERATED,
    "robotwin": GENERATED,
    "video": GENERATED,
    "robo_dopamine": FORMAT,
    "mcap": GENERATED,
    "zarr": GENERATED,
}
UNPROVEN = ("agibot_world_2026_dagger", "botfails", "mundo_ai_sample")
PROOF_BY_DATASET = {
    "sim_short": DATASET,  # samples/
    "sim_long": DATASET,
    **dict.fromkeys(UNPROVEN, "not proven"),
}
# The rows that a sample comes near to, without being of that dataset as its entry names it
NEAR = {
    "bridge_v2": "its predecessor, BridgeData V1, in RLDS",
    "gr1_teleop_sim": "a demonstration set of the same maker and robot family",
}
EXTRAS = ("nyu_franka_play", "plex_robosuite", "robo_set", "taco_play")
FIELD = ("abc_130k", "agibot_world_2026", "galaxea", "robocoin", "robomind_v2", *UNPROVEN)

DATASETS_INTRO = f"""\
`proccorpus datasets show NAME` has the title, cameras, gripper, traps and citation of each. Sizes and licences are as
published, or as a port's card says: we have not counted or checked them. A licence that is a *converter's default* is
what an uploader writes for every dataset, so [releases](releases.md) take it as unknown. Which end of a gripper is open
is from those who read the original: the comment beside it in each YAML file says from whom. `ood`: held out, by our
choice of robots or scenes that no other dataset shows.

**Proven on** says what the reader of a row has been tried on: real bytes of that *{DATASET}*; real bytes of another
dataset of that *{FORMAT}*; or *{GENERATED}* files, which our tests write by the format's description.
*Not proven*: nobody has run the entry."""

QUARANTINE_INTRO = """\
A finding is a problem with the data. Each finding is a row of the table `findings` with one of these codes, the
dataset, the episode and camera it concerns, the file, and a detail in words.

*Unusable*: the episode (or, without an episode, the dataset) is left out; `proccorpus show quarantine` lists it.
*Warning*: the episode is used. *Unusable or warning*: a warning if the rest is usable, such as another camera."""


def proof(name: str, entry: DatasetConfig) -> str:
    """Of an entry with a format."""
    level = PROOF_BY_DATASET.get(name) or PROOF_BY_FORMAT[str(entry.format)]
    return f"{level}; also of {NEAR[name]}" if name in NEAR else level


def datasets_page() -> str:
    entries = load_registry([BUILT_IN])
    ours = [n for n, level in PROOF_BY_DATASET.items() if level == DATASET]
    thirty = [n for n in entries if n not in (*EXTRAS, *FIELD, *ours)]
    parts = [
        HEADER,
        "# Datasets",
        DATASETS_INTRO,
        f"## The thirty of `configs/full.toml`\n\n{_table(thirty, entries)}",
        f"## Four more\n\n{_table(EXTRAS, entries)}",
        f"## Of the field of 2026\n\n{_table(FIELD, entries)}",
        f"## Ours, shipped with the project\n\n{_table(ours, entries)}",
    ]
    return "\n\n".join(parts) + "\n"


def _table(names: list[str] | tuple[str, ...], entries: dict[str, DatasetConfig]) -> str:
    head = ("id", "robot", "format, source", "episodes", "licence", "proven on")
    rows = []
    for name in names:
        e = entries[name]
        episodes = "" if e.published.episodes is None else f"{e.published.episodes:,}"
        title = f"{name} (`ood`)" if e.role == "ood" else name
        rows.append(
            (
                title,
                e.robot,
                f"{e.format}, {_source(e)}",
                episodes,
                e.license or "unknown",
                proof(name, e),
            )
        )
    return table(head, rows)


def _source(entry: DatasetConfig) -> str:
    if not entry.is_remote:
        return f"`{Path(entry.source).relative_to(ROOT).as_posix()}`"
    repository = re.fullmatch(r"hf://([^/]+/[^/]+)", entry.source)
    return (
        f"[hub](https://huggingface.co/datasets/{repository[1]})"
        if repository
        else f"`{entry.source}`"
    )


def quarantine_page() -> str:
    parts = [HEADER, "# Findings and quarantine", QUARANTINE_INTRO]
    for level in ("unusable", "warning", ""):
        lines = [
            f"- `{c}`: {r.meaning}. *Do:* {r.remedy}"
            for c, r in REASONS.items()
            if r.severity == level
        ]
        parts += [f"## {(level or 'unusable or warning').capitalize()}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def with_header(page: str) -> str:
    return f"{HEADER}\n\n{page}"


PAGES = {"datasets.md": datasets_page, "quarantine.md": quarantine_page}
PAGES |= {
    name: lambda made=made: with_header(made()) for name, made in reference_pages.PAGES.items()
}


def main() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())


if __name__ == "__main__":
    main()
