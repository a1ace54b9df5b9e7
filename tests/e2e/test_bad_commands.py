"""Commands that cannot work, and users who leave: `octant` and the programs end with one plain line and a right exit code, and leave
nothing running."""
import os
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

from cluster import BIN, Cluster, end, wait_for
from worker_run import CRASH, MARK, left_behind, marked

FREE_PORTS = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]


@pytest.fixture(scope="module")
def standing(tiny_model):
    with Cluster(tiny_model, name="tiny", worker_args=["--kv-memory", "64MiB"]) as running:
        yield running


@pytest.fixture
def mark(monkeypatch, request):
    """What a test starts carries its name, and is gone when it ends; so are the logs of clusters that failed."""
    monkeypatch.setenv(MARK, request.node.name)
    folder = tempfile.mkdtemp(prefix="octant-test-")  # short: mpirun makes sockets below it
    monkeypatch.setenv("TMPDIR", folder)
    yield request.node.name
    shutil.rmtree(folder, ignore_errors=True)
    assert not left_behind(request.node.name, 10)


def octant(*args, stdin=b"", seconds=60, program="octant"):
    return subprocess.run([BIN / program, *map(str, args)], input=stdin, capture_output=True, timeout=seconds)


def refusal(*args, code=1, **more):
    """The one line on standard error; progress lines ("    starting ranks") and where the logs are may stand beside it."""
    ended = octant(*args, **more)
    text = ended.stderr.decode()
    lines = [line for line in text.splitlines() if line.startswith("octant") and not line.startswith("octant: the cluster's logs")]
    assert ended.returncode == code and not CRASH.search(text), (ended.returncode, text)
    assert len(lines) == 1 and len(text.splitlines()) <= 4, text
    assert ended.stdout == b"", ended.stdout
    print(lines[0])
    return lines[0]


@pytest.mark.parametrize("args, words, code", [
    (["run", "--server", "127.0.0.1:1", "--timeout", "5s", "hi"], "no coordinator answers at 127.0.0.1:1: start one", 1),
    (["status", "--server", "127.0.0.1:1"], "no coordinator answers", 1),
    (["run", "--server", "no.such.host.invalid:5", "--timeout", "5s", "hi"], "no coordinator answers", 1),
    (["run", ""], "the prompt is empty", 2), (["run"], "the prompt is empty", 2), (["run", "-"], "the prompt is empty", 2),
    (["run", "--temperature", "nan", "hi"], "--temperature", 2), (["run", "--temperature", "9", "hi"], "0 to 2", 2),
    (["run", "--max-tokens", "-3", "hi"], "--max-tokens", 2), (["run", "--bogus", "hi"], "--bogus", 2), (["up"], "one MODEL", 2),
    (["up", "--ranks", "0", "x"], "--ranks", 2),
])
def test_refused_commands(args, words, code, mark):
    assert words in refusal(*args, code=code)


def test_what_the_server_refuses(standing, mark):
    http = standing.http.removeprefix("http://")
    assert "is not a gRPC port" in refusal("run", "--server", http, "--timeout", "5s", "hi")
    assert "does not exist" in refusal("run", "--server", standing.grpc, "--model", "gpt-9", "hi")
    assert "4096" in refusal("run", "--server", standing.grpc, "-", stdin=b"z " * 10000)
    assert "UTF-8" in refusal("run", "--server", standing.grpc, "-", stdin=b"\xff\xfe")
    assert octant("run", "--server", standing.grpc, "--max-tokens", 2, "--ignore-eos", "-", stdin=b"hello").returncode == 0


def test_clusters_that_cannot_start(tiny_model, standing, tmp_path, mark):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_model.read_bytes()[:3000])
    for args, words in (([tmp_path / "nothing"], "No such file"), ([cut], "cut short"), ([tiny_model, "--ranks", 9], "1 to 4 ranks"),
                        ([tiny_model, "--kv-memory", "4TiB"], "lower --kv-memory"), ([tiny_model, "--kv-memory", "much"], "--kv-memory")):
        line = refusal("up", *args, *FREE_PORTS)
        assert words in line, line
    assert "cut short" in refusal("run", "--up", cut, "--ranks", 2, "hi")
    http = standing.http.removeprefix("http://")
    for ports in (["--http", http, "--grpc", "127.0.0.1:0"], ["--http", "127.0.0.1:0", "--grpc", standing.grpc]):
        assert "in use" in refusal("up", tiny_model, *ports)
        assert "in use" in refusal(*ports, program="octant-coordinator").replace("already in use", "in use")


@pytest.mark.parametrize("program, args, words", [
    ("octant-coordinator", ["--http", "nowhere.invalid:80"], "nowhere.invalid"), ("octant-coordinator", ["--http", "127.0.0.1:99999"], "65535"),
    ("octant-coordinator", ["--max-queue", "0"], "1 to"), ("octant-coordinator", ["--bogus"], "--bogus"),
    ("octant-coordinator", ["--api-keys", "/nonexistent"], "/nonexistent"), ("octant-coordinator", ["--config", "/nonexistent"], "/nonexistent"),
    ("octant-coordinator", ["--config", "/dev/zero"], "/dev/zero:1:1"), ("octant-worker", [], "--model is missing"),
    ("octant-worker", ["--model", "x", "--threads", "-1"], "0 to 1024"), ("octant-worker", ["--model", "x", "--threads", "many"], "whole number"),
    ("octant-worker", ["--model", "x", "--kv-memory", "1KiB"], "64KiB"), ("octant-worker", ["--model", "x", "--coordinator", "head"], "HOST:PORT"),
    ("octant-worker", ["--model", "x", "--isa", "mmx"], "portable"), ("octant-worker", ["--model", "x", "more"], "'more'"),
    ("octant-worker", ["--model", "x", "--dial-timeout", "soon"], "--dial-timeout"), ("octant-worker", ["--bogus"], "--bogus"),
])
def test_refused_options(program, args, words, mark):
    assert words in refusal(*args, program=program)


def long_run(server, *more):
    process = subprocess.Popen([BIN / "octant", "run", *server, "--max-tokens", "4000", "--ignore-eos", *more, "hi"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    assert process.stdout.read(1), process.stderr.read()
    return process


def running(cluster):
    return float(next(line for line in cluster.get("/metrics")[1].splitlines() if line.startswith("octant_sequences_running ")).split()[1])


def test_interrupted_in_the_middle(standing, tiny_model, mark):
    process = long_run(["--server", standing.grpc])
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    wait_for(lambda: running(standing) == 0, 3)
    process = long_run(["--up", str(tiny_model), "--ranks", "2"])
    assert len(marked(mark)) >= 4
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(20) == 130


def test_broken_pipe(standing, tiny_model, mark):
    for server in (["--server", standing.grpc], ["--up", str(tiny_model)]):
        process = long_run(server)
        process.stdout.close()
        assert process.wait(20) != 0
        assert not CRASH.search(process.stderr.read().decode())
    wait_for(lambda: running(standing) == 0, 3)


def test_a_server_that_dies(tiny_model, mark):
    with Cluster(tiny_model, worker_args=["--reconnect-timeout", "1s"]) as cluster:
        process = long_run(["--server", cluster.grpc])
        begin = time.monotonic()
        os.kill(cluster.coordinator.pid, signal.SIGKILL)
        assert process.wait(20) == 1
        lines = process.stderr.read().decode().splitlines()
        assert len(lines) == 1 and lines[0].startswith("octant run: UNAVAILABLE"), lines
        assert cluster.groups[0].wait(20) != 0  # the ranks do not wait for a coordinator for ever
        print(f"ranks ended {time.monotonic() - begin:.1f} s after the coordinator")
        end(cluster.groups[0])
