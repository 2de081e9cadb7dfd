#!/bin/sh
# Guess: {"type": "number", "minimum": 0, "maximum": 1} lets a model answer each number from 0 to 1 and no other, with
#   each of vLLM's engines for structured output.
# What happens: three engines, three languages. XGrammar refuses a seventh decimal and 1.0000000; XGrammar and
#   llguidance refuse 5e-1; outlines-core takes 1.5 and -0.2. Which engine vLLM takes decides which labels a model can
#   give.
# Versions: xgrammar 0.2.8, llguidance 1.9.1, outlines-core 0.2.14, torch 2.11.0, transformers 5.23.0, numpy 2.2.6
# Output on 27 November 2026:
#   progress: xgrammar, llguidance, outlines-core
#   0.5: yes, yes, yes
#   0.123456: yes, yes, yes
#   0.1234567: no, yes, yes
#   1.0000000: no, yes, yes
#   5e-1: no, no, yes
#   1.5: no, no, yes
#   -0.2: no, no, yes
set -eu
packages="xgrammar==0.2.8 llguidance==1.9.1 outlines-core==0.2.14 torch==2.11.0 transformers==5.23.0 numpy==2.2.6"
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
import json
import re
import sys

import xgrammar
from llguidance import LLMatcher, LLTokenizer
from outlines_core.json_schema import build_regex_from_schema

schema = {
    "type": "object",
    "properties": {"progress": {"type": "number", "minimum": 0, "maximum": 1}},
    "required": ["progress"],
    "additionalProperties": False,
}
end = 128
letters = [chr(code) for code in range(128)] + ["<end>"]
tokens = xgrammar.TokenizerInfo(letters, xgrammar.VocabType.RAW, stop_token_ids=[end])
grammar = xgrammar.GrammarCompiler(tokens).compile_json_schema(json.dumps(schema))
bytes_of = LLTokenizer("byte")
rules = LLMatcher.grammar_from_json_schema(schema)
pattern = build_regex_from_schema(json.dumps(schema))


def by_xgrammar(text):
    matcher = xgrammar.GrammarMatcher(grammar)
    return matcher.accept_string(text) and matcher.accept_token(end)


def by_llguidance(text):
    matcher = LLMatcher(bytes_of, rules)
    answer = bytes_of.tokenize_str(text)
    return matcher.try_consume_tokens(answer) == len(answer) and matcher.is_accepting()


def by_outlines(text):
    return re.fullmatch(pattern, text) is not None


seen = {}
print("progress: xgrammar, llguidance, outlines-core")
for number in ("0.5", "0.123456", "0.1234567", "1.0000000", "5e-1", "1.5", "-0.2"):
    text = '{"progress": ' + number + "}"
    seen[number] = [by_xgrammar(text), by_llguidance(text), by_outlines(text)]
    print(f"{number}: {', '.join('yes' if taken else 'no' for taken in seen[number])}")

expected = {
    "0.5": [True, True, True],
    "0.123456": [True, True, True],
    "0.1234567": [False, True, True],
    "1.0000000": [False, True, True],
    "5e-1": [False, False, True],
    "1.5": [False, False, True],
    "-0.2": [False, False, True],
}
if seen != expected:
    sys.exit(f"CHANGED: expected {expected}")
print("As described.")
END
