"""Embeddings of known likeness: directions in a plane, alike by their cosine."""

import math
from itertools import product

import numpy as np

from core.paths import Workspace
from core.tables import TABLES
from tests.kits.lake_kit import stage_run
from tests.kits.tiny_lerobot import CAMERA
from warehouse.lake import Lake

FPS = 10.0
EVERY = 2  # frames between two that are looked at
LOOKED_AT = (0, 4, 8)  # frames of `tiny`
Angles = list[float]  # degrees, of the frames that are looked at


def direction(degrees: float) -> np.ndarray:
    numbers = np.zeros(256, np.float32)
    numbers[:2] = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return numbers


def embed(
    lake: Lake,
    dataset: str,
    runs: dict[int, dict[str, Angles]],
    *,
    chunk: int = 0,
    encoder: str = "grey@64",
) -> None:
    """Publish runs of one chunk by number: of each camera, the preferred first, what the encoder
    saw."""
    of_chunk = {"dataset": dataset, "chunk": chunk}
    rows = []
    contents = []
    facts = []
    for episode, of_camera in runs.items():
        run = of_chunk | {"episode_index": episode}
        frames = EVERY * max(map(len, of_camera.values()))
        contents.append(run | {"num_frames": frames, "fps": FPS, "usable_cameras": list(of_camera)})
        facts.append(
            run
            | {
                "source_id": str(episode),
                "fps": FPS,
                "task": f"Task {episode}",
                "cameras": ["front"],
            }
        )
        for camera, angles in of_camera.items():
            for k, angle in enumerate(angles):
                frame_fields = {
                    "camera": camera,
                    "frame_index": EVERY * k,
                    "encoder": encoder,
                    "device": "cpu",
                }
                rows.append(
                    run
                    | frame_fields
                    | {"embedding": direction(angle), "cells": np.zeros(64, np.float32)}
                )
    parts = {"embeddings": rows, "episode_content": contents}
    for (table, content), stage in zip(parts.items(), ("embeddings", "frames"), strict=True):
        lake.publish(
            stage_run(dataset=dataset, chunk=chunk, stage=stage),
            {table: TABLES[table].rows(content)},
        )
    dataset_row = TABLES["datasets"].rows([{"dataset": dataset, "chunk_size": 100}])
    lake.upsert(
        "runs of a dataset", episode_facts=TABLES["episode_facts"].rows(facts), datasets=dataset_row
    )


def look_at(space: Workspace) -> None:
    """Put into a furnished workspace what an encoder saw of its first three runs."""
    lake = Lake(space)
    rows = [
        {
            "dataset": "tiny",
            "episode_index": episode,
            "camera": CAMERA,
            "frame_index": frame,
            "chunk": episode // 2,
            "encoder": "grey@64",
            "device": "cpu",
            "embedding": direction(10 * frame + episode),
            "cells": np.zeros(64, np.float32),
        }
        for episode, frame in product((0, 1, 2), LOOKED_AT)
    ]
    lake.upsert("embeddings", embeddings=TABLES["embeddings"].rows(rows))
    lake.con.close()
