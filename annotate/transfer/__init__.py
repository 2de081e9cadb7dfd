"""The `transfer` annotator: runs of a task are laid beside those whose label a person vouches for."""

from annotate.transfer.annotator import CODE_VERSION, annotate
from annotate.transfer.config import TransferConfig
from annotate.transfer.runs import Alignment, Reference, SeenRun, Transferred

__all__ = ["CODE_VERSION", "Alignment", "Reference", "SeenRun", "TransferConfig", "Transferred", "annotate"]
