"""Checkpoints that ProcVLM and ProgressLM publish, brought into our layout; and any, given to others if licences allow.

What is pickled is read as weights only. ProcVLM's: weights in transformers' form or in an older one with prefixes, and
the progress head in a file of its own; or an adapter with a head. ProgressLM's are models without a head. Every weight
must be known and none may be missing.
"""

import hashlib
import json
import pickle
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import peft
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from core.files import sha256_file, whole_folder
from training.backbones import (
    ADAPTER_FILE,
    load_adapter,
    load_backbone,
    load_processor,
    read_config,
)
from training.card import card_text
from training.folder import (
    ADAPTER_CONFIG,
    BACKBONES,
    CARD,
    CONFIG,
    ModelError,
    base_of,
    is_laptop,
    read_card,
)
from training.model import Head, ProgressModel, load_head, make_head, save_model
from training.recipe import WIDEST_PX, HeadConfig
from warehouse.lake import Lake
from warehouse.releases.contents import UNKNOWN, ReleaseError, classify, hub_licence
from warehouse.releases.places import OutgoingFile, Publication, item_of, listed, open_target, send
from warehouse.releases.publish import stated_licences
from warehouse.releases.release import get_release

HEADS = ("procvlm_extra/procvlm_head.pt", "procvlm_head.pt", "procvlm_head.bin")
WEIGHTS = (
    "model.safetensors.index.json",
    "model.safetensors",
    "procvlm_model.bin",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
# As ProcVLM's training has it
PUBLISHED_HEAD = HeadConfig(pooling="published", weight=0.2, noise=0.03)
NAMED = 3  # weights that an error names

Weights = dict[str, torch.Tensor]


def convert(folder: Path, out: Path, base: Path | None = None) -> dict[str, Any]:
    """Write a published checkpoint, or an adapter for `base`, as one of ours; returns its card. Raises ModelError."""
    if not folder.is_dir():
        raise ModelError(f"there is no folder {folder}")
    if out.exists():
        raise ModelError(f"{out} exists: give a folder that does not")
    # An adapter's folder has no weights of a model: these come from its base.
    base = _base_of_adapter(folder, base) if (folder / ADAPTER_CONFIG).exists() else None
    backbone, head_weights, used = _adapted(folder, base) if base else _whole(folder)
    if head_file := _first_file(folder, HEADS):
        used.append(head_file)
    head = _head(folder, head_file, head_weights, base)
    # Adapters are often published without a tokenizer: then the base's serves.
    processor = load_processor(
        base if base and not (folder / "tokenizer_config.json").exists() else folder
    )
    model = ProgressModel(backbone, head).eval()
    # Hashes of the published files say later what a converted checkpoint was made from.
    card = {
        "converted_from": folder.name,
        "files": {p.relative_to(folder).as_posix(): sha256_file(p) for p in used},
        "head": head.config.model_dump(mode="json") if head else None,
        "max_px": WIDEST_PX,
        "max_vision_tokens": None,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    if base:
        card["base"] = str(base.resolve())
    with whole_folder(out) as half:
        save_model(model, processor, half, card)
    return card


def _head(folder: Path, file: Path | None, weights: Weights, base: Path | None) -> Head | None:
    """The head of a published model. One in a file of its own takes the place of one among the weights."""
    # An empty file of a head is an error of that file (`published_head` says so), not a model without a head.
    if file:
        return published_head(read_weights(file), str(file))
    if weights:
        return published_head(weights, str(folder))
    # An adapter that brings no head keeps that of its base, where the base is one of our checkpoints.
    if base and (base / CARD).exists():
        return load_head(base, read_card(base))
    return None


def _whole(folder: Path) -> tuple[Any, Weights, list[Path]]:
    """A model with all of its weights, the head's weights among them, and the files that were read. ModelError."""
    kind = BACKBONES[read_config(folder)["model_type"]]
    model_class = getattr(transformers, kind.model)
    weights, used = _weights(folder)
    # Older checkpoints put prefixes before all names, the head's too: without them head and backbone can be told apart.
    weights = {plain_name(k): v for k, v in weights.items()}
    head_weights = {k: v for k, v in weights.items() if k.startswith(("pooler.", "value_head."))}
    backbone_weights = {k: v for k, v in weights.items() if k not in head_weights}
    # No path is given: the weights were read already, without unpickling, and bear the names of today.
    try:
        config = model_class.config_class.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        backbone, info = model_class.from_pretrained(
            None,
            config=config,
            state_dict=backbone_weights,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as e:
        raise ModelError(
            f"the weights of {folder} cannot be used: {' '.join(str(e).split())[:300]}"
        ) from e
    # transformers would draw missing weights at random and pass over unknown ones in silence.
    refuse(str(folder), missing=info["missing_keys"], unknown=info["unexpected_keys"])
    return backbone, head_weights, used


def _first_file(folder: Path, names: Iterable[str]) -> Path | None:
    """The first of these files that the folder has."""
    return next((folder / name for name in names if (folder / name).exists()), None)


def _adapted(folder: Path, base: Path) -> tuple[Any, Weights, list[Path]]:
    """A base with the adapter of a folder on it; as `_whole`. Raises ModelError."""
    file = _first_file(folder, (ADAPTER_FILE, "adapter_model.bin"))
    if file is None:
        raise ModelError(f"the adapter {folder} lacks {ADAPTER_FILE}")
    # peft stores names with a prefix of its own, and older ones as transformers had them before 4.52.
    weights = {}
    for name, tensor in read_weights(file).items():
        name = re.sub(r"^visual\.", "model.visual.", name.removeprefix("base_model.model."))
        weights[re.sub(r"^model\.(?!language_model\.|visual\.)", "model.language_model.", name)] = (
            tensor
        )
    backbone = load_backbone(base)
    with TemporaryDirectory() as spare:
        (Path(spare) / ADAPTER_CONFIG).write_bytes((folder / ADAPTER_CONFIG).read_bytes())
        save_file(
            {f"base_model.model.{k}": v.contiguous() for k, v in weights.items()},
            Path(spare) / ADAPTER_FILE,
        )
        load_adapter(backbone, Path(spare))
    expected = {
        n.replace(".default.", ".") for n, _ in backbone.named_parameters() if ".lora_" in n
    }
    refuse(str(folder), missing=expected - set(weights), unknown=set(weights) - expected)
    return backbone, {}, [file]


def _base_of_adapter(folder: Path, base: Path | None) -> Path:
    """The folder of the model that an adapter belongs to: `base`, else the one that it names. Raises ModelError."""
    try:
        base_name = (
            json.loads((folder / ADAPTER_CONFIG).read_text()).get("base_model_name_or_path") or ""
        )
    except (OSError, ValueError, AttributeError) as e:
        raise ModelError(f"{folder / ADAPTER_CONFIG} cannot be read: {e}") from e
    base = base or Path(base_name)
    if not (base / "config.json").exists():
        raise ModelError(
            f"{folder} is an adapter for {base_name or 'an unknown model'}: say --base FOLDER of that model"
        )
    return base


def plain_name(name: str) -> str:
    """A weight's name without the prefixes of ProcVLM's older checkpoints."""
    while name.startswith("base_model."):
        name = name.removeprefix("base_model.")
    while name.startswith("model.model."):
        name = name.removeprefix("model.")
    bare_name = name.removeprefix("model.")
    if bare_name.startswith(("lm_head.", "pooler.", "value_head.")):
        return bare_name
    return name


def published_head(weights: Mapping[str, torch.Tensor], file_name: str) -> Head:
    """ProcVLM's head: its names are pooler.score.* and value_head.*. Raises ModelError."""
    weights = {plain_name(k).replace("pooler.score.", "pooler."): v for k, v in weights.items()}
    # The head's first layer tells how wide the backbone's states are.
    first = weights.get("value_head.0.weight")
    if first is None or first.ndim != 2:
        raise ModelError(f"{file_name} holds no progress head: value_head.0.weight is missing")
    head = make_head(PUBLISHED_HEAD, first.shape[1])
    head_state = head.state_dict()
    refuse(
        file_name, missing=set(head_state) - set(weights), unknown=set(weights) - set(head_state)
    )
    try:
        # A head is small and is kept in float32, in whatever precision it was published.
        head.load_state_dict({k: v.float() for k, v in weights.items()})
    except RuntimeError as e:
        raise ModelError(
            f"the head in {file_name} has another shape: {' '.join(str(e).split())[:300]}"
        ) from e
    return head


def refuse(file_name: str, *, missing: Iterable[str], unknown: Iterable[str]) -> None:
    """Raises ModelError that names weights which are missing, or which we know nothing of."""
    for problem, names in (
        ("lacks the weights", sorted(missing)),
        ("has weights that we do not know:", sorted(unknown)),
    ):
        if names:
            remaining = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            raise ModelError(f"{file_name} {problem} {', '.join(names[:NAMED])}{remaining}")


def _weights(folder: Path) -> tuple[Weights, list[Path]]:
    """All weights of a model's folder, and the files that they were in. Raises ModelError."""
    file = _first_file(folder, WEIGHTS)
    if file is None:
        raise ModelError(f"{folder} has no weights: none of {', '.join(WEIGHTS)} is there")
    if file.suffix != ".json":
        return read_weights(file), [file]
    file_of_weight = _weight_index(file)
    names = sorted(set(file_of_weight.values()))
    # A file may hold a copy of a weight that belongs to another: the index decides which one counts.
    weights: Weights = {}
    for name in names:
        weights |= {
            k: v for k, v in read_weights(folder / name).items() if file_of_weight.get(k) == name
        }
    refuse(str(file), missing=set(file_of_weight) - set(weights), unknown=())
    return weights, [folder / n for n in names]


def _weight_index(file: Path) -> dict[str, str]:
    """The name of the file that each weight is in, all of them beside the index. Raises ModelError."""
    try:
        file_of_weight: dict[str, str] = json.loads(file.read_text())["weight_map"]
        outer_names = sorted(n for n in file_of_weight.values() if Path(n).name != n)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise ModelError(f"{file} is not an index of weights: {e!r}") from e
    if outer_names:
        raise ModelError(f"{file} names a file outside of its folder: {outer_names[0]}")
    return file_of_weight


def read_weights(path: Path) -> Weights:
    """The tensors of a file, safetensors or pickled; nothing but tensors is made of it. Raises ModelError."""
    try:
        if path.suffix == ".safetensors":
            weights = load_file(path)
        else:
            weights = torch.load(path, "cpu", weights_only=True)
    except FileNotFoundError as e:
        raise ModelError(f"{path} is missing") from e
    except pickle.UnpicklingError as e:
        # torch names the class that it refused to make; the user can judge by it what the file is.
        match = re.search(r"GLOBAL (\S+)", str(e))
        detail = f" ({match[1]})" if match else ""
        raise ModelError(
            f"{path} is not loaded: it holds more than weights{detail}, and could run code of its own"
        ) from e
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError) as e:
        raise ModelError(f"{path} cannot be read: {' '.join(str(e).split())[:200]}") from e
    if not isinstance(weights, dict) or not all(
        isinstance(v, torch.Tensor) for v in weights.values()
    ):
        raise ModelError(f"{path} is not a table of weights")
    return weights


# Adapters merged into the models that they were made for: for servers


MERGED = ".merged"


def weights_hash(folder: Path) -> str:
    """One hash over the weight files of a checkpoint: their names and contents."""
    lines = [f"{p.name} {sha256_file(p)}" for p in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def merge(folder: Path, out: Path) -> dict[str, Any]:
    """Write the adapter's checkpoint as a whole model, in its base's precision; returns its card.
    Raises ModelError.

    The card is the adapter's, with the names and hashes of adapter and base.
    """
    base = base_of(folder)
    if base is None:
        raise ModelError(f"{folder} is no adapter: it has no {ADAPTER_CONFIG}")
    if not (folder / ADAPTER_FILE).exists():
        raise ModelError(f"the adapter {folder} lacks {ADAPTER_FILE}")
    card = read_card(folder)
    head = load_head(folder, card)
    backbone = load_backbone(base)
    dtype = backbone.dtype
    try:
        adapted = peft.PeftModel.from_pretrained(backbone, str(folder), local_files_only=True)
        whole: Any = adapted.merge_and_unload(safe_merge=True)  # type: ignore[operator]
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as e:
        raise ModelError(
            f"the adapter {folder} cannot be merged: {' '.join(str(e).split())[:300]}"
        ) from e
    model = ProgressModel(whole.to(dtype), head)
    card = {k: v for k, v in card.items() if k != "base"} | {
        "parameters": sum(p.numel() for p in model.parameters()),
        "merged": {
            "adapter": folder.name,
            "adapter_sha256": weights_hash(folder),
            "base": base.name,
            "base_sha256": weights_hash(base),
        },
    }
    with whole_folder(out) as half:
        save_model(model, load_processor(folder), half, card)
    return card


def publish_model(
    lake: Lake,
    folder: Path,
    to: str,
    *,
    allow: Collection[str] = (),
    dry_run: bool = False,
    private: bool = False,
    replace: bool = False,
    on_file: Callable[[OutgoingFile], None] = lambda item: None,
) -> Publication:
    """Send a checkpoint to hf://OWNER/NAME, s3://, gs:// or a folder. Raises ReleaseError or
    ModelError.

    Refuses what was trained on data whose licences are not open, unless they are in `allow`. No
    path of this machine is sent.
    """
    card = read_card(folder)
    licences = _licences(lake, folder, card, allow)
    target = open_target(to, private=private, kind="model")
    identity = {"model": folder.name, "weights_sha256": weights_hash(folder)}
    # These very weights may be sent again, say with a new card; other weights are never overwritten
    with TemporaryDirectory(prefix="proccorpus-publish-") as spare:
        changed = _changed(folder, card, licences)
        for name, text in changed.items():
            (Path(spare) / name).write_text(text)
        # Files that name folders of this machine go out in their changed form alone.
        unchanged = sorted(p for p in folder.iterdir() if p.is_file() and p.name not in changed)
        changed_files = [Path(spare) / name for name in sorted(changed)]
        items = [item_of(path, path.name) for path in (*unchanged, *changed_files)]
        manifest = {"format": 1, **identity, "files": listed(items)}
        return send(
            target, items, manifest, identity, dry_run=dry_run, replace=replace, on_file=on_file
        )


def _licences(
    lake: Lake, folder: Path, card: dict[str, Any], allow: Collection[str]
) -> list[str | None]:
    """What the data's licences say, of a model that may be given on. Raises ReleaseError of another."""
    # A model that was converted, not trained here: of its data nothing is known.
    if "release" not in card:
        if UNKNOWN not in allow:
            raise ReleaseError(
                f"{folder.name} was not trained here: --allow-licence unknown, if you know its licence"
            )
        return [None]
    release = get_release(lake, card["release"])
    # A release of the same name may have been built anew, from data with other licences.
    if release.config_hash != card["release_hash"]:
        raise ReleaseError(
            f"{folder.name} was trained on another release {release.name} than there is now: what licences its data "
            "has cannot be told"
        )
    licences = stated_licences(lake, release)
    for dataset, text in licences.items():
        licence = classify(text)
        if not licence.allowed(allow):
            raise ReleaseError(
                f"{folder.name} was trained on {dataset}, whose licence is {licence.kind}"
                f"{f' ({text})' if text else ''}: if you may give on what was learned from it, {licence.flag}"
            )
    return list(licences.values())


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
        files[ADAPTER_CONFIG] = (
            json.dumps(settings | {"base_model_name_or_path": base}, indent=1) + "\n"
        )
    if is_laptop(folder):
        settings = json.loads((folder / CONFIG).read_text())
        files[CONFIG] = json.dumps(_with_named_encoder(settings), indent=1, sort_keys=True) + "\n"
    files["README.md"] = _front_matter(licences, base, is_laptop(folder)) + card_text(
        card, folder.name
    )
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
    kind, _, location = laptop["encoder"].partition(":")
    if kind != "hf" or not (Path(location).is_dir() or Path(location).is_absolute()):
        return section
    encoder_name = f"hf:{Path(location).name}"
    encoder_facts = section.get("encoder")
    if encoder_facts:
        title = {
            "encoder": encoder_facts
            | {"title": encoder_facts["title"].replace(laptop["encoder"], encoder_name)}
        }
    else:
        title = {}
    return section | {"laptop": laptop | {"encoder": encoder_name}} | title


def _front_matter(licences: list[str | None], base: str | None, laptop: bool = False) -> str:
    """The YAML head of README.md, which the hub reads."""
    licence, names = hub_licence(licences)
    if laptop:
        kind = ["pipeline_tag: robotics"]
    else:
        kind = ["library_name: transformers", "pipeline_tag: image-text-to-text"]
    lines = [f"license: {licence}", *kind]
    if names:
        lines.append(f"license_name: {json.dumps(names)}")
    if base and "/" in base:
        lines.append(f"base_model: {base}")
    return "\n".join(["---", *lines, "---", "", ""])
