"""Runs of a release: numbers of pictures in shards, or those that the lake holds of the same encoder."""

from pathlib import Path

import numpy as np
import pytest

from annotate.embeddings.encoders import load_encoder
from tests.kits.laptop_kit import make_release, recipe, small_config, store
from training.folder import read_card
from training.laptop.runs import Run, read_runs
from training.train import train
from warehouse.lake import Lake
from warehouse.releases import Release

EVERY = 2  # of 12 frames
LOOKED_AT = (0, 2, 3)  # episodes that the stage has seen


def runs_of(lake: Lake, release: Release, **more: object) -> list[Run]:
    config = small_config(**more)
    paths = release.paths(lake.workspace, "train")
    return read_runs(lake, release, paths, load_encoder(config.embeddings), config, 0)


@pytest.fixture
def lake_and_release(tmp_path: Path) -> tuple[Lake, Release]:
    lake, release = make_release(tmp_path / "w")
    return lake, store(lake, release, dict.fromkeys(LOOKED_AT, ("front",)), every=EVERY)


def test_numbers_of_the_lake_are_those_of_the_encoder(lake_and_release: tuple[Lake, Release]) -> None:
    runs = {run.episode_index: run for run in runs_of(*lake_and_release, numbers_from="lake")}
    assert {e for e, run in runs.items() if run.is_stored} == set(LOOKED_AT)
    seen = runs[2]
    assert seen.frames.tolist() == list(range(0, 12, EVERY))
    assert seen.numbers.shape[:2] == (1, 6)
    np.testing.assert_allclose(seen.label, seen.frames / 11, atol=1e-6)
    shown = {run.episode_index: run for run in runs_of(*lake_and_release)}[2]
    assert not shown.is_stored
    assert shown.numbers.shape[:2] == (2, 12)
    # A JPEG lies between the two
    apart = np.abs(seen.numbers[0].astype(float) - shown.numbers[0][::EVERY].astype(float))
    assert apart.mean() < 0.1


def test_another_encoders_numbers_are_left_alone(lake_and_release: tuple[Lake, Release]) -> None:
    runs = runs_of(*lake_and_release, numbers_from="lake", size_px=48)
    assert not [run for run in runs if run.is_stored]


def test_a_model_learns_from_both(lake_and_release: tuple[Lake, Release]) -> None:
    lake, release = lake_and_release
    run = train(lake, release, recipe(laptop={"numbers_from": "lake"}))
    card = read_card(run.checkpoint)
    assert (card["runs"], card["stored_runs"]) == (6, 3)
    assert run.curve[-1].loss < run.curve[0].loss
