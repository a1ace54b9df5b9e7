"""Hurts worker groups again and again while clients stream, and checks that no client ever sees it. Started by run.sh, which says how."""
import argparse
import json
import math
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import hosts as machines
from groups import Group
from streams import Streams

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 90  # seconds that a group may take to serve again on a busy machine
SETTLE = 1.0  # between a group's return and the next fault


def options():
    p = argparse.ArgumentParser()
    p.add_argument("--faults", type=int, default=200)
    p.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    p.add_argument("--model", type=pathlib.Path, help="GGUF file; default: a small random Llama")
    p.add_argument("--streams", type=int, default=100)
    p.add_argument("--tokens", type=int, default=300, help="of each answer")
    p.add_argument("--minutes", type=float, default=1e9, help="no new fault after so many")
    p.add_argument("--seed", type=int, default=int(time.time()))
    p.add_argument("--one-host", action="store_true", help="no network namespaces: links are not cut")
    p.add_argument("--kinds", default="", help="only these, by comma")
    p.add_argument("--keep-logs", action="store_true")
    return p.parse_args()


class Cluster:
    """A coordinator and two groups of two ranks."""

    def __init__(self, o, folder, net):
        self.o, self.folder, self.net, self.groups = o, folder, net, []
        address = net.address[net.hub] if net else "127.0.0.1"
        model = o.model or folder / "tiny.gguf"
        if not o.model:
            subprocess.run([sys.executable, ROOT / "tests/golden/make_random_llama.py", "--preset", "tiny", "--gguf", model, "--dtype", "f32"],
                           check=True, stdout=subprocess.DEVNULL)
        listening = folder / "addresses"
        with open(folder / "coordinator.log", "wb") as log:
            self.coordinator = subprocess.Popen(
                [str(o.build / "bin/octant-coordinator"), "--http", f"{address}:0", "--grpc", f"{address}:0", "--address-file",
                 str(listening), "--max-seqs", str(max(64, o.streams))], stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0)
        wait_for(listening.exists, 30, "the coordinator listens")
        values = dict(line.split("=", 1) for line in listening.read_text().splitlines())
        self.http, grpc = "http://" + values["http"], values["grpc"]
        if net:
            net.write_agent(folder / "agent")
        for g in range(2):
            names = net.names[2 * g:2 * g + 2] if net else ()
            self.groups.append(Group(f"group{g}", o.build, grpc, model, 2, folder, net, names))

    def start(self):
        for i, group in enumerate(self.groups):
            group.start()
        wait_for(lambda: len(self.ready()) == 2, PATIENCE, "both groups are ready")

    def end(self):
        for group in self.groups:
            group.end()
        self.coordinator.terminate()
        try:
            self.coordinator.wait(40)
        except subprocess.TimeoutExpired:
            self.coordinator.kill()

    def status(self):
        with urllib.request.urlopen(self.http + "/status", timeout=10) as response:
            return json.load(response)["groups"]

    def ready(self):
        """Pids of the ranks of each READY group -> its id."""
        return {tuple(r["pid"] for r in g["ranks"]): g["id"] for g in self.status() if g["state"] == "READY"}

    def id_of(self, group):
        """The READY group that these ranks are registered as; None: not now."""
        return self.ready().get(tuple(group.ranks()))

    def lost(self, group_id):
        """Why that group was lost; None: it was not."""
        return next((g["reason"] for g in self.status() if g["id"] == group_id and g["state"] == "LOST"), None)


# ---- the faults; each returns what is to be done once the loss was seen ----

def kill_rank(cluster, group, rng):
    rank = rng.randrange(2)
    os.kill(group.ranks()[rank], signal.SIGKILL)
    return None, f"rank {rank}"


def kill_mpirun(cluster, group, rng):
    group.process.kill()
    return None, "mpirun"


def stop_rank(cluster, group, rng):
    """For good, or for so short that the group may come back by itself."""
    rank = rng.randrange(2)
    pid = group.ranks()[rank]
    os.kill(pid, signal.SIGSTOP)
    if rng.random() < 0.5:
        return None, f"rank {rank}, for good"
    return lambda: (time.sleep(rng.random()), silently(os.kill, pid, signal.SIGCONT)), f"rank {rank}, for a while"


def cut_link(cluster, group, rng):
    name = rng.choice(group.names)
    cluster.net.link(name, "down")
    seconds = rng.uniform(0.5, 4)
    return lambda: (time.sleep(seconds), cluster.net.link(name, "up")), f"host of rank {group.names.index(name)}"


def restart_group(cluster, group, rng):
    group.process.terminate()
    return None, "SIGTERM to mpirun"


def silently(call, *arguments):
    try:
        call(*arguments)
    except OSError:
        pass


KINDS = {"kill -9 of a rank": kill_rank, "kill -9 of mpirun": kill_mpirun, "SIGSTOP of a rank": stop_rank, "link cut": cut_link,
         "group restarted": restart_group}


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if value := condition():
                return value
        except (OSError, ValueError):
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def percentile(values, p):
    return sorted(values)[max(0, math.ceil(p / 100 * len(values)) - 1)] if values else float("nan")


class Times:
    """Of each kind: fault to LOST, fault to the first text of every stream again, fault to the group's return."""

    def __init__(self):
        self.of = {kind: {"detected": [], "streams": [], "group": []} for kind in KINDS}

    def show(self):
        print(f"{'':20} {'faults':>6}  {'detected [s]':^15}  {'next text [s]':^15}  {'group back [s]':^15}")
        print(f"{'':20} {'':>6}  {'p50':>7} {'p99':>7}  {'p50':>7} {'p99':>7}  {'p50':>7} {'p99':>7}")
        for kind, t in self.of.items():
            if t["detected"]:
                cells = "  ".join(f"{percentile(t[k], 50):7.2f} {percentile(t[k], 99):7.2f}" for k in ("detected", "streams", "group"))
                print(f"{kind:20} {len(t['detected']):6}  {cells}")


def hurt(cluster, streams, kind, rng, times):
    """One fault, from two READY groups to two READY groups."""
    group = rng.choice(cluster.groups)
    group_id = wait_for(lambda: cluster.id_of(group), PATIENCE, f"{group.name} is ready")
    begin = time.monotonic()
    then, what = KINDS[kind](cluster, group, rng)
    reason = wait_for(lambda: cluster.lost(group_id), 30, f"{group.name} ({group_id}) is LOST after {kind} ({what})")
    detected = time.monotonic() - begin
    resumed = None
    if then:
        then()
    deadline = begin + PATIENCE
    while resumed is None or not back(cluster, group, group_id):
        if resumed is None and streams.waiting_since(begin) == 0:
            resumed = max(time.monotonic() - begin, 0)
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE} s: {group.name} serves again after {kind} ({what})")
        time.sleep(0.01)
    returned = time.monotonic() - begin
    for name, value in (("detected", detected), ("streams", resumed), ("group", returned)):
        times.of[kind][name].append(value)
    return f"{kind}, {group.name}, {what}: lost after {detected:.2f} s, text {resumed:.2f} s, back {returned:.2f} s: {reason}"


def back(cluster, group, old_id):
    try:
        return cluster.id_of(group) not in (None, old_id)
    except (OSError, ValueError):
        return False


def torment(o, cluster, streams, times):
    rng = random.Random(o.seed)
    kinds = [k for k in KINDS if (cluster.net or KINDS[k] is not cut_link) and (not o.kinds or any(w in k for w in o.kinds.split(",")))]
    end = time.monotonic() + 60 * o.minutes
    for n in range(o.faults):
        if time.monotonic() > end:
            break
        kind = kinds[n % len(kinds)]
        print(f"{n + 1:4} {hurt(cluster, streams, kind, rng, times)}", flush=True)
        time.sleep(SETTLE * rng.uniform(0.5, 1.5))


def main(o, net, folder):
    cluster, faults = Cluster(o, folder, net), 0
    times = Times()
    failed = None
    try:
        cluster.start()
        streams = Streams(cluster.http, o.streams, o.tokens)
        streams.learn()
        begin = time.monotonic()
        streams.start()
        wait_for(lambda: streams.requests > 0 or streams.errors, PATIENCE, "the first stream ends")
        print(f"seed {o.seed}; {o.streams} streams; an undisturbed answer takes {time.monotonic() - begin:.1f} s", flush=True)
        try:
            torment(o, cluster, streams, times)
        except AssertionError as error:
            failed = error
        ended = streams.stop()
        if not ended:
            streams.lost += streams.count
    finally:
        cluster.end()
    faults = sum(len(t["detected"]) for t in times.of.values())
    for i, error in streams.errors[:20]:
        print(f"stream {i}: {error}")
    times.show()
    if failed:
        print(f"failed: {failed}")
    print(f"groups were started {', '.join(str(g.starts) for g in cluster.groups)} times; {streams.different} texts differed")
    print(f"{faults} faults, {streams.requests} requests, {streams.lost} lost, {len(streams.errors)} errors")
    return not failed and not streams.lost and not streams.errors


def run():
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started this in the background
        signal.signal(number, lambda *_: sys.exit("stopped"))
    o = options()
    why_not = "--one-host" if o.one_host else machines.allowed()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="octant-fault-"))
    os.environ.setdefault("HWLOC_COMPONENTS", "-gl")
    os.environ.setdefault("OMPI_MCA_odls_base_sigkill_timeout", "0")  # as in deploy/systemd
    good = False
    try:
        if why_not:
            print(f"all ranks on this host, no link is cut: {why_not}")
            good = main(o, None, folder)
        else:
            with machines.Hosts(4) as net, machines.within(net.hub):
                good = main(o, net, folder)
    finally:
        if o.keep_logs or not good:
            print(f"logs are in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(run())
