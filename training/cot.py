"""Reasoning for supervised training: a strong model is asked to place states, and what it gets right is kept.

The model is asked the very question that ours will be asked, and is told nothing of the label: what it writes is
reasoning, not an excuse for an answer that it was given. A reply is kept when it keeps to the format, names the right
reference (or rightly none) and a score near the label's. Replies are stored as they come, so a run that was killed asks
nothing twice; what is left out is counted by its reason.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from annotate.config import VlmConfig
from annotate.model_client.calls import Image, Request, VlmError
from annotate.model_client.client import Client
from annotate.model_client.responses import ResponseStore
from annotate.samples.wording import NA, answer_text, parse_reply, score_text
from core.errors import FailedError
from core.files import write_file
from core.tables import TABLES
from core.values import IMAGE_MARK, short_hash
from training.pictures import as_text
from training.progresslm import Truth, mended
from training.progresslm_data import DrawnSamples, Rows, truth_of, write_conversations
from warehouse.lake import Lake
from warehouse.shards.shard import Sample

PROMPT = Path(__file__).parent / "prompts" / "cot.txt"
VERSION = "cot-1"  # of what is asked around the prompt, and of the schema
REF_CHARS, SCORE_CHARS = 1200, 800  # of the reasoning about each
MAX_TOKENS = 1200  # all fields at three characters a token, and what JSON adds
SAMPLES_AT_ONCE = 64  # whose pictures are held in memory
RUN = "cot"  # label run of the calls

NO_REPLY, FORMAT, REFUSED, ANSWERED, REFERENCE, SCORE, SURPLUS = (
    "no_reply", "format", "refused", "answered", "reference", "score", "surplus",
)  # fmt: skip


@dataclass(frozen=True)
class CotOptions:
    """`inferences` of each of the first `limit` samples; `tolerance` of the score, as a share of the whole task."""

    inferences: int = 1
    limit: int | None = None
    temperature: float = 0.6
    tolerance: float = 0.05


@dataclass(frozen=True)
class CotReport:
    """left_out counts inferences by reason: no_reply, format, refused (an answerable state), answered (an unanswerable
    one), reference and score (wrong), surplus (right, but another inference of the sample was nearer)."""

    samples: int
    inferences: int
    kept: int
    left_out: dict[str, int]
    calls: int  # really sent, each try being one
    answered_before: int
    cost_usd: float
    file: Path


@dataclass(frozen=True)
class _Answer:
    """One inference; `reason`: why it is not learnt from, None where it may be."""

    sample: int
    inference: int
    reason: str | None = NO_REPLY
    error: float = 1.0
    text: str = ""
    key: str = ""


@cache
def prompt_version() -> str:
    return short_hash(f"{VERSION}\0{PROMPT.read_text()}")


def request_of(sample: Sample, truth: Truth, inference: int, temperature: float) -> Request:
    """The question with its pictures in place. Of `truth` the number of items alone is used."""
    texts = sample.row["question"].split(IMAGE_MARK)
    pictures = [Image.of(p) for p in sample.pictures]
    content: list[str | Image] = []
    # A mark stands between two texts, so a picture goes before each text but the first.
    for k, text in enumerate(texts):
        content += [pictures[k - 1]] if k else []
        content += [as_text(text)] if text.strip() else []
    return Request(
        stage="cot",
        system=PROMPT.read_text().strip(),
        content=tuple(content),
        schema=schema(truth.demo_count),
        max_tokens=MAX_TOKENS,
        temperature=temperature,
        seed=inference,
    )


def schema(items: int) -> dict[str, Any]:
    """The four tags as fields, in the order in which they are thought of."""
    none = {"const": NA}
    fields = {
        "ref_think": {"type": "string", "minLength": 1, "maxLength": REF_CHARS},
        "ref": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": items}, none]},
        "score_think": {"type": "string", "minLength": 1, "maxLength": SCORE_CHARS},
        "score": {"anyOf": [{"type": "number", "minimum": 0, "maximum": 100}, none]},
    }
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def answer_of(value: dict[str, Any]) -> str:
    """A reply in the format that our model is to learn."""
    score = value["score"]
    return answer_text(
        "think",
        ref_think=value["ref_think"].strip(),
        ref=value["ref"],
        score_think=value["score_think"].strip(),
        score=NA if score == NA else score_text(score / 100),
    )


def judge(text: str, truth: Truth, tolerance: float) -> tuple[str | None, float]:
    """Why an answer is not learnt from (None: it is), and how far its score is off, 0..1."""
    # A mark in the answer would stand for a picture that there is not: `read_rows` refuses such a row.
    if mended(text, truth).format != 1 or IMAGE_MARK in text:
        return FORMAT, 1.0
    reply = parse_reply(text)
    # No score is right for an unanswerable state: saying so is all that is asked.
    if truth.score_percent is None:
        if reply.score_is_na:
            return (None, 0.0)
        return (ANSWERED, 1.0)
    if reply.score is None:
        return REFUSED, 1.0
    error = abs(reply.score - truth.score_percent / 100)
    if reply.ref != truth.ref:
        return REFERENCE, error
    return (None if error <= tolerance + 1e-9 else SCORE), error


def generate(
    lake: Lake,
    samples: Rows | DrawnSamples,
    config: VlmConfig,
    options: CotOptions,
    out: Path,
    on_progress: Callable[[int, int], None] = lambda done, wanted: None,
) -> CotReport:
    """Ask, filter and write `out`/cot.jsonl (conversations, as ProgressLM's SFT files), its
    pictures and report.json.

    Calls are recorded in the lake also when it raises FailedError: no server, a used-up budget,
    another model.
    """
    chosen = range(len(samples))[: options.limit]
    if not chosen:
        raise FailedError(
            "there is no sample to reason about: draw from a release that has ProgressLM's samples"
        )
    store = ResponseStore(lake.workspace.responses)
    # The build's id tells the calls of this run from those that the ledger holds of others.
    build = uuid4().hex[:16]
    # One client a dataset, since calls are recorded by dataset.
    clients = {
        name: Client(
            config,
            store,
            build_id=build,
            dataset=name,
            label_run=RUN,
            prompt_version=prompt_version(),
        )
        for name in sorted(set(map(samples.dataset, chosen)))
    }
    answers: list[_Answer] = []

    def answered(answer: _Answer) -> None:
        answers.append(answer)
        on_progress(len(answers), len(chosen) * options.inferences)

    try:
        for name, client in clients.items():
            asyncio.run(
                _ask(
                    client,
                    samples,
                    [k for k in chosen if samples.dataset(k) == name],
                    options,
                    answered,
                )
            )
    except VlmError as e:
        raise FailedError(f"{e}; run it again to go on") from e
    finally:
        # Calls cost money whether or not the run came to its end: they are recorded either way.
        calls = store.calls(build)
        store.close()
        if calls:
            lake.upsert("calls for reasoning", vlm_calls=TABLES["vlm_calls"].rows(calls))
    # One reply of each sample, the nearest to its label: what is easy must not be learnt more often.
    right = sorted(
        (a for a in answers if a.reason is None), key=lambda a: (a.sample, -a.error, -a.inference)
    )
    first_answers = {a.sample: a for a in right}.values()

    def row(answer: _Answer) -> tuple[Sample, str, dict[str, Any]]:
        sample = samples[answer.sample]
        source = {
            "sample_id": sample.row["sample_id"],
            "model": config.model,
            "call_key": answer.key,
            "prompt_version": prompt_version(),
        }
        return sample, answer.text, {"progress": sample.row["progress"], "source": source}

    exclusions = Counter(a.reason for a in answers if a.reason) + Counter(
        {SURPLUS: len(right) - len(first_answers)}
    )
    report = CotReport(
        samples=len(chosen),
        inferences=len(answers),
        kept=len(first_answers),
        left_out=dict(sorted(exclusions.items())),
        calls=len(calls),
        answered_before=sum(client.hits for client in clients.values()),
        cost_usd=float(sum(c["cost_usd"] or 0.0 for c in calls)),
        file=write_conversations(map(row, first_answers), out, "cot.jsonl"),
    )
    # The report names model and prompt beside the counts: the rows were made by these.
    settings = {
        "model": config.model,
        "prompt_version": prompt_version(),
        "options": asdict(options),
    }
    text = json.dumps(settings | asdict(report) | {"file": report.file.name}, indent=1)
    write_file(out / "report.json", f"{text}\n".encode())
    return report


async def _ask(
    client: Client,
    samples: Rows | DrawnSamples,
    chosen: Sequence[int],
    options: CotOptions,
    answered: Callable[[_Answer], None],
) -> None:
    """Ask for each inference of the samples of a dataset. Raises VlmError."""
    room = asyncio.Semaphore(SAMPLES_AT_ONCE)

    async def one(k: int) -> None:
        async with room:
            sample = await asyncio.to_thread(samples.__getitem__, k)
            truth = truth_of(sample)
            for inference in range(options.inferences):
                request = request_of(sample, truth, inference, options.temperature)
                try:
                    reply = await client.ask(request, sample.row.get("episode_index", k))
                except VlmError as e:
                    # Fatal: nothing else would be answered either, as when the budget is used up.
                    if e.is_fatal:
                        raise
                    answered(_Answer(k, inference))
                else:
                    text = answer_of(reply.value)
                    answered(
                        _Answer(
                            k, inference, *judge(text, truth, options.tolerance), text, reply.key
                        )
                    )

    await client.side_by_side(map(one, chosen))
