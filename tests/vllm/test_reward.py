"""Rewards by a real server: windows that overlap send the same bytes, which it knows again."""

from itertools import chain
from operator import attrgetter
from pathlib import Path

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from eval.reward.open import ScorerConfig, open_scorer
from eval.reward.scorer import Reward
from eval.reward.stream import Window
from tests.kits.patience import PATIENCE_S
from tests.kits.vllm_kit import VllmServer

TASK = "open the drawer"
FRAMES = 6
WINDOW = 3


def counters(server: VllmServer) -> dict[str, float]:
    page = httpx.get(server.url.removesuffix("/v1") + "/metrics", timeout=PATIENCE_S).text
    values_by_name = {
        s.name: s.value
        for s in chain.from_iterable(
            map(attrgetter("samples"), text_string_to_metric_families(page))
        )
    }
    return {
        k: values_by_name[f"vllm:{k}_total"]
        for k in ("mm_cache_queries", "mm_cache_hits", "prefix_cache_hits")
    }


def scored(
    server: VllmServer, frames: list[np.ndarray], responses: Path, steps: tuple[str, ...] = ()
) -> tuple[list[Reward], dict[str, float]]:
    """Rewards of all frames, one after another, and how the server's counters rose."""
    counters_before = counters(server)
    config = ScorerConfig(
        model=server.name, endpoints=(server.url,), window=Window(WINDOW, None), responses=responses
    )
    with open_scorer(config) as scorer:
        stream = scorer.stream(TASK, 1.0, steps)
        rewards = [
            scorer.score([m])[0]
            for rgb in frames
            if (m := stream.append({"camera": rgb})) is not None
        ]
    counters_after = counters(server)
    return rewards, {k: counters_after[k] - counters_before[k] for k in counters_after}


def test_a_picture_in_several_windows_is_prepared_once(
    vllm_server: VllmServer, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (96, 96, 3), np.uint8) for _ in range(FRAMES)]
    rewards, rose = scored(vllm_server, frames, tmp_path / "kept")
    assert len(rewards) == FRAMES
    assert all(
        r.source == "text" and (r.progress is None) == (r.failure is not None) for r in rewards
    )
    num_pictures = sum(min(k, WINDOW) for k in range(1, FRAMES + 1))
    assert rose["mm_cache_queries"] == num_pictures
    assert rose["mm_cache_hits"] == num_pictures - FRAMES
    second_rewards, none = scored(vllm_server, frames, tmp_path / "kept")
    assert second_rewards == rewards
    assert none["mm_cache_queries"] == 0, "replies are kept and not asked for again"
    steps = tuple(
        f"step {k}: " + "reach for the handle and pull it slowly towards the robot " * 4
        for k in range(5)
    )
    _, rose = scored(vllm_server, frames, tmp_path / "kept", steps)
    print(rose)
    assert rose["prefix_cache_hits"] > 0, "the demonstration in words stands before the picture"
