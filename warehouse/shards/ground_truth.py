"""Right answers to ProgressLM's samples, for reward functions, ours and those of other trainers."""

import re

from warehouse.shards.shard import Sample, ShardError

NONE = "n/a"
ITEM = re.compile(r"^(\d+)\. ", re.MULTILINE)  # of the demonstration, in words or in pictures
SCORE = re.compile(r"<score>(.*?)</score>", re.DOTALL)


def ground_truth(sample: Sample) -> dict[str, str | int]:
    """What an answer is compared with: the item of the demonstration, the score in percent, and how many items it has.

    Raises ShardError where question, answer and columns of a sample contradict each other.
    """
    row = sample.row
    score = _score(row["answer"], row["form"])
    items = [int(number) for number in ITEM.findall(row["question"])]
    reference = NONE if row["reference"] is None else str(row["reference"])

    # Question, answer and columns are written by one template: where they disagree, the sample cannot be judged
    is_counted = items == list(range(1, len(items) + 1))
    both_or_none = (score == NONE) == (reference == NONE)
    is_item = reference == NONE or 1 <= int(reference) <= len(items)
    # A demonstration in pictures has one for each item; the last picture is the state to judge
    num_pictures = len(sample.pictures)
    is_shown = num_pictures <= 1 or len(items) == num_pictures - 1
    if not (is_counted and both_or_none and is_item and is_shown):
        raise ShardError(f"sample {row['sample_id']}: its question, answer and reference do not go together")

    return {
        "ref": reference,
        "score_percent": score.removesuffix("%"),
        "score_fraction": NONE if score == NONE else f"{float(score.removesuffix('%')) / 100:.4f}",
        "score_text": score,
        "demo_count": len(items),
        "target_response": row["answer"],
    }


def _score(answer: str, form: str) -> str:
    """The score that an answer gives: in think form what stands between the tags, else the whole answer."""
    tagged = SCORE.search(answer) if form == "think" else None
    return (tagged[1] if tagged else answer).strip()
