"""What happens when a rank dies or stands still: the coordinator stays, names the rank within about a second, every request gets one
clear end, and `octant up` brings the group back."""
import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request

import pytest

from cluster import BIN, Cluster, descendants, end, wait_for


def stream_until_end(http, body, events):
    """Collects a stream's SSE data lines; None at its end, however it came."""
    try:
        request = urllib.request.Request(http + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            for line in response:
                if line.startswith(b"data: "):
                    events.append(line[6:].decode().strip())
    except OSError as error:
        events.append(f"broken: {error}")
    events.append(None)


def start_streams(http, count, tokens):
    lists = [[] for _ in range(count)]
    for i, events in enumerate(lists):
        body = {"model": "", "prompt": f"stream {i}", "max_tokens": tokens, "stream": True, "ignore_eos": True, "temperature": 0}
        threading.Thread(target=stream_until_end, args=(http, body, events), daemon=True).start()
    return lists


def group_states(cluster):
    return [(g["state"], g.get("reason", "")) for g in json.loads(cluster.get("/status")[1])["groups"]]


STAGES = ["--stages", "2"]  # of two ranks, the leader's is the last stage


@pytest.mark.parametrize("how, rank, stages",
                         [(signal.SIGKILL, 1, STAGES), (signal.SIGKILL, 0, ()), (signal.SIGSTOP, 1, ()), (signal.SIGSTOP, 0, STAGES)])
def test_rank_loss_is_seen_named_and_ends_requests(tiny_model, how, rank, stages):
    with Cluster(tiny_model, ranks=2, worker_args=stages, coordinator_args=["--no-group-wait", "2s"]) as cluster:
        streams = start_streams(cluster.http, 8, 3000)
        wait_for(lambda: all(len(events) > 3 for events in streams), 20)
        os.kill(cluster.rank_pids()[rank], how)
        begin = time.monotonic()
        wait_for(lambda: any(state == "LOST" for state, _ in group_states(cluster)), 5)
        seen = time.monotonic() - begin
        reason = next(reason for state, reason in group_states(cluster) if state == "LOST")
        print(f"{how.name} of rank {rank}: LOST after {seen:.2f} s: {reason}")
        assert re.search(rf"\brank {rank} \(\S+, pid \d+{f', stage {1 - rank}, its rank 0' if stages else ''}\)", reason), reason
        assert cluster.get("/health")[0] == 503
        # They wait for a group to go on with; none comes: each ends once, with an error and without [DONE].
        wait_for(lambda: all(events[-1] is None for events in streams), 20)
        for events in streams:
            assert events.count(None) == 1
            assert "[DONE]" not in events
            assert "error" in events[-2], events[-2]
        assert cluster.coordinator.poll() is None


def test_all_tell_the_same_of_a_loss(tiny_model, tmp_path):
    """/status, /health, /metrics, octant status, the event log and Watch: one loss, one code, one rank."""
    events = tmp_path / "events"
    with Cluster(tiny_model, ranks=2, coordinator_args=["--event-log", events]) as cluster:
        assert "last_loss" not in json.loads(cluster.get("/health")[1])
        ranks = json.loads(cluster.get("/status")[1])["groups"][0]["ranks"]
        assert len(ranks) == 2 and all(rank["memory_bytes"] > 1 << 20 for rank in ranks), ranks
        os.kill(cluster.rank_pids()[1], signal.SIGSTOP)
        wait_for(lambda: any(state == "LOST" for state, _ in group_states(cluster)), 5)
        lost = next(g for g in json.loads(cluster.get("/status")[1])["groups"] if g["state"] == "LOST")
        assert lost["loss"] == "silent" and "rank 1 " in lost["reason"] and lost["lost_ms"] >= 0, lost
        last = json.loads(cluster.get("/health")[1])["last_loss"]
        assert (last["group"], last["loss"], last["reason"]) == (lost["id"], "silent", lost["reason"])
        metrics = cluster.get("/metrics")[1]
        assert 'octant_group_losses_total{loss="silent"} 1\n' in metrics
        assert 'octant_group_losses_total{loss="stream-closed"} 0\n' in metrics
        assert 'octant_events_total{kind="group-lost"} 1\n' in metrics
        shown = subprocess.run([BIN / "octant", "status", "--server", cluster.grpc], capture_output=True, text=True, check=True).stdout
        assert re.search(rf"group {lost['id']}  LOST.*\n  silent, \d+ s ago: {re.escape(lost['reason'])}", shown), shown
        wait_for(lambda: "group-lost" in events.read_text(), 5)
        lines = [json.loads(line) for line in events.read_text().splitlines()]
        assert [e["kind"] for e in lines[:3]] == ["group-registered", "group-ready", "group-lost"], lines
        assert [e["sequence"] for e in lines] == list(range(1, len(lines) + 1))
        told = lines[2]
        assert (told["group"], told["loss"], told["rank"], told["text"]) == (lost["id"], "silent", 1, lost["reason"])
        assert told["host"] and told["epoch"] == lost["epoch"]


def test_streams_go_on_with_the_next_group(tiny_model):
    """A lost group costs a pause: what was streamed and what follows is the answer that nobody interrupted."""
    with Cluster(tiny_model, ranks=2) as cluster:
        body = {"model": "", "prompt": "stream 0", "max_tokens": 3000, "ignore_eos": True, "temperature": 0}
        whole = json.loads(cluster.post("/v1/completions", body)[1])["choices"][0]["text"]
        with cluster.slowed():
            streams = start_streams(cluster.http, 1, 3000)
            wait_for(lambda: len(streams[0]) > 20, 20)
            os.kill(cluster.rank_pids()[1], signal.SIGKILL)
            wait_for(lambda: not cluster.healthy(), 5)
        assert streams[0][-1] is not None, "the stream had ended before the loss"
        cluster.start_group(ranks=3, worker_args=STAGES)
        wait_for(lambda: streams[0][-1] is None, 60)
        assert streams[0][-2] == "[DONE]"
        text = "".join(c["text"] for e in streams[0][:-2] for c in json.loads(e)["choices"])
        assert text == whole


def test_a_new_group_serves_after_a_loss(tiny_model):
    with Cluster(tiny_model, ranks=2) as cluster:
        before = cluster.post("/v1/completions", {"model": "", "prompt": "again", "max_tokens": 24, "temperature": 0})
        os.kill(cluster.rank_pids()[1], signal.SIGKILL)
        wait_for(lambda: not cluster.healthy(), 5)
        end(cluster.groups[0])
        cluster.start_group()
        cluster.wait_ready()
        after = cluster.post("/v1/completions", {"model": "", "prompt": "again", "max_tokens": 24, "temperature": 0})
        assert json.loads(before[1])["choices"] == json.loads(after[1])["choices"]


def test_a_group_ends_with_its_coordinator(tiny_model):
    """The orderly end, MPI's included: in an instrumented build this is where a rank's leaks show."""
    with Cluster(tiny_model, ranks=3, worker_args=STAGES) as cluster:
        cluster.coordinator.send_signal(signal.SIGTERM)
        assert cluster.coordinator.wait(30) == 0
        assert cluster.groups[0].wait(30) == 0, cluster.log()


def test_a_group_outlives_a_coordinator_that_was_killed(tiny_model):
    """kill -9 of the coordinator: no rank ends, and the group serves within 2 s of the next one's start, with the weights that it has."""
    with Cluster(tiny_model, ranks=3, worker_args=STAGES) as cluster:
        body = {"model": "", "prompt": "again", "max_tokens": 24, "temperature": 0}
        before = json.loads(cluster.post("/v1/completions", body)[1])["choices"]
        ranks = cluster.rank_pids()
        for gone in (0, 3):  # seconds: at once, and when the ranks have long been dialling
            cluster.kill_coordinator()
            time.sleep(gone)
            cluster.start_coordinator(again=True)
            begin = time.monotonic()
            cluster.wait_ready()
            print(f"coordinator away for {gone} s: serving {time.monotonic() - begin:.2f} s after it listens")
            assert json.loads(cluster.post("/v1/completions", body)[1])["choices"] == before
        assert cluster.rank_pids() == ranks
        assert "loading anew" not in cluster.log()
        group = next(g for g in json.loads(cluster.get("/status")[1])["groups"] if g["state"] == "READY")
        assert [(r["stage"], r["tp_rank"]) for r in group["ranks"]] == [(1, 0), (1, 1), (0, 0)] and group["stages"] == 2
        # Each rank counts what all stages do.
        wait_for(lambda: len({(r["step"], r["collective"]) for r in json.loads(cluster.get("/status")[1])["groups"][-1]["ranks"]}) == 1, 5)


def test_a_coordinator_killed_under_load(tiny_model, tmp_path):
    """Two groups and running streams: clients see a closed connection, no rank ends, both groups are back at once, and so are the books."""
    with Cluster(tiny_model, ranks=2, coordinator_args=["--data-dir", tmp_path]) as cluster:
        cluster.start_group()
        wait_for(lambda: [state for state, _ in group_states(cluster)].count("READY") == 2, 60)
        ranks = [cluster.rank_pids(group) for group in (0, 1)]
        assert cluster.post("/v1/completions", {"model": "", "prompt": "in the books", "max_tokens": 4})[0] == 200
        for _ in range(3):
            streams = start_streams(cluster.http, 16, 3000)
            wait_for(lambda: all(len(events) > 3 for events in streams), 20)
            cluster.kill_coordinator()
            wait_for(lambda: all(events[-1] is None for events in streams), 20)
            assert all("[DONE]" not in events for events in streams)
            cluster.start_coordinator(again=True)
            begin = time.monotonic()
            wait_for(lambda: [state for state, _ in group_states(cluster)].count("READY") == 2, 60)
            print(f"two groups ready {time.monotonic() - begin:.2f} s after the coordinator listens again")
        assert [cluster.rank_pids(group) for group in (0, 1)] == ranks
        subprocess.run([BIN / "octant", "audit", "verify", "--data-dir", tmp_path], check=True)


def test_a_group_loads_anew_when_the_limits_are_others(tiny_model):
    with Cluster(tiny_model, ranks=2, worker_args=STAGES) as cluster:
        ranks = cluster.rank_pids()
        cluster.kill_coordinator()
        cluster.coordinator_args = ["--block-tokens", "32"]
        cluster.start_coordinator(again=True)
        cluster.wait_ready()
        assert cluster.post("/v1/completions", {"model": "", "prompt": "again", "max_tokens": 4})[0] == 200
        assert cluster.rank_pids() == ranks
        assert "loading anew" in cluster.log()


def test_ranks_give_up_on_a_coordinator_that_stays_away(tiny_model):
    with Cluster(tiny_model, ranks=2, worker_args=["--reconnect-timeout", "1s"]) as cluster:
        cluster.kill_coordinator()
        assert cluster.groups[0].wait(60) != 0
        assert cluster.log().count("no coordinator answers") == 1, cluster.log()


def test_a_group_that_was_given_up_comes_back_by_itself(tiny_model):
    """A rank that stands still for a while is silent: its group is lost. When it goes on, the ranks are all alive: they register
    again, and nothing of the lost epoch counts."""
    with Cluster(tiny_model, ranks=2, worker_args=["--regroup-timeout", "30s"]) as cluster:
        body = {"model": "", "prompt": "stream 0", "max_tokens": 1500, "ignore_eos": True, "temperature": 0}
        whole = json.loads(cluster.post("/v1/completions", body)[1])["choices"][0]["text"]
        ranks = cluster.rank_pids()
        streams = start_streams(cluster.http, 1, 1500)
        wait_for(lambda: len(streams[0]) > 20, 20)
        os.kill(ranks[1], signal.SIGSTOP)
        wait_for(lambda: any(state == "LOST" for state, _ in group_states(cluster)), 5)
        os.kill(ranks[1], signal.SIGCONT)
        wait_for(lambda: streams[0][-1] is None, 60)
        assert streams[0][-2] == "[DONE]", streams[0][-2]
        assert "".join(c["text"] for e in streams[0][:-2] for c in json.loads(e)["choices"]) == whole
        assert cluster.rank_pids() == ranks


def test_a_rank_that_stays_stopped_ends_its_group(tiny_model):
    with Cluster(tiny_model, ranks=2, worker_args=["--regroup-timeout", "1s"]) as cluster:
        os.kill(cluster.rank_pids()[1], signal.SIGSTOP)
        assert cluster.groups[0].wait(60) != 0



def test_octant_up_restarts_a_killed_rank(tiny_model, tmp_path):
    up = subprocess.Popen([BIN / "octant", "up", tiny_model, "--ranks", "2", *STAGES, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"],
                          stdout=subprocess.PIPE, stderr=open(tmp_path / "up.log", "w"), text=True)
    try:
        http = up.stdout.readline().split()[0]
        assert http.startswith("http://"), (tmp_path / "up.log").read_text()

        def healthy():
            try:
                return urllib.request.urlopen(http + "/health", timeout=2).status == 200
            except OSError:
                return False

        assert healthy()
        workers = [pid for pid in descendants(up.pid) if os.readlink(f"/proc/{pid}/exe").endswith("octant-worker")]
        assert len(workers) == 2
        os.kill(workers[1], signal.SIGKILL)
        begin = time.monotonic()
        wait_for(lambda: not healthy(), 5)
        wait_for(healthy, 30)
        print(f"killed to serving again: {time.monotonic() - begin:.2f} s")
        family = descendants(up.pid)
        up.send_signal(signal.SIGTERM)
        assert up.wait(20) == 0
        wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in family), 5)
    finally:
        end(up)


def test_ranks_do_not_outlive_their_mpirun(tiny_model):
    with Cluster(tiny_model, ranks=2) as cluster:
        ranks = cluster.rank_pids()
        cluster.groups[0].kill()
        wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in ranks), 5)
        wait_for(lambda: any(state == "LOST" for state, _ in group_states(cluster)), 5)


def test_octant_up_killed_leaves_nothing(tiny_model, tmp_path):
    up = subprocess.Popen([BIN / "octant", "up", tiny_model, "--ranks", "2", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"],
                          stdout=subprocess.PIPE, stderr=open(tmp_path / "up.log", "w"), text=True)
    try:
        assert up.stdout.readline().startswith("http://")
        family = descendants(up.pid)
        assert len(family) >= 4  # coordinator, mpirun, two ranks
    finally:
        up.kill()
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in family), 15)
