"""Where the product's code is."""

from core.paths import ROOT

ROOMS = (
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
)
FILES = (
    ROOT / "proccorpus.py",
    *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))),
)
