#!/usr/bin/env bash
# Plants each bug of plants.txt into a copy of the backend's sources and expects the device checks to catch it.
#
#   tests/device/plant.sh BUILD [NAME...]      BUILD: a build with Ninja in which {device_check,peer_processes}_emulated* are built
#
# Only the unit that holds the bug is compiled again; it is linked before the library, whose own copy is then left out. A
# plant fails when the bug goes unnoticed, is noticed in other words than it should be, or no longer fits the source.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=$(cd "${1:?usage: plant.sh BUILD [NAME...]}" && pwd)
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
limit=240 # seconds that one run may take
# stdbuf comes by LD_PRELOAD, before the address sanitizer's library: let it.
export ASAN_OPTIONS=detect_stack_use_after_return=0:detect_leaks=0:verify_asan_link_order=0
failed=0 caught=0

trim() { sed -e 's/^ *//' -e 's/ *$//' <<<"$1"; }

# The command by which the build makes a target, for another output: last line of what ninja would run.
command_of() { ninja -C "$build" -t commands "$1" | grep -v '^ninja:' | tail -1; }

# compile UNIT SUFFIX: $work/planted.o
compile() {
  local unit=$1 suffix=$2 object source
  case $unit in
    *.cu) object=tests/device/CMakeFiles/octant_device_emulated${suffix}_kernels.dir/__/__/kernels/cuda/$unit.o ;;
    *) object=tests/device/CMakeFiles/octant_device_emulated${suffix}.dir/__/__/kernels/cuda/$unit.o ;;
  esac
  source=$root/kernels/cuda/$unit
  [ -f "$work/kernels/cuda/$unit" ] && source=$work/kernels/cuda/$unit
  command_of "$object" | sed -e "s# -I# -I$work -I#" -e 's# -MD -MT [^ ]* -MF [^ ]*##' -e "s# -o [^ ]* -c .*# -o $work/planted.o -c $source#" >"$work/compile.sh"
  (cd "$build" && sh "$work/compile.sh") >"$work/log" 2>&1
}

# link PROGRAM SUFFIX: $work/planted
link() {
  command_of "tests/$1_emulated$2" | sed -e "s# -o [^ ]*# -o $work/planted $work/planted.o#" >"$work/link.sh"
  (cd "$build" && sh "$work/link.sh") >"$work/log" 2>&1
}

# run WORDS ARGUMENT...: whether the program says them before it ends. It is stopped as soon as it does.
run() {
  local words=$1 pid
  shift
  timeout "$limit" stdbuf -oL "$work/planted" "$@" >"$work/log" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    grep -qE "$words" "$work/log" && kill "$pid" 2>/dev/null
    sleep 0.1
  done
  wait "$pid" 2>/dev/null
  grep -qE "$words" "$work/log"
}

verdict() { # NAME FLAVOUR TEXT
  printf '%-16s %-6s %s\n' "$1" "$2" "$3"
}

plant() {
  local name=$1 file=$2 script=$3 unit=$4 flavour=$5 arguments=$6 words=$7 suffix=
  local program=device_check cards=h100
  [ "$flavour" = plain ] || suffix=_$flavour
  case $arguments in # ranks have a card each
    peer_processes\ *) program=peer_processes cards='h100*4' arguments=${arguments#* } ;;
  esac
  rm -rf "$work/kernels" && mkdir -p "$work/kernels/cuda"
  sed -e "$script" "$root/kernels/cuda/$file" >"$work/kernels/cuda/$file"
  if cmp -s "$root/kernels/cuda/$file" "$work/kernels/cuda/$file"; then
    verdict "$name" "$flavour" "FAILED: the plant does not fit $file any more"
  elif ! compile "$unit" "$suffix" || ! link "$program" "$suffix"; then
    verdict "$name" "$flavour" "FAILED: the planted source does not build"
    tail -5 "$work/log"
  elif OCTANT_EMULATOR=devices=$cards run "$words" $arguments; then
    verdict "$name" "$flavour" "caught: $(grep -m1 -E "$words" "$work/log" | cut -c1-120)"
    caught=$((caught + 1))
    return
  else
    verdict "$name" "$flavour" "FAILED: not caught by $program $arguments"
    tail -5 "$work/log"
  fi
  failed=$((failed + 1))
}

while IFS='|' read -r name file script unit flavour arguments words; do
  name=$(trim "$name")
  [ -z "$name" ] || [ "${name#\#}" != "$name" ] && continue
  [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
  plant "$name" "$(trim "$file")" "$(trim "$script")" "$(trim "$unit")" "$(trim "$flavour")" "$(trim "$arguments")" "$(trim "$words")"
done <"$here/plants.txt"
echo "$caught caught, $failed failed"
[ "$failed" -eq 0 ]
