"""A real cluster for a test: octant-coordinator and one or more MPI groups of octant-worker, on free ports of loopback, and
the means to hurt it. Everything that it starts ends with it."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

PATIENCE = 4  # how much longer than on an idle machine a test waits before it calls that a failure
ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("OCTANT_BUILD", ROOT / "build"))
BIN = BUILD / "bin"


class Cluster:
    """with Cluster(model, ranks=2) as c: ... c.http ("http://127.0.0.1:PORT"), c.grpc ("127.0.0.1:PORT")."""

    def __init__(self, model, ranks=1, threads=1, coordinator_args=(), worker_args=(), name=None, worker=BIN / "octant-worker"):
        self.model, self.ranks, self.threads, self.name = str(model), ranks, threads, name
        self.coordinator_args, self.worker_args, self.worker = list(coordinator_args), list(worker_args), worker
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="octant-test-"))
        self.coordinator, self.groups = None, []

    def __enter__(self):
        try:
            self.start_coordinator()
            self.start_group()
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in [*self.groups, self.coordinator]:
            end(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_coordinator(self, again=False):
        """again: on the ports of the one before, where its workers look for it."""
        addresses = self.folder / "addresses"
        addresses.unlink(missing_ok=True)
        http, grpc = (self.http.removeprefix("http://"), self.grpc) if again else ("127.0.0.1:0", "127.0.0.1:0")
        self.coordinator = self._start("coordinator", [
            BIN / "octant-coordinator", "--http", http, "--grpc", grpc, "--address-file", addresses, *self.coordinator_args])
        wait_for(lambda: addresses.exists() and addresses.read_text().count("\n") == 2, 20, self.coordinator, self.log)
        values = dict(line.split("=", 1) for line in addresses.read_text().splitlines())
        self.http, self.grpc = "http://" + values["http"], values["grpc"]

    def kill_coordinator(self):
        self.coordinator.kill()
        self.coordinator.wait()

    def start_group(self, ranks=None, worker_args=(), worker=None, environment=()):
        command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks or self.ranks)]
        if os.geteuid() == 0:
            command.append("--allow-run-as-root")
        for name, value in dict(environment).items():
            command += ["-x", f"{name}={value}"]
        args = [*self.worker_args, *worker_args]
        if "--kv-memory" not in args:  # the default of 1 GiB takes seconds to clear where cores are shared
            args = ["--kv-memory", "128MiB", *args]
        command += [worker or self.worker, "--coordinator", self.grpc, "--model", self.model, "--threads", str(self.threads), *args]
        if self.name:
            command += ["--name", self.name]
        process = self._start(f"group{len(self.groups)}", command)
        self.groups.append(process)
        return process

    def _start(self, name, command):
        with open(self.folder / f"{name}.log", "wb") as log:
            return subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                    start_new_session=True)

    def log(self):
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}" for path in sorted(self.folder.glob("*.log")))

    def wait_ready(self, seconds=60):
        wait_for(self.healthy, seconds, self.coordinator, self.log)

    def healthy(self):
        return self.get("/health")[0] == 200

    def get(self, path, timeout=5):
        """(HTTP status, body text); status 0: no answer."""
        try:
            with urllib.request.urlopen(self.http + path, timeout=timeout) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def post(self, path, body, timeout=60):
        """(HTTP status, body): `body` is sent as JSON, or as it is when bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.http + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def rank_pids(self, group=0):
        """Pids of a group's ranks, by rank."""
        found = {}
        for pid in descendants(self.groups[group].pid):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/exe").endswith(f"/{self.worker.name}"):
                    environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                    rank = next(int(e.split(b"=")[1]) for e in environment if e.startswith(b"OMPI_COMM_WORLD_RANK="))
                    found[rank] = pid
        return [found[rank] for rank in sorted(found)]

    @contextlib.contextmanager
    def slowed(self):
        """Lets the ranks run a tenth of the time: an answer that has begun does not end before the test, on a busy machine, harms it."""
        pids, over = [pid for group in range(len(self.groups)) for pid in self.rank_pids(group)], threading.Event()

        def signal_all(what):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, what)

        def stop_and_go():
            while not over.wait(0.01):
                signal_all(signal.SIGSTOP)
                over.wait(0.09)
                signal_all(signal.SIGCONT)

        thread = threading.Thread(target=stop_and_go, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def descendants(pid):
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        todo += (below := children.get(todo.pop(), []))
        found += below
    return found


def end(process, seconds=10):
    """SIGTERM to a process group that we started, then SIGKILL to it and to what stems from it."""
    if process is None:
        return
    below = descendants(process.pid) if process.poll() is None else []
    for how, wait in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5)):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
    for pid in below:  # a stopped rank does not hear SIGTERM
        with contextlib.suppress(ProcessLookupError, OSError):
            if os.readlink(f"/proc/{pid}/exe").endswith("/octant-worker"):
                os.kill(pid, signal.SIGKILL)


def wait_for(condition, seconds, process=None, log=lambda: ""):
    """`seconds` are an idle machine's: what only takes longer, because cores are shared, is no failure."""
    deadline = time.monotonic() + PATIENCE * seconds
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"process ended with {process.returncode}\n{log()}")
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE * seconds} s\n{log()}")
        time.sleep(0.02)
