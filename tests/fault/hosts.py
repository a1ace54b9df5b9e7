"""Hosts for a test, on one machine: each a network namespace with a name of its own, all on one bridge. Where the machine allows no
namespaces, or without root, all "hosts" are this machine, and links cannot be cut."""
import contextlib
import ctypes
import os
import shutil
import subprocess

NET = "10.78"


def run(*words, check=True):
    return subprocess.run([str(w) for w in words], check=check, capture_output=True, text=True)


def allowed():
    """Whether this machine lets us make hosts; else why not."""
    if os.geteuid() != 0:
        return "not root"
    if not shutil.which("ip"):
        return "no 'ip' program"
    name = f"octant-try-{os.getpid()}"
    if run("ip", "netns", "add", name, check=False).returncode != 0:
        return "network namespaces are not allowed here"
    entered = run("ip", "netns", "exec", name, "true", check=False).returncode == 0
    run("ip", "netns", "del", name, check=False)
    return None if entered else "network namespaces cannot be entered here"


@contextlib.contextmanager
def within(name):
    """This thread, and the threads and processes that it starts, on the host of this name; sockets stay where they were made."""
    with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{name}", "rb") as there:
        _enter(there)
        try:
            yield
        finally:
            _enter(home)


def _enter(namespace):
    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Hosts:
    """hosts.names: who may run ranks. The first, `hosts.hub`, runs the coordinator, the clients and mpirun."""

    def __init__(self, count):
        tag = f"octant-{os.getpid()}"
        self.hub = f"{tag}-hub"
        self.names = [f"{tag}-{i}" for i in range(count)]
        self.address = {self.hub: f"{NET}.255.1"} | {name: f"{NET}.0.{i + 1}" for i, name in enumerate(self.names)}

    def __enter__(self):
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in [self.hub, *self.names]:
            run("ip", "netns", "del", name, check=False)

    def _make(self):
        run("ip", "netns", "add", self.hub)
        run("ip", "-n", self.hub, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", self.hub, "addr", "add", f"{self.address[self.hub]}/16", "dev", "bridge")
        for name in [self.hub, *self.names]:
            if name != self.hub:
                run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", self.hub, "link", "set", "bridge", "up")
        for i, name in enumerate(self.names):
            run("ip", "-n", self.hub, "link", "add", f"v{i}", "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "-n", self.hub, "link", "set", f"v{i}", "master", "bridge", "up")
            run("ip", "-n", name, "addr", "add", f"{self.address[name]}/16", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")

    def link(self, name, state):
        """The host's cable: "down" or "up"."""
        run("ip", "-n", self.hub, "link", "set", f"v{self.names.index(name)}", state)

    def write_agent(self, path):
        """What mpirun takes for ssh: ADDRESS COMMAND..."""
        cases = "\n".join(f"{self.address[name]}) ns={name} ;;" for name in self.names)
        path.write_text(f'#!/bin/sh\naddress=$1\nshift\ncase $address in\n{cases}\nesac\n'
                        'exec ip netns exec "$ns" unshare --uts sh -c "hostname $ns; $*"\n')
        path.chmod(0o755)
