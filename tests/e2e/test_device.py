"""Whole clusters whose workers compute on the emulated CUDA device: through the coordinator, batched, on one rank and on two, and when a
rank dies under load. What a card would compute; how fast, this does not tell."""
import concurrent.futures
import json
import os
import re
import signal
import subprocess
import time

import pytest

from cluster import BIN, BUILD, Cluster, wait_for

WORKER = BUILD / "tests" / "octant-worker-emulated"
pytestmark = pytest.mark.skipif(not WORKER.exists(), reason="built without the CUDA toolkit's headers: no emulated device")


def device_cluster(model, ranks, *args):
    return Cluster(model, ranks=ranks, worker=WORKER, worker_args=["--device", "cuda", "--sums", "exact", "--kv-memory", "16MiB", *args])


def body(i):
    """Greedy and sampled ones, with penalties and logprobs, of several lengths."""
    asked = {"model": "", "prompt": f"row {i} " * (i % 5 + 1), "max_tokens": 12, "ignore_eos": True, "temperature": 0}
    if i % 3 == 1:
        asked.update(temperature=0.9, top_p=0.95, seed=i, frequency_penalty=0.5)
    if i % 3 == 2:
        asked.update(logprobs=3)
    return asked


def ask(cluster, i):
    status, text = cluster.post("/v1/completions", body(i), timeout=120)
    assert status == 200, text
    choice = json.loads(text)["choices"][0]
    return choice["text"], choice["logprobs"] and choice["logprobs"]["token_logprobs"]


def leave(cluster, i):
    """Goes away while its sequence has rows in steps under way; its slot and blocks are another's in the next."""
    try:
        cluster.post("/v1/completions", {**body(i), "max_tokens": 200}, timeout=0.1 + 0.1 * i)
    except OSError:
        return True
    return False


def test_the_same_answers_alone_and_in_a_crowd_on_one_rank_and_on_two(tiny_model):
    with device_cluster(tiny_model, 1) as cluster:
        assert json.loads(cluster.get("/status")[1])["groups"][0]["backend"].startswith("cuda-sm_")
        alone = [ask(cluster, i) for i in range(9)]
    with device_cluster(tiny_model, 2) as cluster, concurrent.futures.ThreadPoolExecutor(14) as pool:
        gone = [pool.submit(leave, cluster, i) for i in range(5)]
        crowd = list(pool.map(lambda i: ask(cluster, i), range(9)))
        assert any(g.result() for g in gone)
    assert crowd == alone


HEALTHY = """* temperature 61
* power 250500
* used 5368709120
* total 85899345920
* throttle 0
0000:02:00.0 temperature 64
"""


def ranks_of(cluster):
    return json.loads(cluster.get("/status")[1])["groups"][0]["ranks"]


def test_what_cards_say_of_themselves(tiny_model, tmp_path, monkeypatch):
    """By a stand-in for the driver's library with a script: numbers in all places, heat as one event, a fault as a loss with its rank."""
    script, events = tmp_path / "nvml", tmp_path / "events"
    script.write_text(HEALTHY)
    monkeypatch.setenv("OCTANT_NVML_STAND_IN", str(script))
    monkeypatch.setenv("OCTANT_EMULATOR", "devices=h100*2")
    with Cluster(tiny_model, ranks=2, worker=WORKER, worker_args=["--device", "cuda", "--kv-memory", "16MiB"],
                 coordinator_args=["--event-log", events]) as cluster:
        wait_for(lambda: all("device" in rank for rank in ranks_of(cluster)), 5)
        cards = [rank["device"] for rank in ranks_of(cluster)]
        assert cards[0] == {"throttled": [], "temperature": 61, "power_watts": 250.5, "memory_used_bytes": 5 << 30,
                            "memory_bytes": 80 << 30, "xid": 0}, cards  # what it does not tell is absent
        assert cards[1]["temperature"] == 64 and ranks_of(cluster)[1]["temperature"] == 64
        shown = subprocess.run([BIN / "octant", "status", "--server", cluster.grpc], capture_output=True, text=True, check=True).stdout
        assert "61 C  card 5.0 GiB of 80 GiB  250 W\n" in shown, shown
        metrics = cluster.get("/metrics")[1]
        assert re.search(r'octant_rank_device_temperature_celsius\{group="g1",model="[^"]*",rank="1"\} 64\n', metrics)
        assert re.search(r'octant_rank_device_throttled\{group="g1",model="[^"]*",rank="1",reason="thermal"\} 0\n', metrics)
        assert "octant_rank_device_utilization_ratio{" not in metrics
        script.write_text(HEALTHY + "0000:02:00.0 throttle 0x40\n0000:02:00.0 xid 31\n")  # another program's fault
        wait_for(lambda: "device-hot" in events.read_text() and ranks_of(cluster)[1]["device"].get("xid") == 31, 5)
        hot = next(json.loads(line) for line in events.read_text().splitlines() if "device-hot" in line)
        assert hot["rank"] == 1 and "slows down for its heat, at 64 C" in hot["text"], hot
        assert ranks_of(cluster)[1]["device"]["throttled"] == ["thermal"] and cluster.healthy()
        script.write_text(HEALTHY + "0000:02:00.0 xid 79\n")
        wait_for(lambda: "group-lost" in events.read_text(), 5)
        lost = next(json.loads(line) for line in events.read_text().splitlines() if "group-lost" in line)
        assert (lost["loss"], lost["rank"]) == ("device", 1) and "XID 79: it has fallen off the bus" in lost["text"], lost
        wait_for(lambda: cluster.groups[0].poll() is not None, 5)
        assert events.read_text().count("device-hot") == 1


def test_cards_without_a_monitor_have_no_health(tiny_model):
    with device_cluster(tiny_model, 1, "--log-level", "debug") as cluster:
        wait_for(lambda: cluster.log().count("the card's health is not known: nvmlInit: Driver Not Loaded") == 1, 5)
        assert "device" not in ranks_of(cluster)[0]


def test_a_killed_rank_is_named_and_another_group_goes_on(tiny_model):
    with device_cluster(tiny_model, 2) as cluster, concurrent.futures.ThreadPoolExecutor(6) as pool:
        expected = [ask(cluster, i) for i in range(6)]
        cluster.start_group()
        wait_for(lambda: sum(g["state"] == "READY" for g in json.loads(cluster.get("/status")[1])["groups"]) == 2, 60)
        answers = [pool.submit(ask, cluster, i) for i in range(6)]
        time.sleep(0.05)
        os.kill(cluster.rank_pids(0)[1], signal.SIGKILL)
        assert [a.result() for a in answers] == expected
        wait_for(lambda: any(g["state"] == "LOST" for g in json.loads(cluster.get("/status")[1])["groups"]), 20)
        lost = next(g for g in json.loads(cluster.get("/status")[1])["groups"] if g["state"] == "LOST")
        assert re.search(r"\brank 1\b", lost["reason"]), lost
