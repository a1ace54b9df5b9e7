"""Worker groups that are started again whenever they end, as systemd or Slurm would, and the ways to hurt one."""
import contextlib
import os
import pathlib
import signal
import subprocess
import threading
import time

MARK = "OCTANT_FAULT_GROUP"


class Group:
    """`ranks` ranks, one on each of `hosts` (None: all on this machine), under mpirun, restarted when they end."""

    def __init__(self, name, build, grpc, model, ranks, folder, hosts=None, names=(), worker_args=()):
        self.name, self.folder, self.hosts, self.names = name, folder, hosts, list(names)
        self.mark = f"{os.getpid()}-{name}"
        self.command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]
        if os.geteuid() == 0:
            self.command.append("--allow-run-as-root")
        if hosts:
            listed = folder / f"{name}.hosts"
            listed.write_text("".join(f"{hosts.address[n]} slots=1\n" for n in self.names))
            net = f"{hosts.address[hosts.hub].rsplit('.', 2)[0]}.0.0/16"
            self.command += ["--hostfile", listed, "--mca", "plm_rsh_agent", folder / "agent", "--mca", "pml", "ob1", "--mca", "btl",
                             "tcp,self", "--mca", "btl_tcp_if_include", net, "--mca", "oob_tcp_if_include", net]
        self.command += ["-x", MARK, build / "bin/octant-worker", "--coordinator", grpc, "--model", model, "--threads", "1",
                         "--kv-memory", "64MiB", *worker_args]
        self.process, self.starts, self.ending = None, 0, threading.Event()
        self.keeper = threading.Thread(target=self._keep, daemon=True)

    def start(self):
        self.keeper.start()

    def _keep(self):
        while not self.ending.is_set():
            self.starts += 1
            # Of one session with all the others: Linux shares cores between sessions, not processes, and 6.18 was seen to give the one of a
            # group that starts next to nothing for seconds, beside ranks that wait for their hosts' network by yielding.
            with open(self.folder / f"{self.name}.log", "ab") as log:
                self.process = subprocess.Popen([str(w) for w in self.command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                process_group=0, env={**os.environ, MARK: self.mark})
            self.process.wait()
            self.sweep()  # as systemd ends what is left in a unit's control group
            self.ending.wait(0.1)

    def sweep(self):
        for pid in self.pids():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def end(self):
        self.ending.set()
        deadline = time.monotonic() + 20
        while self.keeper.is_alive() and time.monotonic() < deadline:
            self.sweep()
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.keeper.join(0.2)
        self.sweep()

    def pids(self):
        """All processes of the group: mpirun, its daemons, the ranks."""
        return [pid for pid in all_pids() if environment(pid).get(MARK) == self.mark]

    def ranks(self):
        """Pids by rank."""
        found = {}
        for pid in self.pids():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/exe").endswith("/octant-worker"):
                    found[int(environment(pid)["OMPI_COMM_WORLD_RANK"])] = pid
        return [found[rank] for rank in sorted(found)]


def all_pids():
    return [int(path.name) for path in pathlib.Path("/proc").glob("[0-9]*")]


def environment(pid):
    with contextlib.suppress(OSError):
        pairs = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return dict(pair.decode(errors="replace").split("=", 1) for pair in pairs if b"=" in pair)
    return {}
