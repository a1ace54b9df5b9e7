#!/usr/bin/env bash
# Real processes under fire: a coordinator, 2 groups of 2 ranks, each rank a host of its own (network namespaces), 100 greedy streams
# without a pause, and every few seconds one of: kill -9 of a rank, kill -9 of mpirun, SIGSTOP of a rank (for good, or for a moment),
# a host's link cut and mended, a group ended and started again. Groups that end are started again, as systemd would.
#
#   tests/fault/run.sh [--faults 200] [--build build] [--model FILE.gguf] [--streams 100] [--seed N] [--one-host] [--kinds kill,cut]
#
# Passes when every request ended, none with an error, and every text was the undisturbed run's. Prints for each kind of fault the time
# to its detection, to the next text of every stream, and to the group's return; the last line is
#   N faults, R requests, 0 lost, 0 errors
# Needs root for network namespaces; without, or with --one-host, all ranks are on this host and no link is cut.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=python3
[ ! -x "$here/../../.venv/bin/python" ] || python=$here/../../.venv/bin/python
"$python" -c 'import numpy' 2>/dev/null || {
  echo "run.sh: the model is made with numpy, which $python lacks; deploy/check.sh e2e makes .venv, or pip install -r tests/requirements.txt" >&2
  exit 1
}
export PYTHONDONTWRITEBYTECODE=1
exec "$python" "$here/faults.py" "$@"
