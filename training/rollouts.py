"""What GRPO's rollouts begin with and leave behind: prompts with pictures, vLLM's settings, and the completions' log.

TRL asks for a generation batch once for each micro-step, and once for each answer to a prompt, and uses the first of
these alone. So the sampler says which ask is the first: in it a prompt's pictures are decoded, once, by the loader's
workers; in the others a row is empty.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from datasets import Dataset
from PIL import Image
from torch.utils.data import DataLoader, Sampler

from training.data import item_of, naming, unread
from training.pictures import shrunk
from training.progresslm_data import Rows, truth_of
from training.recipe import GrpoConfig, Recipe
from training.transform import Transform, chat
from warehouse.shards import Sample

GB = 10**9
RESERVED = 6 * GB  # of a GPU: CUDA's and NCCL's own, one layer gathered whole, what lies in pieces
MOST_OF_GPU = 0.9
CACHE = 2 * GB  # for keys and values, at least: some ten thousand tokens

# Prompts


def prompt_rows(
    samples: Sequence[Sample], transform: Transform, max_px: int, chosen: Sequence[int], repeated: bool = True
) -> Dataset:
    """Rows by number: of n chosen samples, row k < n is one with its pictures; where they are asked for repeatedly, row
    n + k stands for it without."""

    def rows(batch: Mapping[str, list[int]]) -> dict[str, list[Any]]:
        # All answers to a prompt share its pictures.
        wanted = [k for k in dict.fromkeys(batch["index"]) if k < len(chosen)]
        asked = {k: _asked(samples[chosen[k]], transform, max_px) for k in wanted}
        empty = {"prompt": [], "images": [], "truth": None, "sample_id": ""}
        given = [asked.get(k, empty) for k in batch["index"]]
        return {name: [row[name] for row in given] for name in empty}

    return Dataset.from_dict({"index": list(range((2 if repeated else 1) * len(chosen)))}).with_transform(rows)


def _asked(sample: Sample, transform: Transform, max_px: int) -> dict[str, Any]:
    item = item_of(sample, max_px)
    pictures = [Image.fromarray(p) for p in transform.pictures(item)]
    return {
        "prompt": chat(item.question),
        "images": pictures,
        "truth": truth_of(sample),
        "sample_id": str(sample.row["sample_id"]),
    }


class GenerationSampler(Sampler[int]):
    """Numbers of `prompt_rows`, as TRL's RepeatSampler: `at_once` prompts, each `generations` times, and all of that
    `repeats` times, of which the first alone is with pictures. An epoch's order follows from seed and epoch."""

    def __init__(self, count: int, at_once: int, generations: int, repeats: int, seed: int) -> None:
        self.count, self.at_once, self.generations, self.repeats = count, at_once, generations, repeats
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.at_once * self.at_once * self.generations * self.repeats

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count).tolist()
        whole = len(order) // self.at_once * self.at_once
        for prompts in batched(order[:whole], self.at_once):
            for repeat in range(self.repeats):
                for k in prompts:
                    yield from [k if repeat == 0 else self.count + k] * self.generations


class _Lengths:
    """Tokens of each sample, for a torch loader."""

    def __init__(self, samples: Sequence[Sample], transform: Transform, max_px: int, chosen: Sequence[int]) -> None:
        self._samples, self._transform, self._max_px, self._chosen = samples, transform, max_px, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, n: int) -> int:
        k, samples = self._chosen[n], self._samples
        if isinstance(samples, Rows):
            question, sizes = samples.row(k)["question"], samples.picture_sizes(k)
        else:
            sample = unread(samples[k])
            with naming(sample):
                question, sizes = sample.row["question"], sample.sizes()
        return self._transform.length(question, None, [shrunk(size, self._max_px) for size in sizes])


def fitting(samples: Sequence[Sample], transform: Transform, recipe: Recipe, rank: int, world: int) -> list[int]:
    """The prompts of at most data.sequence_length tokens: longer ones would end a run in its midst.

    No picture is decoded; processes share the work, each with its workers. Raises RowError, ShardError.
    """
    mine = range(rank, len(samples), world)
    lengths = _Lengths(samples, transform, recipe.model.max_px, mine)
    loader = DataLoader(lengths, batch_size=64, num_workers=recipe.data.workers, collate_fn=list)  # type: ignore[arg-type]
    measured = [n for part in loader for n in part]
    most = recipe.data.sequence_length
    return sorted(gather_object([k for k, n in zip(mine, measured, strict=True) if n <= most]))


# vLLM


def vllm_settings(recipe: Recipe, config: GrpoConfig, memory: float) -> dict[str, Any]:
    """Rollouts by vLLM: on the given server, else in this process, where it sleeps while there is learning."""
    return {
        "use_vllm": True,
        "vllm_mode": "server" if config.vllm_server else "colocate",
        "vllm_server_base_url": config.vllm_server,
        "vllm_gpu_memory_utilization": memory,
        "vllm_enable_sleep_mode": config.vllm_server is None,
        "vllm_tensor_parallel_size": config.vllm_tensor_parallel,
        "vllm_max_model_length": recipe.data.sequence_length + config.max_completion,
        "vllm_importance_sampling_correction": config.vllm_correction != "none",
        "vllm_importance_sampling_mode": "sequence_mask" if config.vllm_correction == "sequence" else "token_truncate",
    }


def vllm_share(gpu: int, learning: int, frozen: int, processes: int, reference: bool, tensor_parallel: int) -> float:
    """Share of a GPU of so many bytes that vLLM can have while it generates, the training's state beside it.

    `learning`, `frozen`: weights that learn, in float32 with Adam's two moments (12 bytes), and those that do not (2
    bytes), divided among `processes`; `reference`: a second model in float32 (4 bytes) that the distance is measured
    from. Gradients and activations are not there then, and vLLM sleeps while they are. Raises ValueError where vLLM's
    own weights (bfloat16) and a small cache do not fit.

    Example: 3.75 G weights on 4 GPUs of 80 GB: 16 bytes x 3.75 G / 4 are 15 GB; 80 - 15 - 6 are 59, a share of 0.73.
    """
    state = (12 * learning + 2 * frozen + (4 * (learning + frozen) if reference else 0)) / processes
    share = min(MOST_OF_GPU, (gpu - state - RESERVED) / gpu)
    needed = 2 * (learning + frozen) / tensor_parallel + CACHE
    if share * gpu < needed:
        raise ValueError(
            f"a GPU of {gpu / GB:.0f} GB has no room for vLLM: {state / GB:.0f} GB are the training's, "
            f"{needed / GB:.0f} GB it needs itself"
        )
    return int(100 * share) / 100


# Completions


class CompletionLog:
    """What was answered, one JSON line each: step, split, sample_id, prompt, completion, rewards by part, advantage.

    Lines of steps from `begins` on are from a run that was killed after its last checkpoint: they are dropped.
    """

    def __init__(self, path: Path, begins: int) -> None:
        self.path, self._begins = path, begins
        self._opened = False

    def write(self, step: int, split: str, logs: Mapping[str, Any], last: int) -> None:
        """`logs`: TRL's, with a list for each column, of which the `last` rows are written."""
        if not self._opened:
            self._open()
        columns = dict(logs["rewards"]) | dict(logs["extra"]) | {"advantage": logs["advantages"]}
        columns |= {name: [text_of(messages) for messages in logs[name]] for name in ("prompt", "completion")}
        rows = zip(*(list(values)[-last:] for values in columns.values()), strict=True)
        told = ({"step": step, "split": split} | dict(zip(columns, row, strict=True)) for row in rows)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in told]
        with self.path.open("a", encoding="utf-8") as f:
            f.write("".join(lines))

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept: list[str] = []
        with suppress(FileNotFoundError), self.path.open(encoding="utf-8") as f:
            # The last line of a killed run may be a part of one.
            kept = [line for line in f if line.endswith("\n") and json.loads(line)["step"] < self._begins]
        self.path.write_text("".join(kept), encoding="utf-8")
        self._opened = True


def text_of(messages: Any) -> str:
    """The text of TRL's messages, of which there is one; pictures are left out."""
    content = messages[0]["content"]
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)
