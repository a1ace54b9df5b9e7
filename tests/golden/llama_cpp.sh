#!/usr/bin/env bash
# Greedy tokens of the default model beside llama.cpp's, on its quantised file and on its F32 twin: 20 prompts of 64 tokens each.
#   tests/golden/llama_cpp.sh [BUILD [PYTHON]]      PYTHON has tests/requirements.txt
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build} python=${2:-.venv/bin/python}
model=$(deploy/get-model.sh smollm2-135m)
wide=${model%.gguf}.f32.gguf
if [ ! -f "$wide" ]; then
  "$python" tests/golden/widen_gguf.py "$model" "$wide.tmp"
  mv "$wide.tmp" "$wide"
fi
"$python" tests/golden/llama_cpp_tokens.py "$model" --generate "$build/tests/generate" 2>/dev/null
"$python" tests/golden/llama_cpp_tokens.py "$wide" --prompts "${PROMPTS:-20}" --generate "$build/tests/generate" 2>/dev/null
