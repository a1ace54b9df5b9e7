#!/usr/bin/env bash
# Runs every fuzz target that was built, each for a bounded number of inputs, starting from its corpus. New inputs are not kept.
#
#   cmake -S . -B build-fuzz -G Ninja -DCMAKE_C_COMPILER=clang -DOCTANT_FUZZ=ON -DOCTANT_SANITIZE=address
#   ninja -C build-fuzz && tests/fuzz/run.sh build-fuzz
#
# SEED=N repeats a run; RUNS=N inputs per target (default 100000), SECONDS_MAX=N at most per target (default 60). An input
# that fails is kept in BUILD/fuzz/findings/ and its path is printed.
set -u
build=${1:-build-fuzz}
here=$(cd "$(dirname "$0")" && pwd)
runs=${RUNS:-100000} seconds=${SECONDS_MAX:-60} seed=${SEED:-$(date +%s)}
[ -d "$build/fuzz" ] || { echo "no fuzz targets in $build/fuzz: build them first (see the head of $0)" >&2; exit 2; }
findings=$build/fuzz/findings
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$findings"

passed=0 failed=0
for target in "$build"/fuzz/fuzz_*; do
    [ -f "$target" ] && [ -x "$target" ] || continue
    subject=$(basename "$target"); subject=${subject#fuzz_}
    mkdir -p "$scratch/$subject" "$here/corpus/$subject"
    dictionary=$here/fuzz_$subject.dict # the format's words, where somebody wrote them down
    words=()
    [ ! -f "$dictionary" ] || words=(-dict="$dictionary")
    if timeout -k 5 $((seconds + 60)) "$target" -runs="$runs" -max_total_time="$seconds" -seed="$seed" -timeout=10 -rss_limit_mb=1024 \
        "${words[@]}" -max_len=16384 -artifact_prefix="$findings/$subject-" "$scratch/$subject" "$here/corpus/$subject" \
        >"$scratch/log" 2>&1; then
        echo "ok    $subject: $(grep -o 'Done [0-9]* runs' "$scratch/log" | tail -1 | grep -o '[0-9]*') inputs, seed $seed"
        passed=$((passed + 1))
    else
        echo "FAIL  $subject, seed $seed: $(grep -m1 -E 'ERROR|runtime error|SUMMARY' "$scratch/log")"
        tail -25 "$scratch/log"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
