"""From a sample to model inputs: the one transform, for training and for evaluation.

A sample's question has one <image> mark per picture; the chat message puts the pictures there. Pictures are shrunk to
`max_px` on the longer side before the processor sees them, so both paths work on the same pixels.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch

from core.values import IMAGE_MARK
from training.pictures import Item, Size, as_text, chat, shrunk, shrunk_to, size_of
from training.pixels import Batch, byte_patches, normalised

IGNORE = -100  # label of tokens without loss


@dataclass(frozen=True)
class Tokens:
    """Token ids [t] of an item, pictures' places filled in, the first `prompt` of them before the answer."""

    ids: torch.Tensor
    prompt: int


@dataclass(frozen=True)
class Transform:
    """Items to one batch. `processor` is the model's own (pictures, chat template, tokenizer). `training.model` may
    have set an attribute of it: `max_vision_tokens` bounds the pictures of an item. `switches`: of the template."""

    processor: Any
    switches: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, items: Sequence[Item], packed: bool = False) -> Batch:
        """What `as_bytes` gives, normalised: as a model on this device takes it. Raises ValueError."""
        return normalised(self.as_bytes(items, packed))

    def as_bytes(self, items: Sequence[Item], packed: bool = False) -> Batch:
        """A padded row for each item: input_ids, attention_mask, mm_token_type_ids, prompt_mask,
        labels [b, t]; progress [b]; pictures as `pixels.byte_patches` cuts them. Or all items
        packed into one row, see `packed`.

        prompt_mask is 1 on vision and question tokens, all that stands before the answer; labels
        are IGNORE there; progress is NaN where an item has none. Raises ValueError when marks and
        pictures do not match.
        """
        images = list(chain.from_iterable(map(self.pictures, items)))
        pixels = byte_patches(self.processor.image_processor, images) if images else {}
        grids = pixels["image_grid_thw"].tolist() if images else []
        sequences = self._sequences(items, grids)
        batch = self.packed(sequences, pixels) if packed else self.padded(sequences)
        return batch | pixels | {"progress": _labels(items)}

    def seen(self, items: Sequence[Item], grids: Sequence[Sequence[int]]) -> Batch:
        """Like `__call__`, padded, for pictures whose vision features are cached.

        Pass their patch grids (t, h, w), flattened over items; the batch has no `pixel_values`.
        """
        grid_tensor = {"image_grid_thw": torch.tensor(grids)} if grids else {}
        sequences = self._sequences(items, grids)
        return self.padded(sequences) | grid_tensor | {"progress": _labels(items)}

    def _sequences(self, items: Sequence[Item], grids: Sequence[Sequence[int]]) -> list[Tokens]:
        """Prompts and answers, for pictures of these patch grids."""
        # The vision tower merges squares of patches into one token each: a picture takes as many image tokens.
        merged = self.processor.image_processor.merge_size**2
        counts = iter(int(np.prod(g)) // merged for g in grids)
        first, last = self._around
        sequences = []
        for item in items:
            ids: list[int] = []
            for token in self._token_ids(self.prompt(item.question, item.system)):
                is_picture = token == self.image_token
                ids += [*first, *[token] * next(counts), *last] if is_picture else [token]
            sequences.append(Tokens(torch.tensor(ids + self.answer(item.answer)), len(ids)))
        return sequences

    def prompt(self, question: str, system: str = "") -> str:
        """The chat text up to where the answer begins, with one image token per picture."""
        return self.processor.apply_chat_template(
            chat(question, system), tokenize=False, add_generation_prompt=True, **self.switches
        )

    def answer(self, answer: str | None) -> list[int]:
        """Token ids of an answer and the end of the turn; none where there is none."""
        text = "" if answer is None else as_text(answer) + self.processor.tokenizer.eos_token
        return self._token_ids(text)

    def _token_ids(self, text: str) -> list[int]:
        return list(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def length(self, question: str, answer: str | None, sizes: Sequence[Size]) -> int:
        """Tokens that an item takes, without its pictures: these have so many pixels. Raises ValueError."""
        text = self._token_ids(self.prompt(question))
        vision = sum(self._vision_tokens(self._fitting(question, sizes)))
        return len(text) - len(sizes) + vision + len(self.answer(answer))

    @property
    def image_token(self) -> int:
        return self.processor.tokenizer.convert_tokens_to_ids(self.processor.image_token)

    @property
    def _around(self) -> list[list[int]]:
        """Tokens before and behind a picture, of processors that write them themselves."""
        names = ("start_image_token_id", "end_image_token_id")
        return [[getattr(self.processor, n)] if hasattr(self.processor, n) else [] for n in names]

    def _vision_tokens(self, sizes: Sequence[Size]) -> list[int]:
        """Of each picture, with what stands around it."""
        if not sizes:
            return []
        # Several pictures are shown, none of which is cut into tiles
        options = {"crop_to_patches": False} if any(self._around) else {}
        tokens = self.processor._get_num_multimodal_tokens(image_sizes=sizes, **options)
        return tokens["num_image_tokens"]

    def pictures(self, item: Item) -> tuple[np.ndarray, ...]:
        """An item's pictures, all shrunk by one factor where together they would take too many tokens."""
        sizes = self._fitting(item.question, [size_of(p) for p in item.pictures])
        return tuple(shrunk_to(p, size) for p, size in zip(item.pictures, sizes, strict=True))

    def _fitting(self, question: str, sizes: Sequence[Size]) -> Sequence[Size]:
        """The sizes that a question's pictures are shown in. Raises ValueError."""
        marks = question.count(IMAGE_MARK)
        if marks != len(sizes):
            raise ValueError(f"{marks} image marks for {len(sizes)} pictures")
        # Without a bound, as with a processor of transformers' own, pictures stay as they are.
        max_tokens: int | None = getattr(self.processor, "max_vision_tokens", None)
        while (
            max_tokens is not None and (num_tokens := sum(self._vision_tokens(sizes))) > max_tokens
        ):
            # Tokens go with the area, so a side shrinks by the root; by 3 % at least, since patches are whole.
            factor = min(0.97, (max_tokens / num_tokens) ** 0.5)
            smaller = [shrunk(size, max(1, int(max(size) * factor))) for size in sizes]
            # All are down to one pixel: no factor can help.
            if all(max(size) <= 1 for size in smaller):
                raise ValueError(
                    f"{len(sizes)} pictures take {num_tokens} tokens at least, more than {max_tokens}"
                )
            sizes = smaller
        return sizes

    def padded(self, sequences: Sequence[Tokens]) -> Batch:
        shape = (len(sequences), max(len(s.ids) for s in sequences))
        batch: Batch = {
            "input_ids": torch.full(shape, self.processor.tokenizer.pad_token_id),
            "attention_mask": torch.zeros(shape, dtype=torch.long),
            "prompt_mask": torch.zeros(shape, dtype=torch.long),
            "labels": torch.full(shape, IGNORE),
        }
        for row, s in enumerate(sequences):
            # A row is prompt, answer, padding; the answer's tokens alone have a loss.
            n = len(s.ids)
            batch["input_ids"][row, :n] = s.ids
            batch["attention_mask"][row, :n] = 1
            batch["prompt_mask"][row, : s.prompt] = 1
            batch["labels"][row, s.prompt : n] = s.ids[s.prompt :]
        batch["mm_token_type_ids"] = (batch["input_ids"] == self.image_token).long()
        return batch

    def packed(self, sequences: Sequence[Tokens], pixels: Batch) -> Batch:
        """One row of all items, none of which sees another, without padding: input_ids,
        mm_token_type_ids, labels [1, t]; position_ids [4, 1, t] (places in the item, then Qwen's
        time, height and width); item_index, item_mask, prompt_mask [n, l]: where each item's tokens
        are in the row, which of these are its own, and its prompt's.

        There is no attention_mask: see training.attention.
        """
        shape = (len(sequences), max(len(s.ids) for s in sequences))
        batch: Batch = {
            "input_ids": torch.cat([s.ids for s in sequences]).unsqueeze(0),
            "item_index": torch.zeros(shape, dtype=torch.long),
            "item_mask": torch.zeros(shape, dtype=torch.long),
            "prompt_mask": torch.zeros(shape, dtype=torch.long),
        }
        batch["labels"] = batch["input_ids"].clone()
        # One iterator for all items: pictures come in the order in which `mrope` meets their tokens.
        grids = iter(pixels["image_grid_thw"].tolist() if pixels else ())
        merge = self.processor.image_processor.merge_size
        start = 0
        places = []
        for item, s in enumerate(sequences):
            n = len(s.ids)
            batch["labels"][0, start : start + s.prompt] = IGNORE
            # Places begin anew with each item.
            in_item = torch.arange(n)
            places.append(
                torch.cat([in_item.unsqueeze(0), mrope(s.ids, self.image_token, grids, merge)])
            )
            # The head takes an item's states out of the row by these numbers.
            batch["item_index"][item, :n] = start + in_item
            batch["item_mask"][item, :n] = 1
            batch["prompt_mask"][item, : s.prompt] = 1
            start += n
        batch["position_ids"] = torch.cat(places, -1).unsqueeze(1)
        batch["mm_token_type_ids"] = (batch["input_ids"] == self.image_token).long()
        return batch


def _labels(items: Sequence[Item]) -> torch.Tensor:
    """Progress of each item [b], NaN where it has none."""
    values = [float("nan") if i.progress is None else i.progress for i in items]
    return torch.tensor(values, dtype=torch.float32)


def pack(chosen: Iterable[int], lengths: Sequence[int], size: int) -> list[list[int]]:
    """Rows of items of at most `size` tokens together, the longest first into the first row that has room."""
    rows: list[list[int]] = []
    room: list[int] = []
    # First-fit decreasing: short items, which come last, fill the room that long ones left.
    for k in sorted(chosen, key=lambda k: -lengths[k]):
        row = next((r for r, room_left in enumerate(room) if lengths[k] <= room_left), None)
        if row is None:
            rows.append([])
            room.append(size)
            row = len(rows) - 1
        rows[row].append(k)
        room[row] -= lengths[k]
    return rows


def mrope(
    ids: torch.Tensor, image_token: int, grids: Iterator[list[int]], merge: int
) -> torch.Tensor:
    """Qwen's positions [3, t] (time, height, width) of one sequence; `grids` gives (t, h, w) in
    patches per picture.

    Text counts on in all three; a picture lies at one time, its merged patches at their row and
    column, and text goes on after its longer side. As `get_rope_index` of the models, for pictures.
    """
    picture = (ids == image_token).tolist()
    places = torch.zeros(3, len(ids), dtype=torch.long)
    index = 0
    start = 0
    while index < len(ids):
        # Text as far as the next picture: each token is one further on, in all three coordinates.
        if not picture[index]:
            n = next((k for k in range(index, len(ids)) if picture[k]), len(ids)) - index
            places[:, index : index + n] = start + torch.arange(n)
            start += n
        else:
            # The grid counts patches, tokens are squares of merged ones.
            _, h, w = next(grids)
            h = h // merge
            w = w // merge
            n = h * w
            places[0, index : index + n] = start
            places[1, index : index + n] = start + torch.arange(h).repeat_interleave(w)
            places[2, index : index + n] = start + torch.arange(w).repeat(h)
            start += max(h, w)
        index += n
    return places
