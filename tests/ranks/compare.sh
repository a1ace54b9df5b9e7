#!/usr/bin/env bash
# The default model's greedy tokens and logits on 2, 3, 5 and 9 ranks beside those of one: all the same, bit by bit.
#   tests/ranks/compare.sh [BUILD [PYTHON]]        MAX_TOKENS=N tokens for each of 50 prompts (default 16)
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build} python=${2:-.venv/bin/python}
"$python" tests/ranks/compare.py --generate "$build/tests/generate" --model "$(deploy/get-model.sh smollm2-135m)" \
  --max-tokens "${MAX_TOKENS:-16}"
