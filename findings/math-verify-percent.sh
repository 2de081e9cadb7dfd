#!/bin/sh
# Guess: Math-Verify, behind TRL's accuracy_reward, tells a progress of 80 % from 80, and reads an answer within tags.
# What happens: 80% equals 0.8 and 80 both, either way round: a model is paid for 80 where 80% was asked, and for 80%
#   where 80 was. <answer>0.75</answer> is no answer at all: a right one gets nothing.
# Versions: math-verify 0.9.0
# Output on 27 November 2026:
#   asked $80\%$, answered $0.8$: True
#   asked $80\%$, answered $80$: True
#   asked $80$, answered $80\%$: True
#   asked $0.8$, answered $80$: False
#   asked $0.75$, answered 0.75: True
#   asked $0.75$, answered <answer>0.75</answer>: False
set -eu
packages="math-verify==0.9.0"
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

from math_verify import parse, verify

pairs = [
    ("$80\\%$", "$0.8$"),
    ("$80\\%$", "$80$"),
    ("$80$", "$80\\%$"),
    ("$0.8$", "$80$"),
    ("$0.75$", "0.75"),
    ("$0.75$", "<answer>0.75</answer>"),
]
seen = {}
for gold, answer in pairs:
    seen[f"{gold} and {answer}"] = verify(parse(gold), parse(answer))
    print(f"asked {gold}, answered {answer}: {seen[f'{gold} and {answer}']}")

expected = {
    "$80\\%$ and $0.8$": True,
    "$80\\%$ and $80$": True,
    "$80$ and $80\\%$": True,
    "$0.8$ and $80$": False,
    "$0.75$ and 0.75": True,
    "$0.75$ and <answer>0.75</answer>": False,
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
