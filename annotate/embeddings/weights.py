"""The weights of encoders, out of a package, torch's cache, or its hub. Every file's sha256 is checked."""

import hashlib
from pathlib import Path
from shutil import copyfileobj
from urllib.request import urlopen

from annotate.embeddings import INSTALL, MOBILENET_URL, EncoderError, hub_cache, local_weights
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
