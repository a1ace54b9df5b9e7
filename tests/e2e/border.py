"""A site whose only way out is one cable, for tests of what leaves: this process, the coordinator and its groups on one host (a network
namespace), the doubles on another. What the site tries beside calling the doubles is dropped and counted, and tcpdump keeps a copy of every
frame on the cable."""
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time

import wire
from cluster import ROOT, wait_for

sys.path.insert(0, str(ROOT / "tests" / "fault"))
import hosts  # noqa: E402

NOBODY = "192.0.2.1"  # RFC 5737, 3849: of documentation, nobody's
NOBODY_6 = "2001:db8::1"
# Beside what is on loopback and calls of the doubles, the kernel says of its own who its neighbours are and what it listens to.
RULES = """
table inet border {{
  counter denied {{}}
  set tried {{ type inet_proto . inet_service; flags dynamic; size 1000; }}
  chain out {{
    type filter hook output priority 0; policy drop;
    oif lo accept
    meta l4proto igmp accept
    icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, mld2-listener-report, mld-listener-done }} accept
    ip daddr {address} tcp dport {port} accept
    counter name denied
    add @tried {{ meta l4proto . th dport }}
  }}
}}
"""


def lacking():
    """Why there can be no border on this machine; None: there can."""
    for program in ("nft", "tcpdump"):
        if not shutil.which(program):
            return f"no '{program}' program"
    if why_not := hosts.allowed():
        return why_not
    with hosts.Hosts(0) as trial:
        for words in (("nft", "add", "table", "inet", "trial"), ("tcpdump", "-i", "lo", "-d")):
            with hosts.within(trial.hub):
                tried = hosts.run(*words, check=False)
            if tried.returncode != 0:
                return f"{words[0]} does not work here: {tried.stderr.strip().splitlines()[-1:]}"
    return None


class Border:
    """with Border(folder) as b: doubles on `b.address`, made within b.outside(); b.close(port) and all else b.inside()."""

    def __init__(self, folder):
        self.net, self.path, self.log, self.dump = hosts.Hosts(1), folder / "border.pcap", folder / "tcpdump.log", None
        self.site, self.beyond = self.net.hub, self.net.names[0]
        self.address = self.net.address[self.beyond]

    def __enter__(self):
        self.net.__enter__()
        return self

    def __exit__(self, *_):
        if self.dump and self.dump.poll() is None:
            self.dump.kill()
            self.dump.wait()
        self.net.__exit__()

    def inside(self):
        return hosts.within(self.site)

    def outside(self):
        return hosts.within(self.beyond)

    def close(self, port):
        """From now on the site gets nowhere but to the doubles' port. Everything has a route to the cable, so that it is counted."""
        for version, way in (("-4", ["via", self.address]), ("-6", [])):
            hosts.run("ip", version, "-n", self.site, "route", "add", "default", *way, "dev", "bridge")
        self._nft("-f", "-", text=RULES.format(address=self.address, port=port))
        with open(self.log, "wb") as log, self.outside():
            self.dump = subprocess.Popen(["tcpdump", "-i", "eth0", "-n", "-U", "--immediate-mode", "-s", "0", "-B", "65536", "-Z", "root", "-w", self.path],
                                         stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(lambda: "listening on" in self.log.read_text(), 10, self.dump, self.log.read_text)
        self.before = self.crossed()
        self._try_it(port)

    def _try_it(self, port):
        """A guard that counts nothing would prove nothing."""
        datagram, stream = socket.SOCK_DGRAM, socket.SOCK_STREAM
        tries = [((NOBODY, 53), datagram), ((self.address, port), datagram), ((NOBODY_6, 53), datagram), ((NOBODY, port), stream),
                 ((self.address, port + 1), stream), ((NOBODY_6, port), stream)]
        for i, (target, kind) in enumerate(tries):
            with self.inside(), socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET, kind) as trial:
                trial.settimeout(0.01)
                with contextlib.suppress(OSError):
                    trial.connect(target)
                    trial.send(b"octant tries its border")
            assert self.denied() > i, f"{target} was not denied"
        self._nft("reset", "counters")
        self._nft("flush", "set", "inet", "border", "tried")

    def _nft(self, *words, text=""):
        with self.inside():
            return subprocess.run(["nft", *words], input=text, check=True, capture_output=True, text=True).stdout

    def denied(self):
        """How many packets."""
        listed = json.loads(self._nft("-j", "list", "counter", "inet", "border", "denied"))["nftables"]
        return next(item["counter"]["packets"] for item in listed if "counter" in item)

    def tried(self):
        return self._nft("list", "set", "inet", "border", "tried")

    def crossed(self):
        """Frames that the cable carried so far, both ways."""
        statistics = json.loads(hosts.run("ip", "-j", "-s", "-n", self.beyond, "link", "show", "eth0").stdout)[0]["stats64"]
        return statistics["rx"]["packets"] + statistics["tx"]["packets"]

    def end(self):
        """Ends the capture, when the site is gone. What crossed the cable, read; all of it was kept."""
        size = -1
        while size != (size := self.path.stat().st_size):  # until nothing more is written
            time.sleep(0.3)
        crossed = self.crossed() - self.before
        self.dump.send_signal(signal.SIGINT)
        self.dump.wait(60)
        assert "\n0 packets dropped by kernel" in self.log.read_text(), self.log.read_text()
        read = wire.Wire(self.path)
        assert read.frames >= crossed, f"{crossed} frames crossed the cable, {read.frames} were captured"
        return read
