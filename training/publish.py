"""A checkpoint given to others, if the licences of its data allow: to the hub, a bucket or a folder."""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from training.card import card_text
from training.folder import ADAPTER_CONFIG, CARD, CONFIG, is_laptop, read_card
from training.published import weights_hash
from warehouse.lake import Lake
from warehouse.releases.contents import UNKNOWN, ReleaseError, classify, hub_licence
from warehouse.releases.publish import OutgoingFile, Publication, item_of, listed, open_target, send, stated_licences
from warehouse.releases.release import get_release


def publish_model(
    lake: Lake,
    folder: Path,
    to: str,
    *,
    allow: Collection[str] = (),
    dry_run: bool = False,
    private: bool = False,
    on_file: Callable[[OutgoingFile], None] = lambda item: None,
) -> Publication:
    """Send a checkpoint to hf://OWNER/NAME, s3://, gs:// or a folder. Raises ReleaseError or ModelError.

    Refuses what was trained on data whose licences are not open, unless they are in `allow`. No path of this machine
    is sent.
    """
    card = read_card(folder)
    licences = _licences(lake, folder, card, allow)
    target = open_target(to, private=private, kind="model")
    made = {"model": folder.name, "weights_sha256": weights_hash(folder)}
    # These very weights may be sent again, say with a new card; other weights are never overwritten.
    there = target.manifest()
    if there is not None and any(there.get(k) != v for k, v in made.items()):
        raise ReleaseError(
            f"{to} holds the model {there.get('model')} with other weights: publish to another place, or empty it first"
        )
    with TemporaryDirectory(prefix="proccorpus-publish-") as spare:
        changed = _changed(folder, card, licences)
        for name, text in changed.items():
            (Path(spare) / name).write_text(text)
        # Files that name folders of this machine go out in their changed form alone.
        kept = sorted(p for p in folder.iterdir() if p.is_file() and p.name not in changed)
        items = [item_of(p, p.name) for p in (*kept, *(Path(spare) / name for name in sorted(changed)))]
        manifest = {"format": 1, **made, "files": listed(items)}
        return send(target, items, manifest, dry_run=dry_run, on_file=on_file)


def _licences(lake: Lake, folder: Path, card: dict[str, Any], allow: Collection[str]) -> list[str | None]:
    """What the data's licences say, of a model that may be given on. Raises ReleaseError of another."""
    # A model that was converted, not trained here: of its data nothing is known.
    if "release" not in card:
        if UNKNOWN not in allow:
            raise ReleaseError(f"{folder.name} was not trained here: --allow-licence unknown, if you know its licence")
        return [None]
    release = get_release(lake, card["release"])
    # A release of the same name may have been built anew, from data with other licences.
    if release.config_hash != card["release_hash"]:
        raise ReleaseError(
            f"{folder.name} was trained on another release {release.name} than there is now: what licences its data "
            "has cannot be told"
        )
    stated = stated_licences(lake, release)
    for dataset, text in stated.items():
        licence = classify(text)
        if not licence.allowed(allow):
            raise ReleaseError(
                f"{folder.name} was trained on {dataset}, whose licence is {licence.kind}"
                f"{f' ({text})' if text else ''}: if you may give on what was learned from it, {licence.flag}"
            )
    return list(stated.values())


def _changed(folder: Path, card: dict[str, Any], licences: list[str | None]) -> dict[str, str]:
    """Files that are sent otherwise than they are here: README.md, and those that name folders of this machine."""
    # The public name of the model that training began with, else the name of its folder
    model = card.get("recipe", {}).get("model", {})
    start = card.get("base") or model.get("path")
    base = model.get("base") or (Path(start).name if start else None)
    card = _portable(card, base)
    files = {CARD: json.dumps(card, indent=1, sort_keys=True) + "\n"}
    if (folder / ADAPTER_CONFIG).exists():
        settings = json.loads((folder / ADAPTER_CONFIG).read_text())
        files[ADAPTER_CONFIG] = json.dumps(settings | {"base_model_name_or_path": base}, indent=1) + "\n"
    if is_laptop(folder):
        settings = json.loads((folder / CONFIG).read_text())
        files[CONFIG] = json.dumps(_with_named_encoder(settings), indent=1, sort_keys=True) + "\n"
    files["README.md"] = _front_matter(licences, base, is_laptop(folder)) + card_text(card, folder.name)
    return files


def _portable(card: dict[str, Any], base: str | None) -> dict[str, Any]:
    """The card with `base` in place of each folder of this machine."""
    card = dict(card)
    recipe = card.get("recipe", {})
    if recipe:
        model = recipe.get("model", {})
        model = _with_named_encoder(model) | {"path": base if model.get("path") else None}
        card["recipe"] = recipe | {"model": model}
    if "base" in card:
        card["base"] = base
    return card


def _with_named_encoder(section: dict[str, Any]) -> dict[str, Any]:
    """A section with settings of a laptop model, whose encoder is named without the folder that it lies in here."""
    laptop = section.get("laptop")
    if not laptop:
        return section
    kind, _, where = laptop["encoder"].partition(":")
    if kind != "hf" or not (Path(where).is_dir() or Path(where).is_absolute()):
        return section
    named = f"hf:{Path(where).name}"
    told = section.get("encoder")
    title = {"encoder": told | {"title": told["title"].replace(laptop["encoder"], named)}} if told else {}
    return section | {"laptop": laptop | {"encoder": named}} | title


def _front_matter(licences: list[str | None], base: str | None, laptop: bool = False) -> str:
    """The YAML head of README.md, which the hub reads."""
    licence, names = hub_licence(licences)
    kind = ["pipeline_tag: robotics"] if laptop else ["library_name: transformers", "pipeline_tag: image-text-to-text"]
    lines = [f"license: {licence}", *kind]
    if names:
        lines.append(f"license_name: {json.dumps(names)}")
    if base and "/" in base:
        lines.append(f"base_model: {base}")
    return "\n".join(["---", *lines, "---", "", ""])
