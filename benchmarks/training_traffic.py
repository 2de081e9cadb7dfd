"""What a step of `procvlm_sft` moves through a GPU's memory, layers as they were and as they are compiled now.

    python -m benchmarks.training_traffic [--shape Qwen3-VL-2B] [--card H200] [--check]

No GPU and no weights are needed: layers of the true size are traced, not run, but for a compiled one on a few tokens.
The load is that of `gpu_check`: 32,768 tokens, 90 % of them pictures of 48, which are 117,888 patches.

A call takes the longer of its bytes at 80 % of the card's bandwidth and of its FLOPs at 70 % of its peak. `eager`: each
call reads its inputs and writes what it makes. `compiled`: what lies between two multiplications and touches is one
kernel, which reads what it needs once and writes what others use; sums over tokens are kernels of their own. Bytes of
multiplications and attention are not of the traffic: their time is. What lies outside of layers is counted as eager in
both. Measured on an H200, a step as it was took 1.2 times as long as by this model.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from functorch.compile import (
    aot_module_simplified,
    default_decompositions,
    make_boxed_func,  # pyright: ignore[reportPrivateImportUsage]
    min_cut_rematerialization_partition,
)
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg
from torch.utils.flop_counter import flop_registry

from benchmarks.harness import arguments, exit_code, table
from benchmarks.true_size import SHAPES, make_backbone
from training.attention import set_attention
from training.backbones import make_tokenizer
from training.layers import KEPT, recomputed
from training.plan import BANDWIDTH, PEAK

TOKENS = 32_768
PATCHES = 117_888
ANSWERS = 0.05
OF_BANDWIDTH = 0.8
OF_PEAK = 0.7
FEW = (
    256,
    512,
)  # tokens of a layer that is run: what each token takes, and what the weights take whatever the tokens
GOAL_MB = 40.0
GOAL_TIMES = 2.0
Node = torch.fx.Node


class Work(NamedTuple):
    """Seconds of multiplications and attention, and bytes that all else moves."""

    seconds: float
    bytes: float

    def __add__(self, other_work: Any) -> "Work":
        return Work(self.seconds + other_work.seconds, self.bytes + other_work.bytes)

    def times(self, count: float) -> "Work":
        return Work(self.seconds * count, self.bytes * count)


@dataclass(frozen=True)
class Card:
    bandwidth: float
    peak: float

    def seconds(self, num_bytes: float, flops: float = 0.0) -> float:
        return max(num_bytes / (OF_BANDWIDTH * self.bandwidth), flops / (OF_PEAK * self.peak))


# Graphs


def tensors(value: Any) -> list[torch.Tensor]:
    values = value if isinstance(value, tuple | list) else [value]
    return [v for v in values if isinstance(v, torch.Tensor)]


def size(node: Node) -> float:
    """Bytes of what a node makes; of what is spread over more places, as it lies in memory."""
    return sum(min(v.nbytes, v.untyped_storage().nbytes()) for v in tensors(node.meta.get("val")))


def is_view(node: Node) -> bool:
    if node.target is operator.getitem:
        return False
    return node.op == "call_function" and (
        bool(getattr(node.target, "is_view", False))
        or "_unsafe_view" in str(node.target)
        or "alias" in str(node.target)
    )


def source(node: Node) -> Node:
    """The node whose memory a view looks at."""
    while is_view(node):
        node = node.all_input_nodes[0]
    return node


def is_product(node: Node) -> bool:
    """A multiplication of matrices or attention, or a part of what one makes."""
    if node.target is operator.getitem:
        node = node.all_input_nodes[0]
    return node.op == "call_function" and bool(KEPT.search(str(node.target)))


def calls(graph: torch.fx.Graph) -> Iterator[Node]:
    """What takes time: neither views nor parts of results."""
    for node in graph.nodes:
        is_part = node.target is operator.getitem or is_view(node)
        if node.op == "call_function" and not is_part and tensors(node.meta.get("val")):
            yield node


def of_product(node: Node, card: Card) -> float:
    """Seconds of a multiplication, or of attention within short blocks, which its bytes take."""
    num_bytes = sum(size(n) for n in node.all_input_nodes) + size(node)
    count = flop_registry.get(getattr(node.target, "overloadpacket", None))
    if count is None or "attention" in str(node.target):
        return card.seconds(num_bytes)
    argument_values = map_arg(node.args, lambda n: n.meta["val"])
    return card.seconds(num_bytes, count(*argument_values, out_val=node.meta["val"]))


def eager(graph: torch.fx.Graph, card: Card) -> Work:
    """Each call by itself."""
    seconds = sum(of_product(node, card) for node in calls(graph) if is_product(node))
    other_nodes = [node for node in calls(graph) if not is_product(node)]
    num_bytes = sum(size(node) + sum(map(size, node.all_input_nodes)) for node in other_nodes)
    return Work(seconds, num_bytes)


def fused(graph: torch.fx.Graph) -> float:
    """Bytes that kernels move, of which each is all that hangs together between two multiplications."""
    levels = latest(graph)
    groups = dict[Node, Node]()

    def root(node: Node) -> Node:
        while groups[node] is not node:
            node = groups[node]
        return node

    alone = 0.0
    for node in graph.nodes:
        if not is_simple(node):
            continue
        if is_over_tokens(node):
            alone += size(node) + sum(map(size, read_by_sum(node)))
            continue
        groups[node] = node
        for input_node in map(source, node.all_input_nodes):
            if input_node in groups and levels[input_node] == levels[node]:
                groups[root(input_node)] = root(node)
    members: dict[Node, list[Node]] = {}
    for node in groups:
        members.setdefault(root(node), []).append(node)
    return alone + sum(moved(group) for group in members.values())


def is_simple(node: Node) -> bool:
    """Neither a multiplication nor a view: what compilers fuse."""
    return node.op == "call_function" and not is_view(node) and not is_product(node)


def latest(graph: torch.fx.Graph) -> dict[Node, int]:
    """Before which of the multiplications in a row each node is due at the latest: what is calculated anew from what
    was kept is calculated where it is used."""
    depths = dict[Node, int]()
    for node in graph.nodes:
        depths[node] = max((depths[n] + is_product(n) for n in node.all_input_nodes), default=0)
    due = dict[Node, int]()
    for node in reversed(list(graph.nodes)):
        users = [
            user for user in node.users if user.op == "call_function" and not is_over_tokens(user)
        ]
        is_fixed = is_product(node) or not users
        due[node] = depths[node] if is_fixed else min(due[user] for user in users)
    return due


def is_over_tokens(node: Node) -> bool:
    """Is it a sum over tokens, as gradients of norms and biases are? What is left has no dimension of them."""
    if not str(node.target).startswith("aten.sum"):
        return False
    (input_tensor,) = tensors(node.all_input_nodes[0].meta["val"])
    (output_tensor,) = tensors(node.meta["val"])
    return output_tensor.numel() * FEW[0] // 4 <= input_tensor.numel()


def read_by_sum(node: Node) -> set[Node]:
    """What a sum over tokens reads: what comes of multiplications and sums before it, all between done once more."""
    read = set[Node]()
    ahead = [source(n) for n in node.all_input_nodes]
    while ahead:
        input_node = ahead.pop()
        if is_simple(input_node) and not any(
            word in str(input_node.target) for word in ("sum", "mean", "layer_norm")
        ):
            ahead += [source(n) for n in input_node.all_input_nodes]
        else:
            read.add(input_node)
    return read


def moved(group: Sequence[Node]) -> float:
    """Bytes of a kernel: what comes from elsewhere, once; what is used elsewhere."""
    group_nodes = set(group)
    used_nodes = chain.from_iterable(node.all_input_nodes for node in group)
    input_nodes = set(map(source, used_nodes)) - group_nodes
    return sum(map(size, input_nodes)) + sum(
        size(node) for node in group if is_used(node, group_nodes)
    )


def is_used(node: Node, group_nodes: set[Node]) -> bool:
    """By a node that is not `group_nodes`, itself or a view of it; sums over tokens do it once more."""
    users = [user for user in node.users if not (is_simple(user) and is_over_tokens(user))]
    return any(
        is_used(user, group_nodes) if is_view(user) else user not in group_nodes for user in users
    )


# Layers


def as_on_gpu(module: nn.Module) -> None:
    """Let layer norms calculate in float32, as autocast has it on a GPU."""
    for norm in module.modules():
        if isinstance(norm, nn.LayerNorm):
            norm.forward = lambda x, n=norm: nn.functional.layer_norm(  # type: ignore[method-assign]
                x.float(), n.normalized_shape, n.weight.float(), n.bias.float(), n.eps
            )


class Layer(NamedTuple):
    """A layer with memory that nobody wrote to, and what it is given of `tokens`."""

    module: nn.Module
    width: int
    turned: int
    is_text: bool

    def given(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """States in bfloat16, the two parts of the rotation, and bounds of one block."""
        shape = (1, tokens) if self.is_text else (tokens,)
        turn = torch.zeros(
            *shape, self.turned, dtype=torch.bfloat16 if self.is_text else torch.float32
        )
        states = torch.zeros(*shape, self.width, dtype=torch.bfloat16, requires_grad=True)
        return states, turn, turn.clone(), torch.tensor([0, tokens], dtype=torch.int32)

    def run(
        self, forward: Callable[..., Any], states: Any, cos: Any, sin: Any, bounds: Any
    ) -> torch.Tensor:
        turn = (cos, sin)
        longest = states.shape[-2]
        if not self.is_text:
            return forward(states, cu_seqlens=bounds, max_seqlen=longest, position_embeddings=turn)
        ends = {
            "cu_seq_lens_q": bounds,
            "cu_seq_lens_k": bounds,
            "max_length_q": longest,
            "max_length_k": longest,
        }
        return forward(states, attention_mask=None, position_embeddings=turn, **ends)


def layers_of(backbone: Any) -> dict[str, Layer]:
    text = backbone.config.get_text_config()
    vision = backbone.config.vision_config
    layers = {
        "language layer": (backbone.model.language_model.layers[0], text.hidden_size, text.head_dim, True),
        "vision block": (
            backbone.model.visual.blocks[0], vision.hidden_size, vision.hidden_size // vision.num_heads, False,
        ),
    }  # fmt: skip
    for module, *_ in layers.values():
        module.to_empty(device="cpu").train()
        as_on_gpu(module)
    return {name: Layer(*parts) for name, parts in layers.items()}


def as_it_was(layer: Layer, tokens: int, card: Card, recompute: bool) -> Work:
    """Eager under autocast, weights in float32; forward once more where it is calculated anew."""
    weights = dict(layer.module.named_parameters())

    def forward(weights: dict, *inputs: torch.Tensor) -> torch.Tensor:
        call = lambda *args, **named: torch.func.functional_call(layer.module, weights, args, named)  # noqa: E731
        with torch.autocast("cpu", torch.bfloat16):
            return layer.run(call, *inputs)

    def both(weights: dict, *inputs: torch.Tensor) -> tuple:
        outputs = forward(weights, *inputs)
        return torch.autograd.grad(
            outputs, [inputs[0], *weights.values()], torch.ones_like(outputs)
        )

    inputs = layer.given(tokens)
    work = eager(make_fx(both, tracing_mode="fake")(weights, *inputs).graph, card)
    if recompute:
        work += eager(make_fx(forward, tracing_mode="fake")(weights, *inputs).graph, card)
    return work


def compiled_bytes(layer: Layer, tokens: int, dtype: torch.dtype, recompute: str) -> float:
    """Of the kernels of a layer that is traced by torch.compile as in training."""
    byte_counts: list[float] = []

    def count(graph: torch.fx.GraphModule, _: Any) -> Any:
        byte_counts.append(fused(graph.graph))
        return make_boxed_func(graph.forward)

    def backend(graph: torch.fx.GraphModule, example_inputs: list) -> Any:
        parts: dict[str, Any] = {
            "fw_compiler": count,
            "bw_compiler": count,
            "partition_fn": min_cut_rematerialization_partition,
        }
        parts["decompositions"] = default_decompositions
        return aot_module_simplified(graph, example_inputs, **parts)

    layer.module.to(dtype)
    for parameter in layer.module.parameters():
        nn.init.zeros_(parameter)
    forward: Any = layer.module.forward
    if recompute != "none":
        forward = recomputed(forward, recompute)
    forward = torch.compile(forward, fullgraph=True, dynamic=False, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = layer.run(forward, *layer.given(tokens))
    outputs.float().sum().backward()
    return sum(byte_counts)


def as_it_is(
    layer: Layer, tokens: int, products: float, weights: torch.dtype, recompute: str
) -> Work:
    """Compiled, by what few tokens take, and what the weights take whatever the tokens. `products`: seconds of
    multiplications."""
    few, large_bytes = (compiled_bytes(layer, n, weights, recompute) for n in FEW)
    of_token = (large_bytes - few) / (FEW[1] - FEW[0])
    return Work(products, of_token * tokens + few - of_token * FEW[0])


# What lies outside of layers


def trained(
    forward: Callable[..., torch.Tensor], module: nn.Module, card: Card, *inputs: torch.Tensor
) -> Work:
    """Eager, forward and backward, of a part of the model and of what it is given."""
    weights = dict(module.named_parameters())

    def both(weights: dict, *inputs: torch.Tensor) -> tuple:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = torch.func.functional_call(module, weights, inputs)
        learning = [g for g in inputs if g.requires_grad] + list(weights.values())
        return torch.autograd.grad(outputs, learning, torch.ones_like(outputs), allow_unused=True)

    module.forward = forward  # type: ignore[method-assign]
    return eager(make_fx(both, tracing_mode="fake")(weights, *inputs).graph, card)


def outside(backbone: Any, card: Card) -> Work:
    """Patches and their positions, mergers, pictures in their places and deepstack, the head's softmax, answers."""
    tower = backbone.model.visual
    language = backbone.model.language_model
    width = tower.config.hidden_size
    of_text = language.config.hidden_size
    images = PATCHES // 4
    half = {"dtype": torch.bfloat16, "requires_grad": True}
    for module in (
        tower.patch_embed,
        tower.pos_embed,
        tower.merger,
        *tower.deepstack_merger_list,
        language.norm,
    ):
        module.to_empty(device="cpu")
        as_on_gpu(module)
    work = trained(tower.patch_embed.forward, tower.patch_embed, card, torch.empty(PATCHES, 1536))
    places, shares = torch.zeros(PATCHES, 4, dtype=torch.int64), torch.empty(PATCHES, 4)
    look_up = tower.pos_embed.forward

    def mixed(places: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        return (look_up(places) * shares[:, :, None]).sum(1).to(torch.bfloat16)

    work += trained(mixed, tower.pos_embed, card, places, shares)
    for merger in (tower.merger, *tower.deepstack_merger_list):
        work += trained(merger.forward, merger, card, torch.empty(PATCHES, width, **half))
    states = torch.empty(TOKENS, of_text, **half)
    features = torch.empty(images, of_text, **half)
    positions = torch.arange(images)
    plain = nn.Module()
    added = lambda states, features, positions: states.index_add(0, positions, features)  # noqa: E731
    # Pictures are put in their places once, and added by deepstack
    for _ in (0, *tower.deepstack_merger_list):
        work += trained(added, plain, card, states, features, positions)
    work += trained(language.norm.forward, language.norm, card, states)
    scores = torch.empty(TOKENS, 1, requires_grad=True)
    pooled = lambda states, scores: (scores.exp() * states.float()).sum(0)  # noqa: E731
    work += trained(pooled, plain, card, states, scores)
    return work + answers(backbone, card)


def answers(backbone: Any, card: Card) -> Work:
    """Logits of the answers' tokens and their loss."""
    count = int(ANSWERS * TOKENS)
    text = backbone.config.get_text_config()
    layer = nn.Linear(text.hidden_size, text.vocab_size, bias=False, device="meta").to_empty(
        device="cpu"
    )
    logits = layer.forward
    targets = torch.zeros(count, dtype=torch.int64)
    states = torch.empty(count, text.hidden_size, dtype=torch.bfloat16, requires_grad=True)
    loss = lambda states, targets: nn.functional.cross_entropy(logits(states).float(), targets)  # noqa: E731
    return trained(loss, layer, card, states, targets)


def of_weights(count: int, copied: bool) -> float:
    """Bytes of a micro-batch for what is done with all weights: gradients added up in float32, and where layers get
    copies in bfloat16, these made twice, and gradients brought to float32."""
    return count * (12.0 + copied * (2 * (4 + 2 + 2 + 2) + 6))


# The table


def settings(shape: str, card: Card) -> dict[str, Work]:
    """A micro-batch, by how layers are calculated."""
    backbone = make_backbone(SHAPES[shape], make_tokenizer(["a"], 800), "meta")
    count = sum(p.numel() for p in backbone.parameters())
    text = backbone.config.get_text_config()
    vision = backbone.config.vision_config
    set_attention(backbone, "varlen")
    layers = layers_of(backbone)
    work_by_setting = dict[str, Work]()
    times = {
        "language layer": (text.num_hidden_layers, TOKENS),
        "vision block": (vision.depth, PATCHES),
    }
    outside_work = outside(backbone, card)
    products = dict[tuple[str, bool], float]()
    for name, recalculates in (
        ("as it was: eager, all calculated anew", True),
        ("eager, nothing calculated anew", False),
    ):
        work_by_setting[name] = outside_work + Work(0.0, of_weights(count, copied=False))
        for part, layer in layers.items():
            work = as_it_was(layer, times[part][1], card, recalculates)
            work_by_setting[name] += work.times(times[part][0])
            products[part, recalculates] = work.seconds
    set_attention(backbone, "sdpa")  # runs here, and is traced around as varlen is
    for name, dtype, recompute_kind in (
        ("compiled", torch.float32, "none"),
        ("compiled, products kept", torch.float32, "matmul"),
        ("compiled, weights in bfloat16", torch.bfloat16, "none"),
    ):
        work_by_setting[name] = outside_work + Work(
            0.0, of_weights(count, copied=dtype != torch.float32)
        )
        for part, layer in layers.items():
            work = as_it_is(layer, times[part][1], products[part, False], dtype, recompute_kind)
            work_by_setting[name] += work.times(times[part][0])
    return work_by_setting


def main() -> int:
    parser = arguments(__doc__, check=True)
    parser.add_argument(
        "--shape", choices=["Qwen3-VL-2B", "Qwen3-VL-4B", "Qwen3-VL-8B"], default="Qwen3-VL-2B"
    )
    parser.add_argument("--card", choices=sorted(BANDWIDTH), default="H200")
    args = parser.parse_args()
    card = Card(BANDWIDTH[args.card], PEAK[args.card])
    work_by_setting = settings(args.shape, card)
    rows = []
    missed = []
    seconds = {
        name: work.seconds + card.seconds(work.bytes) for name, work in work_by_setting.items()
    }
    base_seconds = next(iter(seconds.values()))
    for name, work in work_by_setting.items():
        tokens_s = TOKENS / seconds[name]
        times = base_seconds / seconds[name]
        traffic = f"{work.bytes / TOKENS / 1e6:.1f}"
        rows.append(
            [
                name,
                traffic,
                f"{work.seconds:.2f}",
                f"{seconds[name]:.2f}",
                f"{tokens_s:,.0f}",
                f"{times:.2f}",
            ]
        )
    table(["layers", "MB a token", "s of products", "s in all", "tokens/s", "times"], rows)
    best = min(seconds, key=seconds.__getitem__)
    if work_by_setting[best].bytes / TOKENS / 1e6 > GOAL_MB:
        missed.append(
            f"{work_by_setting[best].bytes / TOKENS / 1e6:.1f} MB a token, goal {GOAL_MB:.0f}"
        )
    if base_seconds / seconds[best] < GOAL_TIMES:
        missed.append(
            f"{base_seconds / seconds[best]:.2f} times the tokens a second, goal {GOAL_TIMES}"
        )
    return exit_code(missed, args.check)


if __name__ == "__main__":
    raise SystemExit(main())
