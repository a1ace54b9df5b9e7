#!/usr/bin/env bash
# Runs the simulator over many seeds and ends with "N seeds, 0 violations", or with the smallest run that fails.
#
#   tests/sim/run.sh [--build BUILD] [--seeds N] [--jobs J] [--seed S] [--events E]
#
# BUILD (default: build) must hold tests/sim_core, best of a Release build: ninja -C build sim_core. The first seed is S
# (default 1), each runs for E events (default 300) and then until all is quiet. What a failure prints (SEED=... FAULTS=...)
# goes in front of this script and gives the same failure again; SEED=42 alone runs that one seed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$here/../../build options=()
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=${2:?"--build: give a build folder"} ;;
    --seeds | --jobs | --seed | --events) options+=("$1" "${2:?"$1: give a number"}") ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift 2
done
[ -x "$build/tests/sim_core" ] || { echo "no $build/tests/sim_core: build it first (ninja -C $build sim_core)" >&2; exit 2; }
exec "$build/tests/sim_core" --progress yes "${options[@]}"
