"""Encoders that are neural networks. This module imports torch: it is imported only where one is asked for."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from shutil import copyfileobj
from threading import Lock
from typing import Any, NamedTuple
from urllib.request import urlopen

import numpy as np
import torch
from torch import nn

from annotate.embeddings import (
    INSTALL,
    MOBILENET_SHA256,
    MOBILENET_URL,
    EncoderError,
    hub_cache,
    local_weights,
)
from annotate.embeddings.projection import CELL, WHOLE, Encoder, area_weights, signs
from core.files import open_whole


def weights_file(url: str, sha256: str = "") -> Path:
    """A checked file of weights, downloaded if it is missing. Raises EncoderError.

    `sha256` is or begins with that of the file; else its name says it, as torch's hub has it:
    resnet18-f37072fd.pth.
    """
    sha256 = sha256 or Path(url).stem.rpartition("-")[2]
    stored_path = local_weights(url)
    path = stored_path or _downloaded_file(url)
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if not sha256 or not actual.startswith(sha256):
        expected = f"{sha256}..." if len(sha256) < len(actual) else sha256
        reason = f"(sha256 {actual}, not {expected})"
        if not stored_path:
            path.unlink()
            raise EncoderError(f"{url} came damaged {reason}: try again")
        raise EncoderError(f"{path} is damaged or not what its name says {reason}: delete it")
    return path


def _downloaded_file(url: str) -> Path:
    """A file put into torch's cache. Raises EncoderError."""
    path = hub_cache() / Path(url).name
    try:
        with urlopen(url) as answer, open_whole(path) as file:
            copyfileobj(answer, file)
    except OSError as e:
        instruction = f"`{INSTALL}` brings them, or put" if url == MOBILENET_URL else "Put"
        remedy = f'{instruction} the file into {path.parent}; the encoder grey needs none (embeddings.encoder = "grey")'
        reason = f"{url} cannot be downloaded ({getattr(e, 'reason', None) or e})"
        raise EncoderError(f"no weights for the encoder: {reason}. {remedy}") from e
    return path


# Runs lie beside one another nearly as well by pictures of 64 px as by larger ones, which cost more than to decode the
# video (docs/sql.md)
MOBILENET_PX = 64
# Its first 14 blocks give a map of a sixteenth of the picture's side: what comes after them sees everything everywhere
MOBILENET_LOCAL = 14
OTHER_PX = 224  # what nearly all of torchvision's are trained with
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# A call of few pictures costs as much a picture as of many, and more
CPU_BATCH, GPU_BATCH, SMALL_BATCH = 32, 64, 4
WARM_UPS = 3  # torch's compiler looks at the first calls, and may compute them otherwise than those that follow

_loading = Lock()


class Tower(NamedTuple):
    """A network that gives a feature map float32 [n, c, h, w] and numbers of the whole picture [n, d]."""

    net: nn.Module
    size_px: int
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    compiles: bool = False  # torch's compiler makes it faster and leaves it as it is


@contextmanager
def one_thread() -> Iterator[None]:
    """torch works on one thread: several that wait for one another over small work cost twice the
    time of the CPU, and several times that where the cores have other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def network(name: str, grid: int, size_px: int | None, device: str) -> Encoder:
    """The network of an encoder's name. Raises EncoderError."""
    if device == "cuda" and not torch.cuda.is_available():
        raise EncoderError(
            'embeddings.device = "cuda": torch sees no GPU here; "auto" takes the CPU then'
        )
    torch_device = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if torch_device == "cpu":
        batch, title = (CPU_BATCH, "cpu")
    else:
        batch, title = (GPU_BATCH, torch.cuda.get_device_name())
    kind, _, model_name = name.partition(":")
    load_tower = {
        "mobilenet_v2": _mobilenet_tower,
        "torchvision": _torchvision_tower,
        "hf": _transformers_tower,
    }[kind]
    with _loading:
        tower = load_tower(model_name, size_px)
        # Numbers do not depend on which of several ways cuDNN happens to find fastest
        torch.backends.cudnn.benchmark = False
        net: Any = Embedder(tower, grid).eval().to(torch_device)
        # So small a network that a second thread would cost more than it brings
        is_small = tower.compiles and torch_device == "cpu"
        if is_small:
            net = _compiled_network(net, (batch, SMALL_BATCH), tower.size_px)

    def embed(pictures: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), one_thread() if is_small else nullcontext():
            return net(torch.from_numpy(pictures).to(torch_device)).cpu().numpy()

    return Encoder(f"{name}@{tower.size_px}", tower.size_px, title, batch, SMALL_BATCH, embed)


def _compiled_network(net: nn.Module, batches: Sequence[int], size_px: int) -> Any:
    """The network with its normalisations folded into its convolutions: twice as fast."""
    pictures = [torch.zeros(n, size_px, size_px, 3, dtype=torch.uint8) for n in batches]
    with one_thread(), torch.inference_mode():
        traced = torch.jit.trace(net, pictures[0], check_trace=False)
        fast = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
        for batch in pictures * WARM_UPS:
            fast(batch)
        return fast


class Embedder(nn.Module):
    """Pictures to numbers: normalise, look, pool on the grid, project."""

    scale: torch.Tensor
    shift: torch.Tensor
    to_whole: torch.Tensor
    to_cell: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor

    def __init__(self, tower: Tower, grid: int) -> None:
        super().__init__()
        net: Any = tower.net.eval().requires_grad_(False)
        self.tower = net.to(memory_format=torch.channels_last)
        # (x / 255 - mean) / std as one multiplication and one addition
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (tower.mean, tower.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)
        with torch.inference_mode():
            maps, whole = self.tower(torch.zeros(1, 3, tower.size_px, tower.size_px))
        self.register_buffer("to_whole", torch.from_numpy(signs(whole.shape[1], WHOLE)))
        self.register_buffer("to_cell", torch.from_numpy(signs(maps.shape[1], CELL)))
        self.register_buffer("rows", torch.from_numpy(area_weights(grid, maps.shape[2])))
        self.register_buffer(
            "columns", torch.from_numpy(area_weights(grid, maps.shape[3]).T.copy())
        )

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """float32 [n, 256 + 64 * grid ** 2] of uint8 [n, s, s, 3]"""
        x = pictures.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        maps, whole = self.tower(x * self.scale + self.shift)
        cells = (self.rows @ maps @ self.columns).permute(0, 2, 3, 1)
        return torch.cat([whole @ self.to_whole, (cells @ self.to_cell).flatten(1)], dim=1)


def features(weights: dict[str, Any]) -> nn.Sequential:
    """MobileNetV2's nineteen blocks, with the weights of torchvision's published file.

    Raises RuntimeError for weights of another network.
    """
    # What would be drawn for new layers is not drawn at all
    with torch.device("meta"):
        net = _torchvision_models().mobilenet_v2(weights=None)
    net.load_state_dict(weights, assign=True)
    return net.features


def _torchvision_models() -> Any:
    """torchvision's, whose import takes a second, and which an encoder of the hub does without."""
    from torchvision import models

    return models


class _Mobilenet(nn.Module):
    """Where things are, by a map half-way; what the picture shows, by the last map's mean."""

    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        self.local = features[:MOBILENET_LOCAL]
        self.rest = features[MOBILENET_LOCAL:]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.local(x)
        return maps, self.rest(maps).mean((2, 3))


def _mobilenet_tower(_: str, size_px: int | None) -> Tower:
    weights = torch.load(
        weights_file(MOBILENET_URL, MOBILENET_SHA256), map_location="cpu", weights_only=True
    )
    return Tower(_Mobilenet(features(weights)), size_px or MOBILENET_PX, compiles=True)


def _torchvision_tower(name: str, size_px: int | None) -> Tower:
    """Raises EncoderError: no such model, or no weights."""
    models = _torchvision_models()
    if name not in models.list_models():
        raise EncoderError(
            f"torchvision has no model {name}; torchvision.models.list_models() says which it has"
        )
    # The best weights that it is published with
    weights: Any = next(iter(reversed(list(models.get_model_weights(name)))), None)
    if weights is None:
        raise EncoderError(f"torchvision publishes no weights of {name}: name another model")
    categories = weights.meta.get("categories")
    net = models.get_model(
        name, weights=None, **({"num_classes": len(categories)} if categories else {})
    )
    net.load_state_dict(
        torch.load(weights_file(weights.url), map_location="cpu", weights_only=True)
    )
    size = size_px or OTHER_PX
    preset = weights.transforms()
    mean = getattr(preset, "mean", IMAGENET_MEAN)
    std = getattr(preset, "std", IMAGENET_STD)
    return Tower(_Watched(net.eval(), size), size, mean, std)


class _Watched(nn.Module):
    """The last feature map that goes by inside a network: of a convolution's kind, else of patches in order."""

    def __init__(self, net: nn.Module, size_px: int) -> None:
        super().__init__()
        self.net = net
        self.seen: list[Any] = []
        # Every part is watched once, to learn which of them gives the last map
        last: list[nn.Module] = []
        hooks = [
            part.register_forward_hook(
                lambda part, _, out: last.append(part) if _is_map(out) else None
            )
            for part in net.modules()
        ]
        with torch.inference_mode():
            net(torch.zeros(1, 3, size_px, size_px))
        for hook in hooks:
            hook.remove()
        if not last:
            raise EncoderError(
                "this model gives no feature map: name one that looks at single pictures"
            )
        last[-1].register_forward_hook(lambda _part, _, out: self.seen.append(out))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen.clear()
        self.net(x)
        maps = _as_map(self.seen.pop())
        return maps, maps.mean((2, 3))


def _is_map(out: Any) -> bool:
    """[n, c, h, w] or [n, patches, c] of more than one place"""
    if not isinstance(out, torch.Tensor):
        return False
    return (out.ndim == 4 and min(out.shape[2:]) > 1) or (out.ndim == 3 and out.shape[1] > 4)


def _as_map(out: torch.Tensor, side: int | None = None) -> torch.Tensor:
    """[n, c, h, w] of a map, or of patches [n, before + h * w, c]; what stands before the patches belongs to none."""
    if out.ndim == 4:
        return out
    side = side or math.isqrt(out.shape[1])
    return out[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))


def _transformers_tower(name: str, size_px: int | None) -> Tower:
    """A vision model in a folder or on the hub (NAME@REVISION). Raises EncoderError."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    location, _, revision = (name, "", "") if Path(name).is_dir() else name.partition("@")
    # Nobody's code is run, and nothing but safetensors is read
    options: dict[str, Any] = {"trust_remote_code": False, "revision": revision or "main"}
    try:
        config = AutoConfig.from_pretrained(location, **options)
        net = AutoModel.from_pretrained(
            location, use_safetensors=True, dtype=torch.float32, **options
        )
    except (OSError, ValueError) as e:
        reason = " ".join(str(e).split())[:300]
        raise EncoderError(
            f"the encoder hf:{name} cannot be had: {reason}. Name a folder or a model of the hub"
        ) from e
    try:
        processor: Any = AutoImageProcessor.from_pretrained(location, **options)
    except (OSError, ValueError):
        processor = None  # a folder without one: pictures are normalised as those of ImageNet
    mean = getattr(processor, "image_mean", IMAGENET_MEAN)
    std = getattr(processor, "image_std", IMAGENET_STD)

    vision: Any = getattr(config, "vision_config", config)
    # DINO's are trained with 518 pixels and more, and see as well with fewer
    is_dino = str(getattr(vision, "model_type", "")).startswith("dinov")
    image_size = getattr(vision, "image_size", None)
    patch = getattr(vision, "patch_size", None)
    size = size_px or (image_size if isinstance(image_size, int) and not is_dino else OTHER_PX)
    side = size // patch if isinstance(patch, int) else None
    return Tower(_Patches(getattr(net, "vision_model", net), side), size, mean, std)


class _Patches(nn.Module):
    """The last hidden state of a vision model, and what it says of the whole picture."""

    def __init__(self, net: nn.Module, side: int | None) -> None:
        super().__init__()
        self.net = net
        self.side = side

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.net(pixel_values=x)
        maps = _as_map(out.last_hidden_state, self.side)
        pooled = getattr(out, "pooler_output", None)
        return maps, maps.mean((2, 3)) if pooled is None else pooled.flatten(1)
