"""A model divided among processes (FSDP 2): on GPUs, and on a CPU as well, so that it is tested where there is none."""

from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import distribute_tensor

from training.checkpoint import PATIENCE
from training.model import ProgressModel


def fresh_state(divided: bool) -> Any:
    """Accelerate's view of the processes, without what a run before this one in the same process has left there.

    `divided`: the model will be, also on a CPU. Accelerate takes its FSDP plugin for GPUs alone, so it is told that
    these are some; it looks at the device for all else.
    """
    gpu = torch.cuda.is_available()
    AcceleratorState._reset_state()
    state = PartialState(cpu=not gpu, timeout=PATIENCE)
    if state.num_processes > 1:
        state.distributed_type = DistributedType.MULTI_GPU if gpu or divided else DistributedType.MULTI_CPU
    return state


def precision(dtype: str) -> MixedPrecisionPolicy:
    """Parameters are gathered and calculated with in the recipe's train.dtype; gradients are added up in float32."""
    if dtype == "float32":
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(param_dtype=getattr(torch, dtype), reduce_dtype=torch.float32)


def shard(model: ProgressModel, dtype: str, device: torch.device) -> ProgressModel:
    """Leave each process a part of every parameter. In place. The weights are those of the first process: the others
    may hold any.

    Each layer of the towers is gathered by itself when it is due. The head is a unit of its own, in float32.
    """
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    whole = {name: p.detach() for name, p in model.named_parameters()}
    if model.head is not None:
        fully_shard(model.head, mesh=mesh, mp_policy=precision("float32"))
    for layer in layers(model.backbone):
        fully_shard(layer, mesh=mesh, mp_policy=precision(dtype))
    fully_shard(model, mesh=mesh, mp_policy=precision(dtype))
    _give(model, whole, mesh, device)
    # Where the layers are gathered, all processes have to come by.
    model.always_sees = True
    return model


@torch.no_grad()
def _give(model: nn.Module, whole: dict[str, torch.Tensor], mesh: Any, device: torch.device) -> None:
    """Each process gets its part of the first one's weights, and all of its buffers."""
    for name, part in model.named_parameters():
        own: Any = part
        part.copy_(distribute_tensor(whole.pop(name).to(device), mesh, own.placements, src_data_rank=0))
    for buffer in model.buffers():
        given = buffer.to(device)
        torch.distributed.broadcast(given, 0)
        buffer.copy_(given)


def layers(backbone: nn.Module) -> list[nn.Module]:
    """The layers of the language model and of the vision tower."""
    names: Any = backbone._no_split_modules
    return [m for m in backbone.modules() if type(m).__name__ in names]
