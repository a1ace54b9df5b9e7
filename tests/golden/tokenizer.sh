#!/usr/bin/env bash
# Compares the tokenizer with Hugging Face tokenizers and llama.cpp's expected outputs; see tokenizer_compare.py, which fetches
# what it needs. The Python has tests/requirements.txt.
#   tests/golden/tokenizer.sh [BUILD [PYTHON]]        default: build .venv/bin/python
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${1:-build} python=${2:-.venv/bin/python}
tool=$build/tests/tokenize
[ -x "$tool" ] || { echo "tokenizer: $tool is missing; build the target tool_tokenize" >&2; exit 2; }
export PYTHONDONTWRITEBYTECODE=1 PYTHON=$python
"$python" "$here/tokenizer_compare.py" --tool "$tool"
