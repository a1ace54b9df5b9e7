#!/usr/bin/env bash
# The default model's greedy tokens and logits on several ranks and stages beside those of one: all the same, bit by bit.
#   tests/ranks/compare.sh [BUILD [PYTHON]]        PROMPTS=N of the 50 prompts (default all), MAX_TOKENS=N for each (default 64)
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build} python=${2:-.venv/bin/python}
prompts=$(mktemp)
trap 'rm -f "$prompts"' EXIT
head -n "${PROMPTS:-50}" tests/ranks/prompts.txt >"$prompts"
"$python" tests/ranks/compare.py --generate "$build/tests/generate" --model "$(deploy/get-model.sh smollm2-135m)" \
  --prompts "$prompts" --max-tokens "${MAX_TOKENS:-64}"
