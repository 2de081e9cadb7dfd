#!/bin/sh
# Guess: A policy that wins every comparison comes first by Bradley and Terry's model, or the model refuses it, since no
#   finite score fits.
# What happens: All policies have one score, 0.000001, those that it does not concern as well: who was better, of ten
#   comparisons each, is gone. It is the same where one loses them all (by `newman` only the loser), and where some were
#   never compared with others. One tie or one defeat more, and there is a ranking. Both solvers do it, without a
#   warning; `average_win_rate` ranks as guessed.
# Versions: evalica 0.4.2, numpy 2.4.6, pandas 3.0.3
# Output on 1 December 2026:
#   a wins all, bradley_terry: {'a': 1e-06, 'b': 1e-06, 'c': 1e-06}
#   a wins all, newman: {'a': 1e-06, 'b': 1e-06, 'c': 1e-06}
#   a wins all, average_win_rate: {'a': 1.0, 'b': 0.35, 'c': 0.15}
#   a wins all but a tie, bradley_terry: {'a': 9.4, 'b': 0.5, 'c': 0.21}
#   a wins all but one, bradley_terry: {'a': 5.7, 'b': 0.64, 'c': 0.27}
#   c loses all, bradley_terry: {'a': 1e-06, 'b': 1e-06, 'c': 1e-06}
#   c loses all, newman: {'a': 2.7, 'b': 1.7, 'c': 1e-06}
#   solvers differ: False
#   warnings: []
set -eu
packages="evalica==0.4.2 numpy==2.4.6 pandas==3.0.3"
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
import warnings

from evalica import Winner, average_win_rate, bradley_terry, newman

said = []
warnings.showwarning = lambda *args, **_: said.append(str(args[0]))
solvers_differ = False


def games(first, second, wins, defeats=0, ties=0):
    """Comparisons of two policies, as seen from the first one."""
    results = [Winner.X] * wins + [Winner.Y] * defeats + [Winner.Draw] * ties
    return [(first, second, result) for result in results]


def scores(model, comparisons):
    """A model's scores to two digits, of both solvers."""
    global solvers_differ
    columns = [list(column) for column in zip(*comparisons)]
    fast, plain = (
        {name: float(f"{score:.2g}") for name, score in model(*columns, solver=solver).scores.sort_index().items()}
        for solver in ("pyo3", "naive")
    )
    solvers_differ |= fast != plain
    return fast


mixed = games("b", "c", 7, 3)
comparisons = {
    "a wins all": games("a", "b", 9) + mixed + games("a", "c", 5),
    "a wins all but a tie": games("a", "b", 9, ties=1) + mixed,
    "a wins all but one": games("a", "b", 9, 1) + mixed,
    "c loses all": games("a", "b", 7, 3) + games("a", "c", 5) + games("b", "c", 5),
}
asked = [
    ("a wins all", bradley_terry),
    ("a wins all", newman),
    ("a wins all", average_win_rate),
    ("a wins all but a tie", bradley_terry),
    ("a wins all but one", bradley_terry),
    ("c loses all", bradley_terry),
    ("c loses all", newman),
]
seen = {f"{name}, {model.__name__}": scores(model, comparisons[name]) for name, model in asked}
seen["solvers differ"] = solvers_differ
expected = {
    "a wins all, bradley_terry": {"a": 1e-06, "b": 1e-06, "c": 1e-06},
    "a wins all, newman": {"a": 1e-06, "b": 1e-06, "c": 1e-06},
    "a wins all, average_win_rate": {"a": 1.0, "b": 0.35, "c": 0.15},
    "a wins all but a tie, bradley_terry": {"a": 9.4, "b": 0.5, "c": 0.21},
    "a wins all but one, bradley_terry": {"a": 5.7, "b": 0.64, "c": 0.27},
    "c loses all, bradley_terry": {"a": 1e-06, "b": 1e-06, "c": 1e-06},
    "c loses all, newman": {"a": 2.7, "b": 1.7, "c": 1e-06},
    "solvers differ": False,
}
for name, value in seen.items():
    print(f"{name}: {value}")
print(f"warnings: {said}")
if seen != expected or said:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
