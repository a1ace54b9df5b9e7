#!/usr/bin/env python3
"""What safety costs: tokens/s of one cluster with and without health monitor, router, ledger and event log, in turn within one run.

    bench/overhead.py [MODEL.gguf]      default: SmolLM2-135M Q4_1
    --pairs 10 --requests 64 --concurrency 16 --max-tokens 64 --ranks 1 --threads 2 --build build --out bench/results/overhead.json

With: a heartbeat of each rank every 100 ms (a silent one gets 30 s here, so that a busy machine loses no group); every prompt looked
at by all detectors, scored, redacted and made ready to leave; a usage row of each request; the event log. Without: a heartbeat every 30 s, no routing file, no data directory. Each pair starts both, in an
order that alternates, and gives one ratio; medians of ratios are reported, with the interval in which 90 % of bootstrapped medians lie.
Wall clocks are only as good as the machine is quiet, so the processors' time of all processes per token is compared as well: that is
what the same machine could not do for somebody else meanwhile."""
import argparse
import importlib
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
ROUTING = """
upstreams:
  outside: {api: openai-chat, base-url: "http://127.0.0.1:9/v1", model: none}
privacy:
  default: redact-then-leave
  detectors: {email: redact, phone: redact, card: local-only, iban: local-only, us-ssn: local-only}
  patterns:
    - {name: ticket, regex: 'TCK-[0-9]{6}', action: redact}
complexity: {medium: 0.10, hard: 0.48}
routes:
  - {name: hard, match: {complexity: [hard]}, upstreams: [outside], midstream: continue}
  - {name: all, upstreams: [outside]}
budgets: {all: {per-day: 50}}
local-cost: {gpu-hour: 2.50}
"""


def cluster_module(build):
    """The tests' cluster of real processes, of this build."""
    os.environ["OCTANT_BUILD"] = str(build)
    if str(ROOT / "tests/e2e") not in sys.path:
        sys.path.insert(0, str(ROOT / "tests/e2e"))
    return importlib.import_module("cluster")


def processor_seconds(pids):
    total = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def run(o, arguments):
    """(tokens/s, processor seconds of coordinator and ranks per 1000 tokens, of them the coordinator's)"""
    module = cluster_module(o.build)
    with module.Cluster(o.model, ranks=o.ranks, threads=o.threads, name="bench", coordinator_args=arguments) as cluster:
        module.wait_for(lambda: '"READY"' in cluster.get("/status")[1], 60, log=cluster.log)  # /health is good once an upstream may be asked
        ranks = cluster.rank_pids(0)
        load = [o.build / "bin/bench-serve", "--url", cluster.http + "/v1/chat/completions", "--concurrency", o.concurrency,
                "--max-tokens", o.max_tokens, "--json", "-"]  # no --ignore-eos: what only Octant knows is not looked at, as it cannot leave
        subprocess.run([str(word) for word in load + ["--requests", o.concurrency]], check=True, stdout=subprocess.DEVNULL)  # warm
        before = processor_seconds(ranks), processor_seconds([cluster.coordinator.pid])
        done = subprocess.run([str(word) for word in load + ["--requests", o.requests]], check=True, stdout=subprocess.PIPE, text=True)
        after = processor_seconds(ranks), processor_seconds([cluster.coordinator.pid])
        page = cluster.get("/metrics")[1]
        assert "octant_groups_lost_total 0" in page and "octant_preemptions_total 0" in page, "a group was lost, or KV blocks ran out"
    result = json.loads(done.stdout[done.stdout.index("{"):])
    assert not result["errors"], result
    thousands = result["completion_tokens"] / 1000
    mine = (after[1] - before[1]) / thousands
    return result["tokens_per_second"], (after[0] - before[0]) / thousands + mine, mine


def interval(values, seed=1):
    draw = random.Random(seed)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(2000))
    return medians[100], medians[1899]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    for name, value in (("pairs", 10), ("requests", 64), ("concurrency", 16), ("max-tokens", 64), ("ranks", 1), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--out", type=pathlib.Path)
    o = parser.parse_args()
    o.build = o.build.resolve()
    if not o.model:
        o.model = subprocess.run([ROOT / "deploy/get-model.sh", "smollm2-135m"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        routing = pathlib.Path(folder) / "octant.yaml"
        routing.write_text(ROUTING)
        for pair in range(o.pairs):
            kinds = {"without": ["--heartbeat", "30s", "--heartbeat-timeout", "120s"],
                     "with": ["--heartbeat", "100ms", "--heartbeat-timeout", "30s", "--routing", routing, "--data-dir", f"{folder}/data{pair}",
                              "--prices", ROOT / "deploy/prices.json", "--event-log", f"{folder}/events{pair}"]}
            order = sorted(kinds, reverse=pair % 2 == 0)
            measured = {kind: run(o, kinds[kind]) for kind in order}
            pairs.append(measured)
            print(f"pair {pair + 1:2d}: with {measured['with'][0]:7.1f} tokens/s, without {measured['without'][0]:7.1f}, "
                  f"ratio {measured['with'][0] / measured['without'][0]:.4f}; processor time with "
                  f"{measured['with'][1]:.3f} s per 1000 tokens, without {measured['without'][1]:.3f} "
                  f"(coordinator {measured['with'][2]:.3f}, {measured['without'][2]:.3f})", flush=True)
    speed = [p["with"][0] / p["without"][0] for p in pairs]
    work = [p["with"][1] / p["without"][1] for p in pairs]
    mine = statistics.median(p["with"][2] - p["without"][2] for p in pairs) / statistics.median(p["without"][1] for p in pairs)
    for name, ratios in (("throughput with / without", speed), ("processor time with / without", work)):
        low, high = interval(ratios)
        print(f"{name}: {statistics.median(ratios):.4f} (median of {len(ratios)} pairs; 90 % interval {low:.4f} to {high:.4f})")
    print(f"the coordinator's own extra processor time: {100 * mine:.2f} % of all processor time")
    if o.out:
        o.out.write_text(json.dumps({"model": pathlib.Path(o.model).name, "ranks": o.ranks, "threads": o.threads, "requests": o.requests,
                                     "concurrency": o.concurrency, "max_tokens": o.max_tokens, "pairs": pairs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
