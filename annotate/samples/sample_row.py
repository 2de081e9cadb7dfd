"""A row of the table samples: a question about pictures, and its answer."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from annotate.samples.labelled_episode import LabelledEpisode
from core.values import IMAGE_MARK

PIXELS_PER_TOKEN = 32 * 32  # as the Qwen3-VL models cut pictures
CHARACTERS_PER_TOKEN = 4  # of English, roughly


class SamplePicture(NamedTuple):
    """A picture of a sample: a frame, and how it was edited (a name for the edit, with its seed; empty: not)."""

    episode_index: int
    camera: str
    frame_index: int
    edit: str = ""


@dataclass(frozen=True, slots=True)
class SampleRow:
    """The columns of a sample, under their names in the table; None where a family does not have one."""

    sample_id: str
    family: str
    variant: str
    form: str | None
    dataset: str
    episode_index: int
    chunk: int
    split: str
    label_run: str
    camera: str
    frames: tuple[int, ...]
    pictures: tuple[SamplePicture, ...]
    question: str
    answer: str
    progress: float | None
    reference: int | None
    state: str | None
    reason: str | None
    edit_instruction: str | None
    names_steps: bool
    num_tokens: int

    @classmethod
    def of(
        cls,
        e: LabelledEpisode,
        family: str,
        variant: str,
        pictures: Sequence[SamplePicture],
        question: str,
        answer: str,
        *,
        others: Sequence[LabelledEpisode] = (),
        form: str | None = None,
        progress: float | None = None,
        reference: int | None = None,
        state: str | None = None,
        reason: str | None = None,
        edit_instruction: str | None = None,
        names_steps: bool = False,
    ) -> "SampleRow":
        """The row of a sample of episode `e`; `others` are further episodes whose pictures it shows.

        `names_steps`: does it ask for, show or answer with the names of steps?

        Raises ValueError unless the question has one mark for each picture.
        """
        marks = question.count(IMAGE_MARK)
        if marks != len(pictures):
            raise ValueError(f"{family} {variant}: {len(pictures)} pictures for {marks} marks")
        # The id is a hash of all that makes the sample what it is: the same draw gets the same id in every build
        identity = [e.dataset, e.episode_index, e.label_run, family, variant, pictures, question, answer]
        return cls(
            sample_id=hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16],
            family=family,
            variant=variant,
            form=form,
            dataset=e.dataset,
            episode_index=e.episode_index,
            chunk=e.chunk,
            split=e.split,
            label_run=e.label_run,
            camera=pictures[-1].camera,
            frames=tuple(p.frame_index for p in pictures),
            pictures=tuple(pictures),
            question=question,
            answer=answer,
            progress=progress,
            reference=reference,
            state=state,
            reason=reason,
            edit_instruction=edit_instruction,
            names_steps=names_steps,
            num_tokens=_picture_tokens(pictures, (*others, e), e.cameras[e.camera])
            + _text_tokens(len(question) + len(answer)),
        )

    def as_row(self) -> dict[str, Any]:
        """The row as tables and shards hold it."""
        columns = {name: getattr(self, name) for name in self.__slots__}
        columns["frames"] = list(self.frames)
        columns["pictures"] = [p._asdict() for p in self.pictures]
        return columns


def _picture_tokens(
    pictures: Sequence[SamplePicture], episodes: Sequence[LabelledEpisode], usual: tuple[int, int]
) -> int:
    """`usual`: (width, height) of pictures of an episode that is not among those given."""
    cameras: dict[int, Mapping[str, tuple[int, int]]] = {e.episode_index: e.cameras for e in episodes}
    tokens = 0
    for picture in pictures:
        width, height = cameras.get(picture.episode_index, {}).get(picture.camera, usual)
        tokens += -(-(width * height) // PIXELS_PER_TOKEN)
    return tokens


def _text_tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)
