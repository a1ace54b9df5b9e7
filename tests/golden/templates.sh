#!/usr/bin/env bash
# Compares the chat templates with transformers: fetches what the comparison needs (see fetch_llama_cpp_models.sh and
# deploy/get-model.sh), then runs both scripts. The Python has tests/requirements.txt.
#   tests/golden/templates.sh [BUILD [PYTHON]]        default: build .venv/bin/python
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${1:-build} python=${2:-.venv/bin/python}
tool=$build/tests/render_template
[ -x "$tool" ] || { echo "templates: $tool is missing; build the target tool_render_template" >&2; exit 2; }
model=$("$here/../../deploy/get-model.sh" smollm2-135m)
models=$("$here/fetch_llama_cpp_models.sh")
export PYTHONDONTWRITEBYTECODE=1
"$python" "$here/template_cases.py" "$tool"
"$python" "$here/template_compare.py" "$tool" --gguf smollm2="$model" --templates "$models/templates"
