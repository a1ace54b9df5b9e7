"""Whole clusters whose workers compute on the emulated CUDA device: through the coordinator, batched, on one rank and on two, and when a
rank dies under load. What a card would compute; how fast, this does not tell."""
import concurrent.futures
import json
import os
import re
import signal
import time

import pytest

from cluster import BUILD, Cluster, wait_for

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


def test_the_same_answers_alone_and_in_a_crowd_on_one_rank_and_on_two(tiny_model):
    with device_cluster(tiny_model, 1) as cluster:
        assert json.loads(cluster.get("/status")[1])["groups"][0]["backend"].startswith("cuda-sm_")
        alone = [ask(cluster, i) for i in range(9)]
    with device_cluster(tiny_model, 2) as cluster, concurrent.futures.ThreadPoolExecutor(9) as pool:
        crowd = list(pool.map(lambda i: ask(cluster, i), range(9)))
    assert crowd == alone


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
