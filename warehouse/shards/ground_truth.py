"""What answers to ProgressLM's samples are compared with: by reward functions, ours and those of other trainers."""

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
    found = SCORE.search(row["answer"]) if row["form"] == "think" else None
    score = (found[1] if found else row["answer"]).strip()
    items = [int(n) for n in ITEM.findall(row["question"])]
    reference = NONE if row["reference"] is None else str(row["reference"])
    in_pictures = len(sample.pictures) > 1  # the demonstration; the last picture is the state to judge
    if (
        items != list(range(1, len(items) + 1))
        or (score == NONE) != (reference == NONE)
        or (reference != NONE and not 1 <= int(reference) <= len(items))
        or (in_pictures and len(items) != len(sample.pictures) - 1)
    ):
        raise ShardError(f"sample {row['sample_id']}: its question, answer and reference do not go together")
    percent = score.removesuffix("%")
    return {
        "ref": reference,
        "score_percent": percent,
        "score_fraction": NONE if score == NONE else f"{float(percent) / 100:.4f}",
        "score_text": score,
        "demo_count": len(items),
        "target_response": row["answer"],
    }
