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
    is_vllm: bool = False  # the server says so

    @property
    def identity(self) -> str | None:
        """The last part of the root: servers may keep the same model in different folders."""
        return self.root and self.root.rstrip("/").rpartition("/")[2]

    @classmethod
    def of_card(cls, card: Mapping[str, object]) -> "Served":
        """Of a card in /v1/models. The folder of a hub's cache tells repository and revision.

        Example: the root ".../models--Qwen--Qwen3-VL-2B/snapshots/<40 hex>" is "Qwen/Qwen3-VL-2B" in that revision.
        """
        name, root, revision = card["id"], card.get("root"), card.get("revision")
        root = root if isinstance(root, str) else None
        snapshot = re.search(r"models--(.+?)/snapshots/([0-9a-f]{40})", root or "")
        if snapshot:
            root, revision = snapshot[1].replace("--", "/"), snapshot[2]
        is_vllm = card.get("owned_by") == "vllm"
        return cls(str(name), root, revision if isinstance(revision, str) else None, is_vllm)


def agreed(name: str, config: VlmConfig, urls: Sequence[str], lists: Sequence[Sequence[Served]]) -> Served:
    """The model as all endpoints serve it. Raises VlmError when one does not, or serves another under its name."""
    cards = [_served_as(name, config, url, listed) for url, listed in zip(urls, lists, strict=True)]
    identities = {card.identity for card in cards}
    if len(identities) > 1:
        roots = ", ".join(f"{card.root} at {url}" for card, url in zip(cards, urls, strict=True))
        raise VlmError("wrong_model", f"the endpoints serve different models as {name}: {roots}")
    return cards[0]


def _served_as(name: str, config: VlmConfig, url: str, listed: Sequence[Served]) -> Served:
    """The model that an endpoint serves under the name. Raises VlmError: it serves none, or another revision of it."""
    card = next((c for c in listed if c.name == name), None)
    if card is None:
        names = ", ".join(c.name for c in listed[:5]) or "nothing"
        raise VlmError("wrong_model", f"{url} serves {names}, not {name}: serve it, or configure that one")
    # The configured revision is that of the configured model, not of the strong one
    expected = config.revision if name == config.model else None
    if expected and card.revision and card.revision != expected:
        raise VlmError("wrong_model", f"{url} serves {name} in revision {card.revision}, configured: {expected}")
    return card
