#!/usr/bin/env bash
# From nothing to an answer: installs packages that are missing, builds, gets a model, starts a coordinator and one group of ranks.
# On a terminal it then opens a chat; otherwise it streams one answer, prints tokens/s and stops all that it started.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'TXT'
usage: deploy/quickstart.sh [options]
  --model PATH     a GGUF file or a Hugging Face folder, or what deploy/get-model.sh fetches: OWNER/NAME[:FILE] of a
                   Hugging Face hub, a GGUF's URL (default: smollm2-135m)
  --ranks N        tensor-parallel ranks (default 2)
  --prompt TEXT    answer this one prompt instead of opening a chat
  --keep           leave the cluster serving in front until Ctrl-C
TXT
}

model='' ranks=2 prompt='' keep=false
while [ $# -gt 0 ]; do
  case $1 in
    --model | --ranks | --prompt)
      [ $# -ge 2 ] || { echo "quickstart.sh: $1 needs a value" >&2; exit 2; }
      case $1 in --model) model=$2 ;; --ranks) ranks=$2 ;; --prompt) prompt=$2 ;; esac
      shift 2 ;;
    --keep) keep=true; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "quickstart.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
done

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
[ -t 2 ] || say() { printf '==> %s\n' "$*" >&2; }

# What is started here ends with this shell, even when that is killed.
tied=(setpriv --pdeathsig TERM)
say "packages"
"${tied[@]}" deploy/packages.sh
say "build"
cuda=OFF # compiling for cards takes minutes: only where there is one
[ ! -e /dev/nvidiactl ] || cuda=AUTO
"${tied[@]}" deploy/build.sh build -DOCTANT_TESTS=OFF -DOCTANT_CUDA=$cuda
say "model"
[ -e "$model" ] || model=$("${tied[@]}" deploy/get-model.sh "${model:-smollm2-135m}")
say "$ranks rank(s) of $model"

# exec: Ctrl-C and SIGTERM reach the program that owns the cluster.
if $keep; then
  exec build/bin/octant up "$model" --ranks "$ranks"
elif [ -n "$prompt" ]; then
  exec build/bin/octant run --up "$model" --ranks "$ranks" --stats --temperature 0.2 --top-p 0.9 --max-tokens 256 "$prompt"
elif [ -t 0 ] && [ -t 1 ]; then
  exec build/bin/octant chat --up "$model" --ranks "$ranks" --temperature 0.2 --top-p 0.9
else
  exec build/bin/octant run --up "$model" --ranks "$ranks" --stats --temperature 0 --max-tokens 256 "Write one sentence about the sea."
fi
