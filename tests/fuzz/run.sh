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

# fuzz TARGET: its outcome in $scratch/SUBJECT.outcome
fuzz() {
    local subject words=() log
    subject=$(basename "$1"); subject=${subject#fuzz_}
    log=$scratch/$subject.log
    mkdir -p "$scratch/$subject" "$here/corpus/$subject"
    # The format's words, where somebody wrote them down.
    [ ! -f "$here/fuzz_$subject.dict" ] || words=(-dict="$here/fuzz_$subject.dict")
    if timeout -k 5 $((seconds + 60)) "$1" -runs="$runs" -max_total_time="$seconds" -seed="$seed" -timeout=10 -rss_limit_mb=1024 \
        "${words[@]}" -max_len=16384 -artifact_prefix="$findings/$subject-" "$scratch/$subject" "$here/corpus/$subject" \
        >"$log" 2>&1; then
        echo "ok    $subject: $(grep -o 'Done [0-9]* runs' "$log" | tail -1 | grep -o '[0-9]*') inputs, seed $seed"
    else
        echo "FAIL  $subject, seed $seed: $(grep -m1 -E 'ERROR|runtime error|SUMMARY' "$log")"
        tail -25 "$log"
    fi >"$scratch/$subject.outcome"
    cat "$scratch/$subject.outcome"
}

for target in "$build"/fuzz/fuzz_*; do
    [ -f "$target" ] && [ -x "$target" ] || continue
    [ "$(jobs -rp | wc -l)" -lt "$(nproc)" ] || wait -n
    fuzz "$target" &
done
wait
passed=$(cat "$scratch"/*.outcome | grep -c '^ok ') failed=$(cat "$scratch"/*.outcome | grep -c '^FAIL ')
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
