"""`octant up` with several groups: all are started and told where they are, what dies comes back (the coordinator, too), and Ctrl-C lets
answers end."""
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import urllib.request

import pytest

from cluster import BIN, ROOT, descendants, end, wait_for
from test_failure import start_streams

ROUTING = "privacy: {default: local-only}\n"
# Says what it was asked to start, then starts it.
MPIRUN = """#!/bin/sh
echo "$@" >>"{seen}"
exec "{real}" "$@"
"""


class Up:
    """octant up in front of us: .http, .grpc, what it said in .log()."""

    def __init__(self, folder, *args, environment=()):
        self.log_file = folder / "up.log"
        self.process = subprocess.Popen(
            [BIN / "octant", "up", *map(str, args), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--kv-memory", "64MiB"],
            stdout=subprocess.PIPE, stderr=open(self.log_file, "w"), text=True, start_new_session=True, env={**os.environ, **dict(environment)})
        self.http = self.process.stdout.readline().split(" ")[0]
        assert self.http.startswith("http://"), self.log()
        self.grpc = self.process.stdout.readline().split(" ")[0].removeprefix("grpc://")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end(self.process)

    def log(self):
        return self.log_file.read_text()

    def pids(self, program):
        found = []
        for pid in descendants(self.process.pid):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/exe").endswith(f"/{program}"):
                    found.append(pid)
        return sorted(found)

    def groups(self):
        try:
            with urllib.request.urlopen(self.http + "/status", timeout=2) as response:
                return json.load(response)["groups"]
        except OSError:
            return []

    def ready(self):
        return [g for g in self.groups() if g["state"] == "READY"]

    def stop(self):
        family = descendants(self.process.pid)
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(40) == 0, self.log()
        wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in family), 5)


@pytest.fixture(scope="module")
def up(tiny_model, tmp_path_factory):
    """Two groups, a spare, a policy, books, on a machine that is said to have four cards."""
    folder = tmp_path_factory.mktemp("up")
    real = subprocess.run(["sh", "-c", "command -v mpirun"], capture_output=True, text=True, check=True).stdout.strip()
    (folder / "mpirun").write_text(MPIRUN.format(seen=folder / "started", real=real))
    (folder / "mpirun").chmod(0o755)
    (folder / "octant.yaml").write_text(ROUTING)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "4,5,6,7"}
    with Up(folder, tiny_model, "--groups", 2, "--spares", 1, "--ranks", 1, "--name", "tiny", "--routing", folder / "octant.yaml",
            "--data-dir", folder / "data", "--prices", ROOT / "deploy/prices.json", "--event-log", folder / "events",
            environment=environment) as running:
        running.folder = folder
        yield running


def test_all_groups_start(up):
    log = up.log()
    for label in ("group 1", "group 2", "spare 1"):
        assert f"    {label}: starting ranks\n" in log and re.search(rf"^    {label} ready: tiny on 1 rank \(", log, re.M), log
    started = (up.folder / "started").read_text().splitlines()
    cards = [(re.search(r"-x CUDA_VISIBLE_DEVICES=(\S+)", line).group(1), line.endswith("--spare")) for line in started]
    assert sorted(cards) == [("4", False), ("5", False), ("6,7", True)], cards
    assert len(up.ready()) == 3
    assert (up.folder / "data").is_dir() and "group-ready" in (up.folder / "events").read_text()


def test_a_killed_coordinator_comes_back_to_its_groups(up):
    workers, coordinator = up.pids("octant-worker"), up.pids("octant-coordinator")
    assert len(workers) == 3 and len(coordinator) == 1
    os.kill(coordinator[0], signal.SIGKILL)
    begin = time.monotonic()
    wait_for(lambda: len(up.ready()) == 3 and up.pids("octant-coordinator") != coordinator, 20)
    print(f"killed to all groups ready: {time.monotonic() - begin:.2f} s")
    assert up.pids("octant-worker") == workers, "the groups kept their weights"
    wait_for(lambda: up.log().count("serves again after") >= 4, 5)  # the coordinator and three groups
    assert "the coordinator was killed by signal 9 (Killed); starting it again" in up.log()


def test_a_killed_group_comes_back_beside_the_others(up):
    before, said = up.pids("octant-worker"), len(up.log())
    victim = next(pid for pid in before if b"--spare" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(set(up.pids("octant-worker")) - set(before)) == 1 and len(up.ready()) == 3, 20)
    assert set(before) - set(up.pids("octant-worker")) == {victim}
    wait_for(lambda: re.search(r"group [12] serves again", up.log()[said:]), 5)


def test_ctrl_c_lets_answers_end(up):
    streams = start_streams(up.http, 2, 400)
    wait_for(lambda: all(len(events) > 3 for events in streams), 20)
    up.stop()
    wait_for(lambda: all(events[-1] is None for events in streams), 5)
    assert all(events[-2] == "[DONE]" for events in streams), [events[-2] for events in streams]
    assert "draining" in up.log()


def test_a_group_that_cannot_start_is_tried_after_growing_pauses(tiny_model, tmp_path):
    model = tmp_path / "model.gguf"
    model.write_bytes(tiny_model.read_bytes())
    with Up(tmp_path, model) as up:
        model.write_bytes(b"not a model any more")
        os.kill(up.pids("octant-worker")[0], signal.SIGKILL)
        wait_for(lambda: up.log().count("starting it again") >= 3, 20)
        assert "serves again" not in up.log() and up.process.poll() is None
        model.write_bytes(tiny_model.read_bytes())
        wait_for(lambda: "the group serves again" in up.log(), 20)


def test_keys_are_no_obstacle(tiny_model, tmp_path):
    (tmp_path / "keys").write_text("# who may ask\nhelpdesk a-key-of-the-helpdesk\n")
    with Up(tmp_path, tiny_model, "--api-keys", tmp_path / "keys") as up:
        assert "    ready: " in up.log()
        up.stop()
