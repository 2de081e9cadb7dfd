#!/bin/sh
# Guess: where a search over episodes gives several the same score, trec_eval's measures take them in the order given, or
#   share their ranks; scores that differ decide by themselves.
# What happens: the name decides, the later one in the alphabet first, and scores are compared as float32. The one right
#   episode of two is found in the first place or the second (reciprocal rank 1 or 0.5) by its name alone, also where its
#   cosine is the larger one by 1e-8; episode 9 becomes second as `ep_09`. scikit-learn shares the ranks. Nothing warns of
#   it.
# Versions: pytrec-eval-terrier 0.5.11, ir-measures 0.4.3, scikit-learn 1.9.1, numpy 2.3.5
# Output on 1 December 2026:
#   equal, right is ep_9 of ep_9, ep_10: reciprocal rank 1.0, ir-measures 1.0, nDCG 1.0, scikit-learn 0.82
#   equal, right is ep_09 of ep_09, ep_10: reciprocal rank 0.5, ir-measures 0.5, nDCG 0.63, scikit-learn 0.82
#   larger by 1e-8, right is ep_9 of ep_9, ep_10: reciprocal rank 1.0, ir-measures 1.0, nDCG 1.0, scikit-learn 1.0
#   larger by 1e-8, right is ep_09 of ep_09, ep_10: reciprocal rank 0.5, ir-measures 0.5, nDCG 0.63, scikit-learn 1.0
#   larger by 1e-7, right is ep_09 of ep_09, ep_10: reciprocal rank 1.0, ir-measures 1.0, nDCG 1.0, scikit-learn 1.0
set -eu
packages="pytrec-eval-terrier==0.5.11 ir-measures==0.4.3 scikit-learn==1.9.1 numpy==2.3.5"
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

import numpy as np
import pytrec_eval
from ir_measures import RR, calc_aggregate
from sklearn.metrics import ndcg_score

CASES = {
    "equal, right is ep_9 of ep_9, ep_10": ("ep_9", 0.5, "ep_10", 0.5),
    "equal, right is ep_09 of ep_09, ep_10": ("ep_09", 0.5, "ep_10", 0.5),
    "larger by 1e-8, right is ep_9 of ep_9, ep_10": ("ep_9", 0.75000001, "ep_10", 0.75),
    "larger by 1e-8, right is ep_09 of ep_09, ep_10": ("ep_09", 0.75000001, "ep_10", 0.75),
    "larger by 1e-7, right is ep_09 of ep_09, ep_10": ("ep_09", 0.7500001, "ep_10", 0.75),
}

seen = {}
for name, (right, score, wrong, other) in CASES.items():
    truth = {"text": {right: 1, wrong: 0}}
    found = {"text": {right: score, wrong: other}}
    measures = pytrec_eval.RelevanceEvaluator(truth, {"recip_rank", "ndcg"}).evaluate(found)["text"]
    shared = ndcg_score(np.array([[1, 0]]), np.array([[score, other]]))
    values = [measures["recip_rank"], calc_aggregate([RR], truth, found)[RR], measures["ndcg"], shared]
    seen[name] = [round(float(value), 2) for value in values]
    print(f"{name}: reciprocal rank {seen[name][0]}, ir-measures {seen[name][1]}, nDCG {seen[name][2]}, scikit-learn {seen[name][3]}")

first, second = [1.0, 1.0, 1.0], [0.5, 0.5, 0.63]
expected = dict(zip(CASES, [[*first, 0.82], [*second, 0.82], [*first, 1.0], [*second, 1.0], [*first, 1.0]], strict=True))
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
