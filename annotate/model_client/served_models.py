"""Which model a server has behind a name."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from annotate.model_client.calls import VlmError
from annotate.vlm.config import VlmConfig


@dataclass(frozen=True)
class Served:
    """A model as its server names it."""

    name: str
    root: str | None  # what was loaded under that name: a repository or a folder
    revision: str | None

    @property
    def identity(self) -> str | None:
        """The last part of the root: servers may keep the same model in different folders."""
        return self.root and self.root.rstrip("/").rpartition("/")[2]


def served(card: Mapping[str, object]) -> Served:
    """Of a card in /v1/models. A hub cache's folder tells repository and revision."""
    name, root, revision = card["id"], card.get("root"), card.get("revision")
    root = root if isinstance(root, str) else None
    snapshot = re.search(r"models--(.+?)/snapshots/([0-9a-f]{40})", root or "")
    if snapshot:
        root, revision = snapshot[1].replace("--", "/"), snapshot[2]
    return Served(str(name), root, revision if isinstance(revision, str) else None)


def agreed(name: str, config: VlmConfig, urls: Sequence[str], lists: Sequence[Sequence[Served]]) -> Served:
    """The model as all endpoints serve it. Raises VlmError when one does not, or serves another under its name."""
    cards = []
    for url, listed in zip(urls, lists, strict=True):
        card = next((c for c in listed if c.name == name), None)
        if card is None:
            found = ", ".join(c.name for c in listed[:5]) or "nothing"
            raise VlmError("wrong_model", f"{url} serves {found}, not {name}: serve it, or configure that one")
        if name == config.model and config.revision and card.revision and card.revision != config.revision:
            raise VlmError(
                "wrong_model",
                f"{url} serves {name} in revision {card.revision}, configured: {config.revision}",
            )
        cards.append(card)
    if len({card.identity for card in cards}) > 1:
        roots = ", ".join(f"{card.root} at {at}" for card, at in zip(cards, urls, strict=True))
        raise VlmError("wrong_model", f"the endpoints serve different models as {name}: {roots}")
    return cards[0]
