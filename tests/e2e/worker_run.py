"""One octant-worker run that is expected to fail, and what it said: for the tests of bad models, options and coordinators."""
import contextlib
import os
import pathlib
import re
import subprocess
import tempfile
import time
import uuid

from cluster import BIN, end

MARK = "OCTANT_TEST_RUN"  # in the environment of all that a run starts, however far removed

SECONDS = 30  # far beyond what any refusal takes, sanitizers and a busy machine included
STAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z (error|fatal) worker \d+ worker: |^octant-worker: ")
CRASH = re.compile(r"Assertion|AddressSanitizer|LeakSanitizer|runtime error:|Segmentation|core dumped|signal \d+ \(|Signal: ")


class WorkerRun:
    """Runs octant-worker with `args` until it ends; alone, or `ranks` of it under mpirun. With until="TEXT", saying TEXT is an end too."""

    def __init__(self, *args, ranks=0, until=None, seconds=SECONDS, prefix=(), env=None):
        command, marker = list(prefix), uuid.uuid4().hex
        if ranks:
            command += ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]
            command += ["--allow-run-as-root"] if os.geteuid() == 0 else []
        command += [BIN / "octant-worker", *args]
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       start_new_session=True, env={**(os.environ if env is None else env), MARK: marker})
            deadline = time.monotonic() + seconds
            self.went_on = False
            while process.poll() is None and time.monotonic() < deadline and not self.went_on:
                time.sleep(0.05)
                self.went_on = until is not None and until in read(log)
            self.hung = process.poll() is None and not self.went_on
            end(process)
            self.text, self.code = read(log), process.returncode
        self.left = left_behind(marker)
        self.errors = [STAMP.sub("", line) for line in self.text.splitlines() if STAMP.match(line)]

    def check(self):
        """Asserts what holds for every input: it ended, not by a crash, and left nothing."""
        assert not self.hung, f"still running after {SECONDS} s\n{self.text}"
        assert not CRASH.search(self.text), self.text
        assert not self.left, f"left running: {self.left}\n{self.text}"
        return self

    def refusal(self):
        """The one line with which it refused."""
        self.check()
        assert self.code not in (0, None) and self.code > 0, f"ended with {self.code}\n{self.text}"
        assert len(self.errors) == 1, f"{len(self.errors)} lines\n{self.text}"
        assert len(self.errors[0]) < 1000 and self.errors[0].isprintable(), repr(self.errors[0])
        return self.errors[0]


def read(file):
    file.seek(0)
    return file.read().decode(errors="replace")


def left_behind(marker, seconds=3):
    """Pids that still carry the marker, some time after all should have ended."""
    deadline = time.monotonic() + seconds
    while (left := marked(marker)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def marked(marker):
    found = []
    for environ in pathlib.Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{MARK}={marker}".encode() in environ.read_bytes():
                found.append(int(environ.parent.name))
    return found
