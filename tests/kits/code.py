"""Where the product's code is."""

from itertools import chain

from core.paths import ROOT

ROOMS = [
    "core",
    "ingest",
    "annotate",
    "warehouse",
    "explorer",
    "training",
    "eval",
    "pipeline",
    "assets",
    "cli",
]
FILES = (
    ROOT / "proccorpus.py",
    *(chain.from_iterable(sorted((ROOT / room).rglob("*.py")) for room in ROOMS)),
)
