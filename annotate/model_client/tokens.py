"""Tokens of a request: pictures by the arithmetic of Qwen3-VL's processor, texts by their length."""

import io
import math
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image as Pillow

from annotate.model_client.calls import Image, Request

MARKERS = 2  # tokens around each picture
# Of the chat format: five around each of two messages (start, role, line, end, line), and three that begin the answer
FORMAT_TOKENS = 13
CHARS_PER_TOKEN = 4.0  # of English by the tokenizers of the Qwen family; JSON is a little denser
# Of texts, for what a call may take at the most; the truth is settled later
FEWEST_CHARS_PER_TOKEN = 2.0


@dataclass(frozen=True)
class ImageRule:
    """A picture is scaled to sides that are multiples of `unit_px`, its area kept within limits, and cut into squares.

    The defaults are those that the Qwen3-VL models were published with.
    """

    min_px: int = 256 * 256
    max_px: int = 4096 * 4096
    unit_px: int = 32  # patch_size x merge_size

    def tokens(self, width: int, height: int) -> int:
        """Tokens of one picture with its markers; width and height in pixels.

        Example: a picture of 640 x 480 pixels is 20 x 15 squares: 302 tokens with its two markers.
        """
        across = round(width / self.unit_px)
        down = round(height / self.unit_px)
        area_px = across * down * self.unit_px**2
        limit_px = min(max(area_px, self.min_px), self.max_px)
        if area_px != limit_px:
            # Shrunk or enlarged to the limit, and on to whole squares
            scale = math.sqrt(limit_px / (width * height)) / self.unit_px
            whole = math.floor if area_px > limit_px else math.ceil
            across = max(1, whole(width * scale))
            down = max(1, whole(height * scale))
        return across * down + MARKERS


def image_tokens(image: Image) -> int:
    return ImageRule().tokens(*size_px(image.jpeg))


def prompt_tokens(request: Request, chars_per_token: float = CHARS_PER_TOKEN) -> int:
    """All of a request: texts, pictures and chat format."""
    texts = [request.system, *(part for part in request.content if isinstance(part, str))]
    pictures = sum(image_tokens(image) for image in request.images)
    return FORMAT_TOKENS + pictures + sum(math.ceil(len(t) / chars_per_token) for t in texts)


@lru_cache(maxsize=1024)
def size_px(jpeg: bytes) -> tuple[int, int]:
    """Width and height of a JPEG, by its header."""
    with Pillow.open(io.BytesIO(jpeg)) as picture:
        return picture.size
