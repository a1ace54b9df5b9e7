"""Wrong numbers never reach a client: the step is discarded, the group is lost with a code and the rank's name, and the stream goes on
elsewhere with the text that nobody disturbed. The faults are planted by the linker (tests/tools/faulty_worker.c), or lie in the weights."""
import json
import sys

import numpy as np
import pytest

from cluster import BUILD, ROOT, Cluster, wait_for

BODY = {"model": "", "prompt": "numbers", "max_tokens": 200, "ignore_eos": True, "temperature": 0}


def losses(cluster):
    return [g for g in json.loads(cluster.get("/status")[1])["groups"] if g["state"] == "LOST"]


def text(cluster, **changes):
    status, body = cluster.post("/v1/completions", BODY | changes, timeout=240)
    assert status == 200, body
    return json.loads(body)["choices"][0]["text"]


@pytest.mark.parametrize("fault, loss, rank", [
    ("flip:2:40", "checksum", 2),  # of three ranks, the odd one out
    ("flip:0:41", "checksum", 0),
    ("part:1:41", "numbers", 1),  # where it began; one sum later all ranks have it
    ("hang:1:41", "overdue", 1),  # alive by its heartbeats, but it does not come
])
def test_the_rank_at_fault_is_named_and_the_answer_is_right(tiny_model, fault, loss, rank):
    with Cluster(tiny_model, ranks=3, coordinator_args=["--step-timeout", "2s"], worker_args=["--regroup-timeout", "1s"]) as cluster:
        wanted = text(cluster)
        cluster.groups[0].terminate()
        wait_for(lambda: losses(cluster), 10)
        cluster.start_group(worker=BUILD / "tests/faulty_worker", environment={"OCTANT_TEST_FAULT": fault})
        cluster.wait_ready()
        known = len(losses(cluster))
        cluster.start_group()
        wait_for(lambda: sum(g["state"] == "READY" for g in json.loads(cluster.get("/status")[1])["groups"]) == 2, 60)
        for n in range(8):  # until the group with the fault has had one of them
            assert text(cluster, prompt="numbers") == wanted
            if len(losses(cluster)) > known:
                break
            assert text(cluster, prompt=f"other {n}")
        lost = losses(cluster)
        assert len(lost) == known + 1, lost
        newest = lost[0]
        print(f"{fault}: {newest['loss']}: {newest['reason']}")
        assert newest["loss"] == loss
        assert f"rank {rank} " in newest["reason"], newest["reason"]


def test_nan_in_one_ranks_weights(tiny_model, tmp_path):
    """Half of a matrix that only rank 1 holds: the group is lost whenever it is asked, and says whose numbers they are."""
    sys.path.insert(0, str(ROOT / "tests/golden"))
    import make_random_llama as maker
    make = maker.make_tensors

    def spoiled(m):
        tensors = make(m)
        tensors["model.layers.1.mlp.down_proj.weight"][:, -3] = np.nan
        return tensors
    maker.make_tensors = spoiled
    try:
        maker.write_gguf(str(tmp_path / "nan.gguf"), maker.DEFAULTS | maker.PRESETS["tiny"], "f32")
    finally:
        maker.make_tensors = make
    with Cluster(tmp_path / "nan.gguf", ranks=2, coordinator_args=["--no-group-wait", "1s", "--heartbeat-timeout", "10s"]) as cluster:
        for sampling in (dict(temperature=0), dict(temperature=1, seed=1)):
            status, body = cluster.post("/v1/completions", BODY | sampling)
            assert status == 503, (status, body)
            lost = losses(cluster)
            assert lost[0]["loss"] == "numbers", lost
            assert "rank 1 " in lost[0]["reason"] and "NaN" in lost[0]["reason"], lost[0]["reason"]
            cluster.groups[-1].wait(60)
            cluster.start_group()
            cluster.wait_ready()
