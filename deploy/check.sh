#!/usr/bin/env bash
# Installs what the tests need, builds, and runs every test. The last line is 'N passed, M failed'.
#   deploy/check.sh            every stage, in this order:
#   deploy/check.sh STAGE...   only these:
#     structure   includes point downwards, third parties stay behind their wrapper, files stay small
#     unit        gcc, Release, in build/: unit tests, simulation, several ranks
#     device      gcc, the same folder: the CUDA kernels compiled as C++, every thread a fiber; plain, ASan+UBSan, race checker
#     golden      tokenizer, templates, logits and tokens against transformers, tokenizers, llama.cpp and other rank counts
#     e2e         real clusters, by the official openai and gRPC packages (pytest over tests/e2e)
#     asan        clang, ASan+UBSan, in build-fuzz/: builds without a warning; unit tests, and clusters of instrumented programs
#     fuzz        the same folder: each target of tests/fuzz for a bounded time
#     tsan        gcc, TSan, in build-tsan/: unit tests, and an instrumented coordinator
set -uo pipefail
cd "$(dirname "$0")/.."

all=(structure unit device golden e2e asan fuzz tsan)
stages=("$@")
[ $# -gt 0 ] || stages=("${all[@]}")
for stage in "${stages[@]}"; do
  case " ${all[*]} " in *" $stage "*) ;; *) echo "check.sh: no stage '$stage'; there are: ${all[*]}" >&2; exit 2 ;; esac
done

passed=0 failed=0 begin_all=$SECONDS
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE=1
export HWLOC_COMPONENTS=-gl # mpirun need not look for GPUs behind X displays: seconds each, where localhost has no address

# Prints PASSED FAILED: what a log says of its tests (ctest, pytest, or 'N passed, M failed'), in sum; a log that says nothing is one.
count() {
  awk '
    match($0, /[0-9]+ tests failed out of [0-9]+/) { split(substr($0, RSTART), w, " "); bad += w[1]; good += w[6] - w[1]; next }
    /[0-9]+ passed/ || /^=+ [0-9]+ failed/ || /^[0-9]+ failed/ {
      if (match($0, /[0-9]+ passed/)) good += substr($0, RSTART) + 0
      if (match($0, /[0-9]+ failed/)) bad += substr($0, RSTART) + 0
      if (match($0, /[0-9]+ errors?/)) bad += substr($0, RSTART) + 0
    }
    END { print good + 0, bad + 0 }' "$1"
}

# step NAME COMMAND...: runs it for at most LIMIT seconds and shows the end of its output when it fails. SIGINT stops it, because
# that is what lets Python's tests stop what they started; job control (set -m) keeps that signal from being ignored.
set -m
child=''
trap 'trap - INT TERM; [ -z "$child" ] || { kill -INT "$child"; wait "$child"; }; exit 130' INT TERM
step() {
  local name=$1 log=$work/log begin=$SECONDS status=0 good bad skipped
  shift
  timeout -k 30 -s INT "${LIMIT:-600}" bash -c '"$@"' "$name" "$@" >"$log" 2>&1 </dev/null &
  child=$!
  wait "$child" || status=$?
  child=''
  read -r good bad < <(count "$log")
  [ $status -eq 0 ] || [ "$bad" -gt 0 ] || bad=1
  [ $((good + bad)) -gt 0 ] || good=1
  passed=$((passed + good)) failed=$((failed + bad))
  if [ "$bad" -eq 0 ]; then
    skipped=$(grep -oE '[0-9]+ skipped' "$log" | tail -n 1)
    [ "$good" -eq 1 ] && good='' || good="$good passed"
    printf 'ok     %-40s %4d s  %s\n' "$name" $((SECONDS - begin)) "$good${skipped:+, $skipped}"
  else
    printf 'FAILED %-40s %4d s  %d failed, exit status %d\n' "$name" $((SECONDS - begin)) "$bad" "$status"
    tail -n 80 "$log" | cut -c1-400
    return 1
  fi
}

virtual_environment() {
  cmp -s tests/requirements.txt .venv/.ready && return 0
  rm -rf .venv
  python3 -m venv .venv && .venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt &&
    cp tests/requirements.txt .venv/.ready
}

# sanitized COMMAND...: the sanitizers' reports of programs that it starts go to files, and one report fails it, whatever it saw.
sanitized() {
  local reports status=0
  reports=$(mktemp -d)
  ASAN_OPTIONS="detect_stack_use_after_return=1:log_path=$reports/asan" UBSAN_OPTIONS="print_stacktrace=1:log_path=$reports/ubsan" \
    LSAN_OPTIONS="suppressions=$PWD/tests/lsan.supp:print_suppressions=0" \
    TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp:log_path=$reports/tsan" "$@" || status=$?
  if compgen -G "$reports/*" >/dev/null; then
    head -n 70 "$reports"/*
    status=1
  fi
  rm -rf "$reports"
  return "$status"
}
export -f virtual_environment sanitized

build() { # FOLDER COMPILER ARGUMENT...: once
  local folder=$1 compiler=$2
  [[ " ${built:-} " != *" $folder "* ]] || return 0
  shift 2
  LIMIT=900 step "build $folder ($compiler)" env CC="$compiler" deploy/build.sh "$folder" "$@" && built+=" $folder"
}
release() { build build gcc -DOCTANT_TESTS=ON -DOCTANT_CUDA=AUTO; }
instrumented() { build build-fuzz clang -DOCTANT_CUDA=OFF -DOCTANT_SANITIZE=address -DOCTANT_FUZZ=ON; }
python() { cmp -s tests/requirements.txt .venv/.ready || step "test packages (PyPI)" virtual_environment; }
unit_tests() { step "$1: $2" ctest --test-dir "$1" -j "$(nproc)" --output-on-failure "${@:3}"; }
# clusters BUILD FILE...: end-to-end tests of a build's programs. They wait more than they compute, so two files run at a time.
clusters() {
  LIMIT=900 step "$1: clusters" sanitized env OCTANT_BUILD="$PWD/$1" .venv/bin/python -m pytest -q -p no:cacheprovider -rs \
    -n 2 --dist loadfile --no-loadscope-reorder "${@:2}"
}

stage_structure() { step "structure" python3 tests/structure/check.py; }
stage_unit() {
  release || return
  unit_tests build "unit tests, simulation" -LE 'ranks|device'
  unit_tests build "several ranks" -L ranks
}
stage_device() {
  release && python || return # device/sass takes cuobjdump from the test packages
  if ctest --test-dir build -N -L device | grep -q 'Total Tests: 0'; then
    echo "skipped: the CUDA kernels on the emulated device: no CUDA toolkit headers (cuda_runtime_api.h) on this machine"
    return
  fi
  LIMIT=900 unit_tests build "CUDA kernels on the emulated device" -L device
}
stage_golden() {
  release && python || return
  step "logits beside transformers'" .venv/bin/python tests/golden/logits_compare.py --generate build/tests/generate
  step "quantised folders beside plain ones" bash -c '.venv/bin/python tests/golden/quantised_compare.py --generate build/tests/generate --gguf "$(deploy/get-model.sh smollm2-135m)"'
  step "templates beside transformers'" tests/golden/templates.sh build .venv/bin/python
  step "tokenizer beside tokenizers, llama.cpp" tests/golden/tokenizer.sh build .venv/bin/python
  step "answers under grammars, by jsonschema" bash -c '.venv/bin/python tests/golden/grammar_answers.py --tool build/tests/grammar --model "$(deploy/get-model.sh smollm2-135m)" --schemas 300'
  step "tokens beside llama.cpp's" env PROMPTS=4 tests/golden/llama_cpp.sh build .venv/bin/python
  step "tokens on 1 to 9 ranks, 1 to 3 stages" env PROMPTS=12 MAX_TOKENS=16 tests/ranks/compare.sh build .venv/bin/python
}
stage_e2e() {
  release && python || return
  clusters build tests/e2e/test_*.py
  step "faults under load" tests/fault/run.sh --faults 5
  # 77: network namespaces are not allowed here; the script's line says so.
  step "two hosts (network namespaces)" bash -c 'tests/e2e/multihost.sh build "$(deploy/get-model.sh smollm2-135m)" || [ $? -eq 77 ]'
}
stage_asan() {
  instrumented && python || return
  unit_tests build-fuzz "unit tests, simulation" -LE ranks
  OCTANT_PRIVACY_CASES=100 clusters build-fuzz tests/e2e/test_{openai,failure,ledger,privacy}.py
}
stage_fuzz() {
  instrumented || return
  step "fuzz targets" env SECONDS_MAX=15 tests/fuzz/run.sh build-fuzz
}
stage_tsan() {
  build build-tsan gcc -DOCTANT_CUDA=OFF -DOCTANT_SANITIZE=thread && python || return
  # Kernels meet other threads in their pool alone, and its tests, sums and rows use it as these two long ones do.
  unit_tests build-tsan "unit tests" -LE 'ranks|sim' -E 'unit/kernels/test_(attention|matmul)$'
  clusters build-tsan tests/e2e/test_{openai,rpc_echo}.py
}

step "packages" deploy/packages.sh --tests
for stage in "${stages[@]}"; do
  "stage_$stage"
done
printf 'all of it: %d s\n' $((SECONDS - begin_all))
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
