#!/usr/bin/env bash
# Configures and builds the programs, quietly: one progress line on a terminal, the compiler's words only when it fails.
#   deploy/build.sh [BUILD_FOLDER] [CMAKE_ARGUMENT...] [-- TARGET...]
# CC chooses the compiler of a new folder; ccache is used where it is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}
shift || true
arguments=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  arguments+=("$1")
  shift
done
shift || true
log=$build/build.log
mkdir -p "$build"
fail() {
  tail -n 30 "$log" >&2
  echo "build.sh: the build failed; all of its output is in $log" >&2
  exit 1
}
# A folder configured by another checkout or generator would fail with a riddle.
if [ -f "$build/CMakeCache.txt" ] && ! grep -qx "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" "$build/CMakeCache.txt"; then
  rm -rf "$build/CMakeCache.txt" "$build/CMakeFiles"
fi
if command -v ccache >/dev/null; then
  arguments+=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
  export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1 # another checkout's objects count
fi
setpriv --pdeathsig TERM cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release "${arguments[@]}" >"$log" 2>&1 || fail
# Like cmake above, ninja ends with this shell, however that ends.
ninja=(setpriv --pdeathsig TERM ninja)
if [ -t 2 ]; then
  NINJA_STATUS='[%f/%t] ' "${ninja[@]}" -C "$build" "$@" 2>&1 | tee -a "$log" | awk '/^\[/ { printf "\r\033[K  building %s", $1 > "/dev/stderr" }
    END { printf "\r\033[K" > "/dev/stderr" }'
  [ "${PIPESTATUS[0]}" -eq 0 ] || fail
else
  "${ninja[@]}" -C "$build" "$@" >>"$log" 2>&1 || fail
fi
