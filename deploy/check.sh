#!/usr/bin/env bash
# Installs what the tests need, builds, and runs every test. The last line is 'N passed, M failed'.
#   deploy/check.sh            everything
#   deploy/check.sh STAGE...   only these: unit clang asan tsan fuzz golden e2e structure
set -uo pipefail
cd "$(dirname "$0")/.."

all=(structure unit golden e2e asan tsan fuzz)
stages=("${@:-${all[@]}}")
[ $# -gt 0 ] || stages=("${all[@]}")

deploy/packages.sh --tests || exit 1
venv=.venv
if ! [ -f $venv/.ready ] || ! cmp -s tests/requirements.txt $venv/.ready; then
  echo "== test packages (PyPI)"
  rm -rf $venv
  python3 -m venv $venv && $venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt && cp tests/requirements.txt $venv/.ready || exit 1
fi

passed=0 failed=0
# step NAME COMMAND...: runs it, shows its output only when it fails.
step() {
  local name=$1 log begin=$SECONDS
  shift
  log=$(mktemp)
  if "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
    printf 'ok     %-40s %4d s  %s\n' "$name" $((SECONDS - begin)) "$(grep -E '[0-9]+ passed|tests passed|identical|maximum' "$log" | tail -n 1 | cut -c1-90)"
  else
    failed=$((failed + 1))
    printf 'FAILED %-40s %4d s\n' "$name" $((SECONDS - begin))
    tail -n 60 "$log"
  fi
  rm -f "$log"
}
