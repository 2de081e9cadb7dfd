"""What a user says of an evaluation: options of the command `eval`, and the configuration of Dagster's asset."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.errors import UserError

NAMES = (
    "held-out (test episodes against labels and truth), probes, confusion, robustness, progress-bench, human-bench, "
    "procvqa-id, procvqa-ood, dataset, vpb, robofac, rbm-eval, roboreward"
)

HELD_OUT = "held-out"
CHECKS = ("probes", "confusion", "robustness")  # of held-out runs that are told or shown otherwise


def setting(default: Any, *, text: str, **bounds: Any) -> Any:
    """A field that the command line takes by --set KEY=VALUE."""
    return Field(default, description=text, json_schema_extra={"is_setting": True}, **bounds)


class EvaluationOptions(BaseModel):
    """Which questions are asked of which model, and how it answers. Raises UserError for a shard, price, top_p or
    repetition_penalty that means nothing, and for copies of a model that is not started here."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True
    )

    model: str | None = Field(
        default=None,
        description="A training run, a checkpoint's folder, or a name at --endpoint; default: latest.",
    )
    benchmark: str = Field(default=HELD_OUT, description=f"{NAMES}.")
    runner: Literal["transformers", "vllm", "api"] = Field(
        default="transformers", description="Software that runs the model."
    )
    endpoint: tuple[str, ...] = Field(
        default=(),
        description="Base address of an OpenAI-compatible server, ends in /v1; repeatable.",
    )
    answer: Literal["auto", "head", "text"] = Field(
        default="auto",
        description="Read the answer from a head or from text; auto: a head that reads only the question, else text.",
    )
    data: str | None = Field(
        default=None,
        description="Folder, file or hf://owner/name (or owner/name@commit) that holds the benchmark.",
    )
    image_root: Path | None = Field(default=None, description="Folder of the benchmark's pictures.")
    part: tuple[str, ...] = Field(
        default=(), description="Only this part of the benchmark; repeatable."
    )
    limit: int | None = Field(
        default=None, ge=1, description="Maximum rows of each part, before num_inferences."
    )
    temperature: float = Field(default=0.0, ge=0.0, description="0: the likeliest tokens.")
    max_tokens: int = Field(default=512, ge=1, description="Maximum tokens of an answer.")
    prompts: Path | None = Field(
        default=None, description="Folder of the checkpoint's own prompts, a file for each family."
    )
    baselines: tuple[str, ...] = Field(
        default=(),
        description="With the same model: direct, gvl, topreward; repeatable. Others always stand.",
        validation_alias="baseline",
    )
    shard: str | None = Field(default=None, description="i/n: this process answers part i, from 0.")
    out: Path | None = Field(
        default=None, description="Prediction file; default: in the workspace."
    )
    # Settings: what nobody has to set
    num_inferences: int = setting(
        1,
        ge=1,
        text="Answers to each question.",
    )
    top_p: float = setting(
        1.0,
        le=1.0,
        text="Sample from the likeliest tokens with this total probability; 1: from all.",
    )
    top_k: int = setting(
        0,
        ge=0,
        text="Sample from so many likeliest tokens; 0: from all.",
    )
    repetition_penalty: float = setting(
        1.0, text="1: none, whatever the checkpoint's generation_config says."
    )
    seed: int = setting(
        0,
        ge=0,
        text="Seed for sampling, if there is a temperature.",
    )
    think: bool | None = setting(
        None,
        text="Ask for reasons before the answer; default: yes.",
    )
    min_pixels: int | None = setting(
        None,
        ge=1,
        text="Area of a picture (Qwen).",
    )
    max_pixels: int | None = setting(
        None,
        ge=1,
        text="Area of a picture (Qwen).",
    )
    batch_size: int = setting(
        16,
        ge=1,
        text="Batch size of --runner transformers.",
    )
    concurrency: int = setting(
        16,
        ge=1,
        text="Requests under way at a server.",
    )
    tensor_parallel: int = setting(
        1,
        ge=1,
        text="GPUs that share one vLLM model.",
    )
    data_parallel: int = setting(
        1,
        ge=1,
        text="Copies of a vLLM model, each on GPUs of its own.",
    )
    expert_parallel: bool = setting(
        False,
        text="Spread a vLLM model's experts.",
    )
    quantization: str | None = setting(
        None,
        text="Quantisation in vLLM, such as fp8.",
    )
    max_model_len: int = setting(
        16384,
        ge=256,
        text="Maximum tokens of a request in vLLM.",
    )
    max_calls: int | None = setting(
        None,
        ge=0,
        text="Maximum number of requests.",
    )
    max_cost_usd: float | None = setting(
        None,
        ge=0,
        text="Maximum cost, computed with price.",
    )
    price: str | None = setting(
        None, text="USD per million prompt and reply tokens, such as 2.5,10."
    )
    api_key_env: str | None = setting(
        None,
        text="Environment variable that holds the key.",
    )
    prompt_format: Literal["interleaved", "images_first"] | None = setting(
        None,
        text="Position of pictures in the prompt; default: by the checkpoint's model_type.",
    )

    def model_post_init(self, context: object) -> None:
        # What is wrong is refused before any work begins
        _ = self.shards, self.prices
        for name in ("top_p", "repetition_penalty"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is {getattr(self, name)}: give a number above 0")
        copies = self.data_parallel
        if copies > 1 and (self.runner != "vllm" or self.endpoint):
            raise UserError(
                f"{copies} copies of the model (data parallel) are for --runner vllm without --endpoint; "
                "with transformers start a process for each GPU, with --shard 0/N and so on"
            )

    @property
    def shards(self) -> tuple[int, int]:
        """Which of how many processes this is."""
        first, _, second = (self.shard or "0/1").partition("/")
        if not (first.isdigit() and second.isdigit() and int(first) < int(second)):
            raise UserError(f"--shard {self.shard}: give i/n with i from 0 to n - 1, such as 0/4")
        return int(first), int(second)

    @property
    def prices(self) -> tuple[float, float]:
        """USD per million tokens, of prompts and of replies."""
        try:
            prompt, reply = map(float, (self.price or "0,0").split(","))
        except ValueError:
            raise UserError(f"price {self.price}: give two numbers, such as 2.5,10") from None
        return prompt, reply
