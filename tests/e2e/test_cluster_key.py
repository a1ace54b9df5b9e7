"""--cluster-key: who has the key may register a group, drain, or tell of a rank; nobody else is heard, whatever they send."""
import subprocess

import grpc
import pytest

from cluster import BIN, Cluster
from worker_run import WorkerRun

METHODS = "/octant.cluster.v1.Cluster/"


@pytest.fixture(scope="module")
def keyed(tiny_model, tmp_path_factory):
    key = tmp_path_factory.mktemp("key") / "cluster-key"
    key.write_text("f" * 32 + "\n")
    with Cluster(tiny_model, ranks=2, name="tiny", coordinator_args=["--cluster-key", key], worker_args=["--cluster-key", key]) as running:
        running.key = key
        yield running


def ask(cluster):
    status, body = cluster.post("/v1/completions", {"model": "tiny", "prompt": "still there", "max_tokens": 4, "ignore_eos": True})
    assert status == 200, body


def test_with_the_key_a_group_serves_and_comes_back_to_a_new_coordinator(keyed):
    ask(keyed)
    keyed.kill_coordinator()
    keyed.start_coordinator(again=True)
    keyed.wait_ready()
    ask(keyed)


@pytest.mark.parametrize("header", [None, "", "Bearer ", "f" * 32, "Bearer " + "f" * 31, "Bearer " + "f" * 33, "Bearer " + "e" * 32])
def test_strangers_are_not_heard(keyed, header):
    with grpc.insecure_channel(keyed.grpc) as channel:
        metadata = [("authorization", header)] if header is not None else []
        calls = [channel.unary_unary(METHODS + name) for name in ("Register", "Heartbeat", "Drain")]
        for call in [*(lambda c=c: c(b"", metadata=metadata, timeout=20) for c in calls),
                     lambda: list(channel.stream_stream(METHODS + "Steps")(iter([b"x" * 1000]), metadata=metadata, timeout=20))]:
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED, caught.value
            assert "--cluster-key" in caught.value.details()
    ask(keyed)


def test_strangers_do_not_fill_the_log(keyed):
    def lines():
        return (keyed.folder / "coordinator.log").read_text().count("was refused")

    before, calls = lines(), 300
    with grpc.insecure_channel(keyed.grpc) as channel:
        drain = channel.unary_unary(METHODS + "Drain")
        for call in [drain.future(b"", timeout=60) for _ in range(calls)]:
            assert call.exception().code() == grpc.StatusCode.UNAUTHENTICATED
    assert lines() - before < calls / 2  # a line a second
    ask(keyed)


def test_workers_without_it_end_with_one_line(keyed, tmp_path):
    other = tmp_path / "other"
    other.write_text("e" * 32)
    for given in ([], ["--cluster-key", other]):
        run = WorkerRun("--coordinator", keyed.grpc, "--model", keyed.model, *given)
        assert "give the worker the same key by --cluster-key FILE" in run.refusal()
    run = WorkerRun("--coordinator", keyed.grpc, "--model", keyed.model, "--cluster-key", tmp_path / "none", ranks=2)
    assert f"--cluster-key: cluster key {tmp_path}/none: No such file" in run.refusal()
    assert "f" * 32 not in keyed.log()


def test_a_coordinator_with_a_bad_key_does_not_start(tmp_path):
    short = tmp_path / "short"
    short.write_text("abc\n")
    done = subprocess.run([BIN / "octant-coordinator", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--cluster-key", short],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "16 to 256 characters" in done.stderr, done.stderr
