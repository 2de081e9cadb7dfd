"""MobileNetV2's feature blocks: torchvision's own, layer by layer, without the import of torchvision, which costs more
than to load and to compile this network."""

from typing import Any

import torch
from torch import nn

# Of the blocks in between: how many times as wide inside, their channels, how many, and the first one's stride
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
FIRST, LAST = 32, 1280  # channels


def features(weights: dict[str, Any]) -> nn.Sequential:
    """The nineteen blocks, with the weights of torchvision's published file; its classifier's are left out.

    Raises RuntimeError for weights of another network.
    """
    # What would be drawn for new layers is not drawn at all
    with torch.device("meta"):
        blocks: list[nn.Module] = [_convolved(3, FIRST, 3, stride=2)]
        channels = FIRST
        for wider, out, count, stride in BLOCKS:
            for k in range(count):
                blocks.append(_Block(channels, out, stride if k == 0 else 1, wider))
                channels = out
        net = nn.Sequential(*blocks, _convolved(channels, LAST, 1))
    own = {name.removeprefix("features."): w for name, w in weights.items() if name.startswith("features.")}
    net.load_state_dict(own, assign=True)
    return net


class _Block(nn.Module):
    """Widened, looked over channel by channel, narrowed; added to what came in where both have one shape."""

    def __init__(self, channels: int, out: int, stride: int, wider: int) -> None:
        super().__init__()
        inside = channels * wider
        widened = [_convolved(channels, inside, 1)] if wider != 1 else []
        over = _convolved(inside, inside, 3, stride=stride, groups=inside)
        self.conv = nn.Sequential(*widened, over, nn.Conv2d(inside, out, 1, bias=False), nn.BatchNorm2d(out))
        self.is_added = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.is_added else self.conv(x)


def _convolved(channels: int, out: int, side: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, out, side, stride, (side - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU6(inplace=True))
