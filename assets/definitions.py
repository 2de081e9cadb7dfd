"""Dagster's entry point: everything below defs/ is found by itself."""

import warnings
from pathlib import Path

import dagster as dg

# Said of every sensor that takes a resource, by Dagster of itself: no sensor of ours names owners
warnings.filterwarnings(
    "ignore", "Parameter `owners` of initializer `SensorDefinition", dg.BetaWarning
)
# Said of links to code, which the UI has shown for years
warnings.filterwarnings(
    "ignore", "Class `(LocalFileCodeReference|CodeReferencesMetadataValue)`", dg.BetaWarning
)


@dg.definitions
def defs() -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
