"""A row of the table samples: a question about pictures, and its answer."""

import hashlib
import json
from collections.abc import Sequence
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


def sample_row(
    e: LabelledEpisode,
    family: str,
    variant: str,
    pictures: Sequence[SamplePicture],
    question: str,
    answer: str,
    *,
    others: Sequence[LabelledEpisode] = (),
    names_steps: bool = False,
    **columns: Any,
) -> dict[str, Any]:
    """A sample of episode `e` as tables and shards hold it; a column that a family does not have may be left out.

    `others` are further episodes whose pictures it shows. `names_steps`: does it ask for, show or answer with the names
    of steps? Raises ValueError unless the question has one mark for each picture.
    """
    marks = question.count(IMAGE_MARK)
    if marks != len(pictures):
        raise ValueError(f"{family} {variant}: {len(pictures)} pictures for {marks} marks")
    # The id is a hash of all that makes the sample what it is: the same draw gets the same id in every build
    identity = [e.dataset, e.episode_index, e.label_run, family, variant, pictures, question, answer]
    # Pictures of an episode that is not among those given are taken to be as large as the sample's own
    sizes = {(o.episode_index, camera): size for o in (*others, e) for camera, size in o.cameras.items()}
    shown = (sizes.get((p.episode_index, p.camera), e.cameras[e.camera]) for p in pictures)
    picture_tokens = sum(-(-(width * height) // PIXELS_PER_TOKEN) for width, height in shown)
    return {
        "sample_id": hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16],
        "family": family,
        "variant": variant,
        "dataset": e.dataset,
        "episode_index": e.episode_index,
        "chunk": e.chunk,
        "split": e.split,
        "label_run": e.label_run,
        "camera": pictures[-1].camera,
        "frames": [p.frame_index for p in pictures],
        "pictures": [p._asdict() for p in pictures],
        "question": question,
        "answer": answer,
        "names_steps": names_steps,
        "num_tokens": picture_tokens - (-(len(question) + len(answer)) // CHARACTERS_PER_TOKEN),
        **columns,
    }
