#!/bin/sh
# Guess: row 0 of what Trainer.predict returns is about row 0 of the dataset; a setting named for training samples
#   leaves it alone.
# What happens: with train_sampling_strategy="group_by_length", evaluation and prediction go by length, too, drawn anew
#   each time, and what is returned keeps that order: scores of frames are those of other frames. Labels are moved
#   alike, so that metrics are right. Nothing warns of it.
# Versions: transformers[torch] 5.23.0, tokenizers 0.23.3, torch 2.11.0, numpy 2.2.6
# Output on 29 November 2026:
#   random: scores in the order of rows True, all there True
#   group_by_length: scores in the order of rows False, all there True
set -eu
packages="transformers[torch]==5.23.0 tokenizers==0.23.3 torch==2.11.0 numpy==2.2.6"
python=$("${PYTHON:-python3}" -c "import sys; print(sys.executable)")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
if command -v uv >/dev/null; then
  uv venv --quiet --python "$python" env
  uv pip install --quiet --python env/bin/python $packages
else
  "$python" -m venv env
  env/bin/python -m pip install --quiet $packages
fi
env/bin/python - <<'END'
import sys

import torch
from torch.nn.functional import pad
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainingArguments
from transformers.utils import logging

logging.set_verbosity_error()


class Config(PretrainedConfig):
    model_type = "first_token"


class FirstToken(PreTrainedModel):
    """The score of a sample is its first token: its row's number."""

    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.post_init()

    def forward(self, input_ids, labels=None):
        scores = input_ids[:, :1] * self.weight
        return {"loss": scores.mean(), "logits": scores}


def collate(samples):
    longest = max(len(sample["input_ids"]) for sample in samples)
    ids = [pad(sample["input_ids"], (0, longest - len(sample["input_ids"]))) for sample in samples]
    return {"input_ids": torch.stack(ids), "labels": torch.tensor([sample["labels"] for sample in samples])}


ROWS = list(range(40))
dataset = [{"input_ids": torch.tensor([row] + [0] * (row * 7 % 23)), "labels": float(row)} for row in ROWS]
seen = {}
for strategy in ("random", "group_by_length"):
    arguments = TrainingArguments(
        "out",
        train_sampling_strategy=strategy,
        per_device_eval_batch_size=4,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(FirstToken(Config()), arguments, data_collator=collate)
    rows = [int(score) for score in trainer.predict(dataset).predictions.ravel()]
    seen[strategy] = [rows == ROWS, sorted(rows) == ROWS]
    print(f"{strategy}: scores in the order of rows {seen[strategy][0]}, all there {seen[strategy][1]}")

expected = {
    "random": [True, True],
    "group_by_length": [False, True],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
