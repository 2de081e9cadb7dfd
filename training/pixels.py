"""Pictures on their way to the model: resized and cut into patches as bytes, normalised where the model is.

A processor of transformers resizes in bytes, too, and then makes each patch twice as many floats as it has values. Here
the bytes travel, an eighth of the size, and `on_device` makes of them, bit for bit, what the processor would have.
"""

from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import torch
from PIL import Image

from training.pictures import Size

Batch = dict[str, torch.Tensor]
TURNED = (5, 6, 7, 8)  # EXIF orientations of pictures that lie on their side
ORIENTATION = 0x0112  # EXIF's tag of it


def picture_size(file: IO[bytes]) -> Size:
    """Height and width of an encoded picture as it is decoded, by its header alone. Raises ValueError."""
    try:
        with Image.open(file, formats=("JPEG", "PNG", "WEBP", "BMP", "TIFF")) as picture:
            width, height = picture.size
            turned = picture.getexif().get(ORIENTATION) in TURNED
    except (OSError, SyntaxError, Image.DecompressionBombError) as e:
        raise ValueError(f"it is no picture ({' '.join(str(e).split())[:100]})") from e
    if turned:
        return (width, height)
    return (height, width)


def byte_patches(processor: Any, pictures: Sequence[np.ndarray]) -> Batch:
    """Pictures (uint8 RGB [h, w, 3] each) as the image processor would cut them, not yet
    normalised.

    patches: uint8 [n, 3 p p], for each patch its colours, rows, columns; image_grid_thw [k, 3];
    patch_norm: float32 [t, 2, 3], mean and deviation of each colour, once for each of the t moments
    that a patch stands for.
    """
    from transformers.image_utils import SizeDict

    # A processor that was loaded with other limits has them as plain JSON.
    size = SizeDict(**{edge: px for edge, px in dict(processor.size).items() if px is not None})
    square = processor.patch_size * processor.merge_size
    options = {"factor": square} if size.shortest_edge else {}
    parts = []
    grids = []
    for picture in pictures:
        # Seen as colours first without being laid out so: resizing is twice as quick on pixels that lie together.
        resized = processor.resize(
            torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1),
            size=size,
            resample=processor.resample,
            **options,
        )
        parts.append(_cut(resized.contiguous(), processor.patch_size, processor.merge_size))
        grids.append(
            [1, resized.shape[1] // processor.patch_size, resized.shape[2] // processor.patch_size]
        )
    # The processor scales to 0..1 and normalises at once, by mean and deviation in bytes.
    in_bytes = 1.0 / processor.rescale_factor
    norm = torch.stack(
        [
            torch.tensor(processor.image_mean) * in_bytes,
            torch.tensor(processor.image_std) * in_bytes,
        ]
    )
    return {
        "patches": torch.cat(parts),
        "image_grid_thw": torch.tensor(grids),
        "patch_norm": norm.expand(processor.temporal_patch_size, 2, 3).contiguous(),
    }


def _cut(picture: torch.Tensor, patch: int, merge: int) -> torch.Tensor:
    """A picture [3, h, w] in patches [n, 3 p p], those that are merged into one token beside each other."""
    rows = picture.shape[1] // patch
    columns = picture.shape[2] // patch
    squares = picture.reshape(3, rows // merge, merge, patch, columns // merge, merge, patch)
    return squares.permute(1, 4, 2, 5, 0, 3, 6).reshape(rows * columns, 3 * patch * patch)


def whole_pictures(
    patches: torch.Tensor, grids: Sequence[Sequence[int]], merge: int
) -> torch.Tensor:
    """Pictures [n, 3, h, w] of one grid (1, h, w), put together of their patches [m, 3 p p]."""
    _, rows, columns = grids[0]
    side = round((patches.shape[1] / 3) ** 0.5)
    shape = len(grids), rows // merge, columns // merge, merge, merge, 3, side, side
    squares = patches.view(shape).permute(0, 5, 1, 3, 6, 2, 4, 7)
    return squares.reshape(len(grids), 3, rows * side, columns * side)


def joined(parts: Sequence[Batch]) -> Batch:
    """What `byte_patches` gives of all pictures, from what it gave of some each."""
    patches = torch.cat([part["patches"] for part in parts])
    grids = torch.cat([part["image_grid_thw"] for part in parts])
    return parts[0] | {"patches": patches, "image_grid_thw": grids}


def normalised(batch: Batch) -> Batch:
    """The batch with pixel_values [n, 3 t p p], as the processor makes them, in place of patches; as it is without."""
    if "patches" not in batch:
        return batch
    other_columns = {k: v for k, v in batch.items() if k not in ("patches", "patch_norm")}
    patches = batch["patches"]
    norm = batch["patch_norm"]
    mean = norm[0, 0, :, None]
    deviation = norm[0, 1, :, None]
    values = patches.view(len(patches), 3, -1).float().sub_(mean).div_(deviation)
    # The same picture for each of the moments that a patch stands for.
    values = values.unsqueeze(2).expand(-1, -1, len(norm), -1).reshape(len(patches), -1)
    return other_columns | {"pixel_values": values}


def device() -> str:
    """Where models of this process work: cuda where torch sees a GPU, else cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "cpu"


def on_device(batch: Batch, device: torch.device) -> Batch:
    """A batch as the model takes it, on its device; bytes travel there, floats are made of them there."""
    return normalised(
        {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    )
