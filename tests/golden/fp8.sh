#!/usr/bin/env bash
# FP8 folders beside the same numbers in BF16, on 1 and 3 ranks, with a scale for each row and for each matrix: the same logits.
#   tests/golden/fp8.sh [BUILD [PYTHON]]
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build} python=${2:-.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" tests/golden/make_random_llama.py --preset twin6 --folder "$work/source" --dtype f32
passed=0 failed=0
for scales in row matrix; do
  "$python" tests/golden/quantise_folder.py "$work/source" "$work/fp8" "$work/twin" --scales $scales
  for ranks in 1 3; do
    for model in fp8 twin; do
      mpirun --oversubscribe --allow-run-as-root --bind-to none -n $ranks "$build/tests/generate" "$work/$model" \
        --tokens "5 6 7 8 9 10 200 300" --kv-type f32 --logits-out "$work/$model.logits" 2>/dev/null
    done
    if cmp "$work/fp8.logits" "$work/twin.logits"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    echo "scales per $scales, $ranks ranks: $(stat -c %s "$work/fp8.logits") bytes of logits compared"
  done
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
