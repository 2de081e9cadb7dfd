"""A vision-language model with a progress head, and how it is kept in a folder.

`ProgressHead` pools vision and question tokens only. A causal model's states there cannot see the answer, so a reward
is one prefill with no decoding and cannot copy the answer's number. Beside progress it says how probably the run has
reached its end state. `PublishedHead` is ProcVLM's, kept to compare with: it pools the answer, too.

A checkpoint folder holds safetensors and JSON only: the model (or an adapter, and where its base is), the processor,
the head if there is one, and card.json.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures
from transformers.utils import logging

from training.attention import image_features, packed_inputs
from training.backbones import (
    has_adapter,
    load_adapter,
    load_backbone,
    load_processor,
    stored_dtype,
)
from training.folder import (
    ModelError,
    backbone_kind,
    base_of,
    models_of,
    read_card,
    write_card,
)
from training.recipe import HeadConfig
from training.transform import IGNORE, Batch

# Published: half of the features of the last 14 tokens are dropped in training
TAIL = 14
TAIL_DROPOUT = 0.5
# Published: progress = sigmoid(1.2 z - 0.1), there in training only; ours serve it, too
SLOPE = 1.2
SHIFT = 0.1


class Head(nn.Module):
    """What the two heads share: `outputs` numbers a sample, read as progress, and their loss.

    The first is z, and progress is sigmoid(z). A head with `has_done` has one output more: the logit of having reached
    the end state, which a sample has where its progress is 1.
    """

    def __init__(self, config: HeadConfig, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        self.hidden_size = hidden_size

    def progress(self, raw: torch.Tensor) -> torch.Tensor:
        """Progress [n] in 0..1 of outputs [n, k]."""
        return torch.sigmoid(raw[:, 0])

    def done(self, raw: torch.Tensor) -> torch.Tensor | None:
        """Probability [n] of having reached the end state; None of a head that does not say."""
        if self.config.has_done:
            return torch.sigmoid(raw[:, 1])
        return None

    def loss(self, raw: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The sum of losses over the samples that have a label; target [n], NaN where there is none."""
        is_labelled = ~torch.isnan(target)
        raw = raw[is_labelled]
        target = target[is_labelled]
        loss = nn.functional.l1_loss(self.progress(raw), target, reduction="sum")
        if self.config.has_done:
            reached = (target >= 1).float()
            done_loss = nn.functional.binary_cross_entropy_with_logits(
                raw[:, 1], reached, reduction="sum"
            )
            loss = loss + self.config.done_weight * done_loss
        return loss

    def _noisy(self, pooled: torch.Tensor) -> torch.Tensor:
        if not (self.training and self.config.noise):
            return pooled
        return pooled + self.config.noise * torch.randn_like(pooled)


class ProgressHead(Head):
    """Attention pooling over the prompt and a small network."""

    def __init__(self, config: HeadConfig, hidden_size: int) -> None:
        super().__init__(config, hidden_size)
        self.score = nn.Sequential(
            nn.Linear(hidden_size, hidden_size // 4), nn.GELU(), nn.Linear(hidden_size // 4, 1)
        )
        self.value = nn.Sequential(
            nn.LayerNorm(hidden_size),
            nn.Linear(hidden_size, hidden_size),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden_size, 1),
        )
        self.finished = nn.Linear(hidden_size, 1) if config.has_done else None

    def forward(
        self, states: torch.Tensor, item: torch.Tensor, prompt: torch.Tensor
    ) -> torch.Tensor:
        """Outputs [n, k], float32, with `has_done` one more, of the tokens of n samples one after
        the other: states [m, h], item [m] the number of the sample of each, prompt [m] true where a
        sample is asked."""
        states = states[prompt]
        item = item[prompt]
        pooled = self._noisy(pool(states, self.score(states), item))
        value = self.value(pooled)
        return (
            value if self.finished is None else torch.cat([value, self.finished(pooled)], -1)
        ).float()


class PublishedHead(Head):
    """ProcVLM's: attention pooling over all tokens, the answer's too, and four times as wide a network."""

    def __init__(self, config: HeadConfig, hidden_size: int) -> None:
        super().__init__(config, hidden_size)
        wide = 4 * hidden_size
        self.pooler = nn.Sequential(
            nn.Linear(hidden_size, hidden_size // 4), nn.GELU(), nn.Linear(hidden_size // 4, 1)
        )
        self.value_head = nn.Sequential(
            nn.Linear(hidden_size, wide),
            nn.GELU(),
            nn.LayerNorm(wide),
            nn.Dropout(config.dropout),
            nn.Linear(wide, hidden_size),
            nn.GELU(),
            nn.LayerNorm(hidden_size),
            nn.Dropout(config.dropout),
            nn.Linear(hidden_size, 1),
        )

    def forward(
        self, states: torch.Tensor, item: torch.Tensor, prompt: torch.Tensor
    ) -> torch.Tensor:
        """As ProgressHead's, over all tokens."""
        if self.training:
            ends = item.bincount().cumsum(0)
            tail = (ends[item] - torch.arange(len(item), device=item.device) <= TAIL).unsqueeze(-1)
            states = torch.where(tail, nn.functional.dropout(states, TAIL_DROPOUT), states)
        return self.value_head(self._noisy(pool(states, self.pooler(states), item))).float()

    def progress(self, raw: torch.Tensor) -> torch.Tensor:
        return super().progress(SLOPE * raw - SHIFT)


def pool(states: torch.Tensor, scores: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
    """The mean [n, h] of each sample's states [m, h], weighted by the softmax of its scores [m, 1]; item [m] says whose
    each is, and each of the n samples has some."""
    scores = scores.squeeze(-1).float()
    n = int(item[-1]) + 1
    largest = torch.zeros_like(scores[:n]).scatter_reduce(
        0, item, scores.detach(), "amax", include_self=False
    )
    weights = (scores - largest[item]).exp()
    weights = weights / weights.new_zeros(n).index_add(0, item, weights)[item]
    return states.new_zeros(n, states.shape[-1]).index_add(
        0, item, weights.to(states.dtype).unsqueeze(-1) * states
    )


def make_head(config: HeadConfig, hidden_size: int) -> Head:
    return (PublishedHead if config.pooling == "published" else ProgressHead)(config, hidden_size)


def head_json(head: Head) -> dict[str, Any]:
    """What `head_of` needs to make it again."""
    return {"hidden_size": head.hidden_size, **head.config.model_dump(mode="json")}


def head_of(facts: dict[str, Any]) -> Head:
    """Raises KeyError, TypeError or ValueError where `facts` are not head_json's."""
    facts = {"done_weight": 0.0} | facts  # what was written before there was such an output
    # Outputs that heads had once, and no recipe set, are no fields any more
    fields = {name: value for name, value in facts.items() if name in HeadConfig.model_fields}
    return make_head(HeadConfig(**fields), int(facts["hidden_size"]))


HEAD_FILE = "progress_head.safetensors"
HEAD_CONFIG = "progress_head.json"
INPUTS = ("input_ids", "attention_mask")
OF_PICTURES = ("mm_token_type_ids", "image_grid_thw")  # where these have any size


@dataclass(frozen=True)
class ModelOutput:
    """Of n samples: progress [n] in 0..1, the probability [n] of having reached the end state where the head says it,
    and the head's own outputs [n, k]; logits [m, vocabulary] of the m answer tokens in order, when they were asked for.
    Without a head, progress is NaN, done and raw None."""

    progress: torch.Tensor
    done: torch.Tensor | None
    raw: torch.Tensor | None
    logits: torch.Tensor | None


@dataclass(frozen=True)
class Vision:
    """What the vision tower makes of one picture, whatever stands beside it: `grid` (t, h, w) in patches, its n merged
    tokens [n, h], and what Qwen3-VL adds to the first layers of the language model (deepstack), [n, h] for each."""

    grid: tuple[int, int, int]
    tokens: torch.Tensor
    deepstack: tuple[torch.Tensor, ...]

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (self.tokens, *self.deepstack))


class ProgressModel(nn.Module):
    """A transformers vision-language model and the progress head, where there is one."""

    def __init__(self, backbone: Any, head: Head | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.always_sees = False  # of processes that share the model: see _blank

    def forward(
        self, batch: Batch, with_text: bool = False, vision: Sequence[Vision] | None = None
    ) -> ModelOutput:
        """Progress, and with_text also logits for the answer's loss. Raises ModelError where it has neither.

        `vision` of the batch's pictures in order stands for pixels: the vision tower is not run.
        """
        if self.head is None and not with_text:
            raise ModelError("this model has no progress head: it answers in words only")
        inputs = self._inputs(batch, vision)
        if self.always_sees and "mm_encoder_outputs" not in inputs:
            blank = self._blank()
        else:
            blank = None
        # The output layer is left out here: over a large vocabulary, logits of all tokens would fill the memory.
        states = self.backbone.model(**inputs, use_cache=False).last_hidden_state
        if blank is not None:
            states = states + blank.to(states.dtype)
        if self.head is None:
            raw = None
            progress = torch.full_like(batch["progress"], float("nan"))
            success = None
        else:
            # The head is small, and what it adds up is long: it calculates in float32 whatever the rest does.
            with torch.autocast(states.device.type, enabled=False):
                raw = self.head(*self._samples(states, batch))
            progress = self.head.progress(raw)
            success = self.head.done(raw)
        # The state at a token predicts the next one, hence the shift by one.
        if with_text:
            logits = self.backbone.lm_head(states[:, :-1][batch["labels"][:, 1:] != IGNORE])
        else:
            logits = None
        return ModelOutput(progress, success, raw, logits)

    def _inputs(self, batch: Batch, vision: Sequence[Vision] | None) -> dict[str, Any]:
        inputs = model_inputs(self.backbone, batch, vision)
        if vision is None and "pixel_values" in batch:
            features = image_features(
                self.backbone,
                batch["pixel_values"],
                batch["image_grid_thw"],
            )
            inputs["mm_encoder_outputs"] = {"image": features}
        if "item_mask" in batch:
            inputs |= packed_inputs(
                self.backbone, batch["position_ids"], batch["item_mask"].sum(-1).tolist()
            )
        return inputs

    def _blank(self) -> torch.Tensor:
        """0, by way of the vision tower on a blank picture: each process gathers its layers and has
        gradients (of 0) for them, as the others do whose batch shows pictures. They would wait for
        it otherwise."""
        vision = self.backbone.config.vision_config
        if backbone_kind(self.backbone).free_size:
            side = vision.spatial_merge_size
            values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        else:
            side = vision.image_size[0] // vision.patch_size[0]
            values = vision.num_channels * vision.patch_size[0] ** 2
        device = next(self.parameters()).device
        pixels = torch.zeros(side * side, values, device=device)
        output = image_features(
            self.backbone, pixels, torch.tensor([[1, side, side]], device=device)
        )
        layers = getattr(output, "deepstack_features", None) or []
        features = chain.from_iterable((output.pooler_output, *layers))
        return torch.stack([(f * 0).sum() for f in features]).sum()

    def see(self, pixels: Batch) -> list[Vision]:
        """The vision tower on pixel_values and image_grid_thw of some pictures, none of which sees another. What is
        made of each has memory of its own: one may be kept without the others."""
        grids = pixels["image_grid_thw"]
        output = image_features(self.backbone, pixels["pixel_values"], grids)
        layers = getattr(output, "deepstack_features", None) or []
        visions: list[Vision] = []
        for k, grid in enumerate(grids.tolist()):
            deep = tuple(layer[k].clone() for layer in layers)
            visions.append(Vision(tuple(grid), output.pooler_output[k].clone(), deep))
        return visions

    def _samples(
        self, states: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The m tokens of all samples one after the other, packed or not, without padding: states [m, h], the number of
        the sample of each [m], whether it is of the prompt [m]."""
        mask = batch["item_mask" if "item_mask" in batch else "attention_mask"]
        item, place = mask.nonzero(as_tuple=True)
        packed = "item_index" in batch
        if packed:
            states = states.flatten(0, 1)[batch["item_index"][item, place]]
        else:
            states = states[item, place]
        return states.float(), item, batch["prompt_mask"][item, place] > 0


def model_inputs(
    backbone: Any, batch: Mapping[str, torch.Tensor], vision: Sequence[Vision] | None
) -> dict[str, Any]:
    """Of a batch what a model of this kind and its `generate` take, with pictures that were seen before."""
    is_free = backbone_kind(backbone).free_size
    names = INPUTS + OF_PICTURES if is_free else INPUTS
    inputs: dict[str, Any] = {k: batch[k] for k in names if k in batch}
    if not vision:
        return inputs
    layers = list(zip(*(v.deepstack for v in vision), strict=True))
    tokens: Any = tuple(v.tokens for v in vision)
    deepstack: Any = [list(layer) for layer in layers]
    if not is_free:
        tokens = torch.stack(tokens)
    features = BaseModelOutputWithDeepstackFeatures(
        pooler_output=tokens, deepstack_features=deepstack
    )
    return inputs | {"mm_encoder_outputs": {"image": features}}


def losses(
    model_head: Head | None, output: ModelOutput, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums, as batches of a step are weighed by what they hold: of cross entropy over answer
    tokens, and of the head's loss over samples with a label; and of |progress - label|, not for
    learning."""
    text = progress = error = batch["progress"].new_zeros(())
    if output.logits is not None:
        targets = batch["labels"][:, 1:]
        text = nn.functional.cross_entropy(
            output.logits.float(), targets[targets != IGNORE], reduction="sum"
        )
    if model_head is not None and output.raw is not None:
        is_labelled = ~torch.isnan(batch["progress"])
        progress = model_head.loss(output.raw, batch["progress"])
        error = (output.progress.detach() - batch["progress"])[is_labelled].abs().sum()
    return text, progress, error


# In a folder


def save_model(
    model: ProgressModel,
    processor: Any,
    folder: Path,
    card: dict[str, Any],
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a checkpoint folder: safetensors and JSON only. Of an adapted model, the adapter alone.

    `card["base"]` is the folder that an adapter is for; it is kept relative where it lies beside this one.
    `weights`, by names of the ProgressModel's parameters, are written instead of its own, of which a process may
    have only a part.
    """
    logging.disable_progress_bar()  # one of ours is on the terminal already
    folder.mkdir(parents=True, exist_ok=True)
    backbone, head = (
        _within(weights and _tied(model, weights), part) for part in ("backbone.", "head.")
    )
    model.backbone.save_pretrained(folder, state_dict=backbone)
    if not has_adapter(model.backbone):
        _state_dtype(folder)
    (folder / "README.md").unlink(missing_ok=True)  # peft's card, which knows nothing
    _index(folder)
    save_processor(processor, folder)
    if model.head is not None:
        head = head or model.head.state_dict()
        save_file({k: v.contiguous() for k, v in head.items()}, folder / HEAD_FILE)
        (folder / HEAD_CONFIG).write_text(json.dumps(head_json(model.head), indent=1) + "\n")
    if has_adapter(model.backbone):
        base = Path(card["base"]).resolve()
        models = models_of(folder).resolve()
        card = card | {
            "base": os.path.relpath(base, models) if base.parent == models else str(base)
        }
    write_card(folder, card)


def _index(folder: Path) -> None:
    """Name the model's own weights, as transformers does only of several files: vLLM would load the head's as well."""
    weights = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    if weights.exists():
        with safe_open(weights, "pt") as f:
            names = dict.fromkeys(f.keys(), weights.name)
        index.write_text(json.dumps({"metadata": {}, "weight_map": names}, indent=1) + "\n")


def _state_dtype(folder: Path) -> None:
    """Let config.json say the precision of the weights that were written, where transformers put the model's own."""
    path = folder / "config.json"
    dtype = stored_dtype(folder)
    if dtype:
        name = str(dtype).removeprefix("torch.")
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"dtype": name}, indent=2, sort_keys=True)
            + "\n"
        )


def _tied(model: ProgressModel, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights that are one parameter of the model (a tied output layer) as one tensor, which is written once: gathered
    from several processes each is a copy."""
    first_names: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first_names.setdefault(id(parameter), name)
    names = {name: first_names[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
    return {name: weights[names.get(name, name)] for name in weights}


def _within(weights: dict[str, torch.Tensor] | None, prefix: str) -> dict[str, torch.Tensor] | None:
    return weights and {
        k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)
    }


def save_processor(processor: Any, folder: Path) -> None:
    processor.save_pretrained(folder)
    # transformers writes the chat template as a Jinja file; its older JSON form is read as well
    (folder / "chat_template.json").write_text(
        json.dumps({"chat_template": processor.chat_template}) + "\n"
    )
    (folder / "chat_template.jinja").unlink(missing_ok=True)


def load_model(folder: Path) -> tuple[ProgressModel, Any, dict[str, Any]]:
    """Model, processor and card of a checkpoint folder, an adapter put on its base; nothing is unpickled, no remote
    code. Raises ModelError."""
    logging.disable_progress_bar()
    card = read_card(folder)
    base = base_of(folder)
    backbone = load_backbone(base or folder)
    if base:
        load_adapter(backbone, folder)
    processor = load_processor(folder)
    processor.max_vision_tokens = card.get("max_vision_tokens")
    return ProgressModel(backbone, load_head(folder, card)).eval(), processor, card


def load_head(folder: Path, card: dict[str, Any]) -> Head | None:
    """None where the card says that there is none."""
    if card.get("head", True) is None:
        return None
    if missing := [name for name in (HEAD_FILE, HEAD_CONFIG) if not (folder / name).exists()]:
        raise ModelError(
            f"{folder} is not a checkpoint of a progress model: {', '.join(missing)} missing"
        )
    try:
        head = head_of(json.loads((folder / HEAD_CONFIG).read_text()))
        head.load_state_dict(load_file(folder / HEAD_FILE))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as e:
        raise ModelError(
            f"the head of {folder} cannot be loaded: {' '.join(str(e).split())[:300]}"
        ) from e
    return head
