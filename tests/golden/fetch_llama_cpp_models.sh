#!/usr/bin/env bash
# Prints the path of llama.cpp's models/ folder (ggml-vocab-*.gguf with .inp and .out, templates/*.jinja), which the
# source archive of llama-cpp-python carries. The first call takes the archive from PyPI into
# ${XDG_CACHE_HOME:-$HOME/.cache}/octant; later calls take nothing. Nothing of it is built, installed or committed.
#
#   models=$(tests/golden/fetch_llama_cpp_models.sh)        PYTHON=... chooses the Python whose pip is used
set -eu

version=0.3.36
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
name=llama_cpp_python-$version
cache=${XDG_CACHE_HOME:-$HOME/.cache}/octant
models=$cache/$name/models

if [ ! -d "$models" ]; then
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # A pinned hash makes pip refuse any other archive. --no-binary names this package alone, so that what pip needs to
    # read the archive's metadata comes as wheels; metadata is all that it prepares.
    echo "llama-cpp-python==$version --hash=sha256:$sha256" >"$work/requirements.txt"
    if ! "${PYTHON:-python3}" -m pip download --quiet --no-deps --require-hashes --no-binary llama-cpp-python \
        --dest "$work" -r "$work/requirements.txt" >&2; then
        echo "fetch_llama_cpp_models: pip could not get llama-cpp-python $version; is an index reachable?" >&2
        exit 1
    fi
    tar -xzf "$work/$name.tar.gz" -C "$work" --strip-components=3 --wildcards "$name/vendor/llama.cpp/models/*"
    mkdir -p "$cache/$name"
    # The rename makes it whole or absent; a second caller that came first has the same bytes.
    mv -T "$work/models" "$models" 2>/dev/null || [ -d "$models" ]
fi
echo "$models"
