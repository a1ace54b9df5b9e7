#!/usr/bin/env bash
# A worker group on two hosts: two network namespaces joined by a veth pair, each with its own host name. mpirun starts
# ranks in both (its "ssh" enters the namespace), MPI and heartbeats go over TCP between them.
#
#   tests/e2e/multihost.sh BUILD MODEL          as root; skips with a line (exit 77) where namespaces are not allowed
#
# Passes when 3 ranks, two here and one there, give the tokens that one rank gives: by themselves, in one stage and in two (each on a
# host, its sums through shared memory), as octant-worker driven by a fake coordinator, and, in two stages, behind the real one, asked
# over HTTP.
set -euo pipefail
build=$(realpath "${1:-build}")
model=$(realpath "${2:?usage: multihost.sh BUILD MODEL}")
here=octant-a-$$ there=octant-b-$$
work=$(mktemp -d)

skip() { echo "skipped: $1"; exit 77; }
cleanup() {
    for pid in ${coordinator:-} ${workers:-}; do kill "$pid" 2>/dev/null || true; done
    ip netns del "$here" 2>/dev/null || true
    ip netns del "$there" 2>/dev/null || true
    rm -rf "$work"
}
[ "$(id -u)" = 0 ] || skip "not root"
command -v ip >/dev/null && command -v mpirun >/dev/null || skip "ip or mpirun is missing"
trap cleanup EXIT
ip netns add "$here" 2>/dev/null || skip "network namespaces are not allowed here"
ip netns add "$there"
# In a chroot they can be made and not entered: its root is no mount point.
ip netns exec "$here" true 2>/dev/null || skip "network namespaces cannot be entered here"
ip link add va type veth peer name vb netns "$there" netns "$here" 2>/dev/null ||
    { ip link add "va$$" type veth peer name "vb$$"; ip link set "va$$" netns "$here" name va; ip link set "vb$$" netns "$there" name vb; }
ip -n "$here" addr add 10.77.0.1/24 dev va
ip -n "$there" addr add 10.77.0.2/24 dev vb
for end in "$here lo" "$here va" "$there lo" "$there vb"; do
    # shellcheck disable=SC2086
    set -- $end
    ip -n "$1" link set "$2" up
done

# What mpirun takes for ssh: HOST COMMAND... The other host has another name, too.
cat >"$work/agent" <<AGENT
#!/bin/sh
shift
exec ip netns exec $there unshare --uts sh -c "hostname $there; \$*"
AGENT
chmod +x "$work/agent"
printf '10.77.0.1 slots=2\n10.77.0.2 slots=1\n' >"$work/hosts"

run_here() { ip netns exec "$here" unshare --uts sh -c "hostname $here; exec \"\$@\"" sh "$@"; }
on_both() {
    run_here timeout 120 mpirun --allow-run-as-root --oversubscribe --bind-to none -n 3 --hostfile "$work/hosts" \
        --mca plm_rsh_agent "$work/agent" --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include 10.77.0.0/24 \
        --mca oob_tcp_if_include 10.77.0.0/24 "$@"
}

prompt="504 3575 282 4649 314"
timeout 120 "$build/tests/generate" "$model" --tokens "$prompt" --max-tokens 24 >"$work/alone" 2>/dev/null
on_both "$build/tests/generate" "$model" --tokens "$prompt" --max-tokens 24 >"$work/together" 2>"$work/log" ||
    { cat "$work/log"; echo "failed: generate on two hosts"; exit 1; }
grep -h "ranks=3" "$work/log"
grep -q "transport=mpi" "$work/log" || { echo "failed: the ranks were not joined by MPI"; exit 1; }
cmp "$work/alone" "$work/together" || { echo "failed: other tokens on two hosts"; exit 1; }
on_both "$build/tests/generate" "$model" --stages 2 --tokens "$prompt" --max-tokens 24 >"$work/together" 2>"$work/log" ||
    { cat "$work/log"; echo "failed: generate in a stage on each host"; exit 1; }
echo "in a stage on each host: $(grep -h "ranks=3" "$work/log")"
cmp "$work/alone" "$work/together" || { echo "failed: other tokens from two stages"; exit 1; }
if grep "several hosts" "$work/log"; then echo "failed: a stage is on two hosts"; exit 1; fi

ip netns exec "$here" "$build/tests/fake_coordinator" --address 10.77.0.1:50099 --tokens "$prompt" --max-tokens 24 >"$work/coordinator" &
coordinator=$!
on_both "$build/bin/octant-worker" --coordinator 10.77.0.1:50099 --model "$model" --kv-memory 64MiB --threads 1 >"$work/log" 2>&1 ||
    { cat "$work/log" "$work/coordinator"; echo "failed: octant-worker on two hosts"; exit 1; }
wait "$coordinator"
coordinator=
tokens=$(sed -n 's/^token //p' "$work/coordinator" | tr '\n' ' ')
[ "$tokens" = "$(cat "$work/alone") " ] || { cat "$work/coordinator"; echo "failed: other tokens from octant-worker"; exit 1; }
grep -q "^rank 2 " "$work/coordinator" || { echo "failed: no heartbeat of rank 2"; exit 1; }

# The same with the real coordinator, asked over HTTP.
ask() { ip netns exec "$here" curl -s --max-time 60 "$@"; }
ip netns exec "$here" "$build/bin/octant-coordinator" --http 10.77.0.1:8080 --grpc 10.77.0.1:50051 >"$work/coordinator" 2>&1 &
coordinator=$!
on_both "$build/bin/octant-worker" --coordinator 10.77.0.1:50051 --model "$model" --kv-memory 64MiB --threads 1 --stages 2 >"$work/log" 2>&1 &
workers=$!
for _ in $(seq 300); do
    [ "$(ask -o "$work/health" -w '%{http_code}' http://10.77.0.1:8080/health)" != 200 ] || break
    sleep 0.2
done
body="{\"prompt\": [${prompt// /,}], \"max_tokens\": 24, \"temperature\": 0}"
ask http://10.77.0.1:8080/v1/completions -H 'Content-Type: application/json' -d "$body" >"$work/answer"
ask http://10.77.0.1:8080/status >"$work/status"
kill "$coordinator"
wait "$coordinator" || { cat "$work/coordinator"; echo "failed: the coordinator did not end in order"; exit 1; }
coordinator=
wait "$workers" || true # its coordinator is gone: it says so and ends
timeout 120 "$build/tests/generate" "$model" --tokens "$prompt" --max-tokens 24 --text >"$work/text" 2>/dev/null
python3 - "$work" <<'PYTHON' || { cat "$work/log" "$work/answer" "$work/status"; echo "failed: the answer over HTTP"; exit 1; }
import json, sys
work = sys.argv[1]
answer = json.load(open(work + "/answer"))["choices"][0]["text"]
ranks = json.load(open(work + "/status"))["groups"][0]["ranks"]
assert answer == open(work + "/text").read()[:-1], answer
assert len(ranks) == 3 and len({rank["host"] for rank in ranks}) == 2, ranks
PYTHON
echo "passed: 3 ranks on 2 hosts, the tokens of 1 rank; served over HTTP"
