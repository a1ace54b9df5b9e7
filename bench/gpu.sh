#!/usr/bin/env bash
# Everything that one call on a machine with a GPU can tell: are the kernels right there, and how fast. Needs nvcc, cmake and a C compiler;
# takes ninja, PyTorch and compute-sanitizer where they are. No network, no root, no other library. Under 9 minutes.
#   bench/gpu.sh             every group, in this order:
#   bench/gpu.sh GROUP...    only these; the results of the others are kept
#     build     the CUDA backend, its checks and benches, for the card's architecture among others
#     check     every kernel against the CPU's reference on random inputs, outputs poisoned
#     torch     PyTorch: the card's matrix rates (ceilings for what follows), and its own operators at the same sizes
#     decode    steps of an 8B model and of one of eight ranks of a 405B model, B = 1, 32, 256, context 1K and 8K, beside their floors
#     prefill   chunks of a prompt through the same models
#     ops       each operator alone
#     exact     the decode steps again, in the mode that gives the same bits in any batch and on any number of ranks
#     peer      sums over processes, exact, and their times: a card each, and by the NVSwitch where it can; else two that share the card
#     sanitize  compute-sanitizer (memcheck, racecheck) over a part of the checks
#   --build DIR     where to build (build-gpu)          --results DIR   where gpu-CARD-DATE.csv goes (bench/results)
#   --emulated      the same on the emulated device of a finished build in --build, at tiny sizes: proves this script, says nothing of speed
# A group that fails or runs out of time does not stop the others. The last thing printed is a short table. Exit status 1 if any group failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

all=(build check torch decode prefill ops exact peer sanitize)
build=build-gpu results=bench/results emulated='' groups=()
while [ $# -gt 0 ]; do
  case $1 in
    --build) build=$2; shift ;;
    --results) results=$2; shift ;;
    --emulated) emulated=yes ;;
    -*) echo "gpu.sh: no option '$1'; see the head of bench/gpu.sh" >&2; exit 2 ;;
    *) case " ${all[*]} " in *" $1 "*) groups+=("$1") ;; *) echo "gpu.sh: no group '$1'; there are: ${all[*]}" >&2; exit 2 ;; esac ;;
  esac
  shift
done
[ ${#groups[@]} -gt 0 ] || groups=("${all[@]}")

if [ -n "$emulated" ]; then
  bench=$build/bin/bench-gpu-emulated check=$build/tests/device_check_emulated peers=$build/tests/peer_processes_emulated tiny=--tiny
else
  bench=$build/bin/bench-gpu check=$build/tests/device_check_real peers=$build/tests/peer_processes_real tiny=
fi
parts=$build/gpu-parts
mkdir -p "$parts" "$results"
# The CUDA libraries that the backend loads at run, wherever this machine's toolkit or Python has them. An emulated device brings its own.
[ -n "$emulated" ] || for folder in /usr/local/cuda/lib64 $(python3 -c 'import sys, glob; print(*(d for p in sys.path for d in glob.glob(p + "/nvidia/cu*/lib")))' 2>/dev/null); do
  [ -d "$folder" ] && LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
done
export LD_LIBRARY_PATH PATH=$PATH:/usr/local/cuda/bin PYTHONUNBUFFERED=1

begin=$SECONDS total=530 failed=()
# step GROUP LIMIT COMMAND...: at most LIMIT seconds, and never past the total; its output goes to parts/GROUP.log. 77: skipped.
step() {
  local name=$1 limit=$2 status=0 at=$SECONDS left=$((total - (SECONDS - begin)))
  shift 2
  if [ "$left" -lt 5 ]; then
    echo "LEFT OUT $name: no time left; run bench/gpu.sh $name"
    failed+=("$name")
    return 1
  fi
  timeout -k 10 $((limit < left ? limit : left)) bash -c '"$@"' step "$@" >"$parts/$name.log" 2>&1 </dev/null || status=$?
  case $status in
    0) printf 'ok      %-9s %4d s  %s\n' "$name" $((SECONDS - at)) "$(tail -n 1 "$parts/$name.log" | cut -c1-150)" ;;
    77) printf 'skipped %-9s %4d s  %s\n' "$name" $((SECONDS - at)) "$(tail -n 1 "$parts/$name.log" | cut -c1-150)" ;;
    *)
      printf 'FAILED  %-9s %4d s  exit status %d%s; the end of %s:\n' "$name" $((SECONDS - at)) "$status" \
        "$([ $status -eq 124 ] && echo ' (out of time)')" "$parts/$name.log"
      tail -n 12 "$parts/$name.log" | cut -c1-200
      failed+=("$name")
      ;;
  esac
}

configure_and_build() {
  local generator=()
  command -v ninja >/dev/null && generator=(-G Ninja)
  cmake -S . -B "$build" "${generator[@]}" -DOCTANT_ONLY_KERNELS=ON -DOCTANT_CUDA=ON -DCMAKE_CUDA_FLAGS=--threads=2 &&
    cmake --build "$build" --parallel "$(nproc)" --target device_check_real peer_processes_real bench-gpu
}
# The groups of checks side by side: the time goes into the CPU's reference. Then sums between processes, one of which is killed once.
checks() {
  local group names bad=0
  names=$("$check" --list) || return 1
  [ -z "$emulated" ] || names="norm rope" # each has its own test
  rm -rf "$parts/checks" && mkdir -p "$parts/checks"
  for group in $names; do
    ("$check" --group "$group" || echo "FAILED $group, exit status $?") >"$parts/checks/$group" 2>&1 &
  done
  wait
  "$peers" --ranks 2 >"$parts/checks/peer" 2>&1 || echo "FAILED peer, exit status $?" >>"$parts/checks/peer"
  # By the NVSwitch: wants two cards that hang on one.
  "$peers" --ranks 2 --multicast >"$parts/checks/peer_multicast" 2>&1 || [ $? -eq 77 ] || echo "FAILED peer_multicast" >>"$parts/checks/peer_multicast"
  "$peers" --ranks 2 --kill 1 --limit 2000 >"$parts/checks/peer_kill" 2>&1 || echo "FAILED peer_kill, exit status $?" >>"$parts/checks/peer_kill"
  tail -n 4 "$parts"/checks/*
  bad=$(grep -l '^FAILED' "$parts"/checks/* | wc -l)
  echo "$(ls "$parts/checks" | wc -l) groups of checks, $bad failed"
  [ "$bad" -eq 0 ]
}
# The tools that look inside a running kernel make it ten to a hundred times slower: small shapes, and only some groups.
sanitized() {
  command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer here"; exit 77; }
  local tool group groups="norm rope rows step wgmma" # racecheck follows no warpgroup's products
  for tool in memcheck racecheck; do
    echo "== $tool, sums between two processes"
    compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all "$peers" --ranks 2 || exit 1
    for group in $groups; do
      echo "== $tool $group"
      compute-sanitizer --tool "$tool" --error-exitcode 9 "$check" --group "$group" --small || exit 1
    done
    groups=${groups% wgmma}
  done
}
torch_ops() {
  if [ -n "$emulated" ]; then # the names under which both are compared
    odd=$(comm -23 <(python3 bench/gpu_torch.py names | sort) <("$bench" ops --list | sort))
    [ -z "$odd" ] || { echo "cases that bench-gpu has not: $odd"; exit 1; }
  fi
  python3 bench/gpu_torch.py ceilings $tiny >"$parts/ceilings" || exit $?
  python3 bench/gpu_torch.py ops $tiny --csv "$parts/torch.csv"
}
ceilings() { # as options of bench-gpu: none where PyTorch did not measure them
  [ -s "$parts/ceilings" ] && [ -z "$emulated" ] && sed 's/^/--/' "$parts/ceilings" | tr '\n' ' '
}
measure() { # shellcheck disable=SC2046 # the ceilings are words
  "$bench" "$1" $tiny --csv "$parts/$1.csv" $(ceilings)
}
measure_exact() { # shellcheck disable=SC2046
  "$bench" decode --exact $tiny --csv "$parts/exact.csv" $(ceilings)
}
export build bench check peers tiny parts emulated
export -f configure_and_build checks sanitized torch_ops ceilings measure measure_exact

for group in "${groups[@]}"; do
  case $group in
    build)
      [ -n "$emulated" ] || step build 240 configure_and_build
      [ ${#failed[@]} -eq 0 ] || exit 1
      ;;
    check) step check 120 checks ;;
    torch) step torch 70 torch_ops ;;
    decode) step decode 80 measure decode ;;
    prefill) step prefill 60 measure prefill ;;
    ops) step ops 80 measure ops ;;
    exact) step exact 70 measure_exact ;;
    peer) step peer 40 measure peer ;;
    sanitize) [ -n "$emulated" ] || step sanitize 90 sanitized ;;
  esac
done

shopt -s nullglob
csv=("$parts"/*.csv)
if [ ${#csv[@]} -eq 0 ]; then
  [ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
  exit 0 # built or checked, nothing measured
fi
card=$("$bench" card 2>/dev/null || echo unknown-card)
file=$results/gpu-$card-$(date +%F).csv
[ -z "$emulated" ] || file=$results/gpu-emulated.csv
{
  echo "# bench/gpu.sh on $card, $(date +%F), $(git rev-parse --short HEAD 2>/dev/null || echo 'no revision')"
  echo "# $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo 'no nvidia-smi')"
  [ -s "$parts/ceilings" ] && sed 's/^/# PyTorch, product of 8192 x 8192 x 8192 [TFLOP\/s]: /' "$parts/ceilings"
  echo "group,case,us,bytes,flops,floor_us,note"
  awk '!seen[$0]++' "${csv[@]}"
} >"$file"
echo
python3 bench/gpu_table.py "$file" || cat "$file"
echo
echo "$file, after $((SECONDS - begin)) s${emulated:+; EMULATED: these times mean nothing}"
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
