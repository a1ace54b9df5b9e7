#!/usr/bin/env bash
# Octant beside llama.cpp on this machine: the same GGUF file, the same threads, the same client (bench-serve over HTTP), in turn
# within one run, several rounds, medians of the ratios. Ratio = Octant's speed / llama.cpp's: above 1 is faster.
#   bench/peers.sh [MODEL.gguf]      default: SmolLM2-135M Q4_1
#   ROUNDS=5 THREADS=2 OUT=bench/results/peers.json
# decode: one stream, 128 tokens, from the median ITL. prefill: a new 512-token prompt, from the TTFT. batch16: 16 streams at once,
# tokens/s out. ranks2: 2 ranks of THREADS/2 threads over 1 rank of THREADS threads, decode.
set -euo pipefail
cd "$(dirname "$0")/.."
model=${1:-$(deploy/get-model.sh smollm2-135m)}
rounds=${ROUNDS:-5} threads=${THREADS:-2} out=${OUT:-bench/results/peers.json}
venv=${VENV:-.venv-peers}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -c 'import xllamacpp' 2>/dev/null || "$venv/bin/pip" install -q --disable-pip-version-check -r bench/requirements.txt
exec python3 bench/peers.py --model "$model" --rounds "$rounds" --threads "$threads" --out "$out" --python "$venv/bin/python"
