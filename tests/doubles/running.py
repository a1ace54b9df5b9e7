"""For tests: with Doubles(folder) as d: d.url("anthropic"), d.requests(), d.fault("double", "hang-mid", at=2) ..."""
import contextlib
import datetime
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
KEY = "the-key-of-the-doubles"  # in no log, answer or process list of Octant
START_SECONDS = 60
BASES = {"openai-chat": "/v1", "openai-responses": "/v1", "anthropic": "/v1", "gemini": "/v1beta"}


class Doubles:
    """One server as a process of its own. `tls`: also listeners with a good certificate ("good"), one of an authority that nobody
    knows ("self-signed"), one for another name ("wrong-name") and one that has run out ("expired"); `ca` is the good authority's.
    `host`: its address; `there()`: a context in which this process is on the network that has it."""

    def __init__(self, folder, tls=False, key=KEY, host="127.0.0.1", there=contextlib.nullcontext):
        self.host, self.there = host, there
        self.folder, self.key, self.tls = pathlib.Path(folder), key, tls
        self.log_path, self.ca = self.folder / "doubles.jsonl", self.folder / "ca.pem"
        self.process, self.read_to, self.lines, self.closed = None, 0, [], None

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        addresses = self.folder / "doubles.addresses"
        addresses.unlink(missing_ok=True)
        command = [sys.executable, "-m", "doubles", "--host", self.host, "--log", self.log_path, "--key", self.key, "--address-file", addresses,
                   "--until-stdin-closes"]
        if self.tls:
            command += [word for name, path in certificates(self.folder).items() for word in ("--tls", f"{name}={path}")]
        with open(self.folder / "doubles.out", "wb") as out, self.there():
            self.process = subprocess.Popen([str(word) for word in command], cwd=HERE.parent, stdin=subprocess.PIPE, stdout=out, stderr=out)
        deadline = time.monotonic() + START_SECONDS
        while not addresses.exists():
            assert self.process.poll() is None and time.monotonic() < deadline, (self.folder / "doubles.out").read_text()
            time.sleep(0.01)
        self.ports = json.loads(addresses.read_text())
        with self.there():
            self.closed = socket.socket()  # bound but not listening: connections are refused, and nobody else gets the port
            self.closed.bind((self.host, 0))
        return self

    def __exit__(self, *_):
        self.closed.close()
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def address(self, listener="plain"):
        return f"http{'' if listener == 'plain' else 's'}://{self.host}:{self.ports[listener]}"

    def url(self, api, listener="plain"):
        """The base URL that a configuration names."""
        return self.address(listener) + BASES[api]

    def refusing(self, api):
        return f"http://{self.host}:{self.closed.getsockname()[1]}{BASES[api]}"

    def control(self, method="GET", **body):
        request = urllib.request.Request(self.address() + "/_control", json.dumps(body).encode() if body else None, method=method)
        with self.there(), urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def fault(self, model, fault="", **numbers):
        return self.control("POST", model=model, fault=fault, **numbers)

    def log(self):
        """All lines so far."""
        with open(self.log_path, "rb") as file:
            file.seek(self.read_to)
            data = file.read()
        whole = data[:data.rfind(b"\n") + 1]
        self.read_to += len(whole)
        self.lines += [json.loads(line) for line in whole.splitlines()]
        return self.lines

    def requests(self, model=None):
        return [line for line in self.log() if line["event"] == "request" and model in (None, line["model"])]

    def ends(self):
        return {line["n"]: line for line in self.log() if line["event"] == "end"}


def certificates(folder):
    import trustme

    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(os.fspath(folder / "ca.pem"))
    past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    made = {
        "good": authority.issue_cert("127.0.0.1", "localhost"),
        "self-signed": stranger.issue_cert("127.0.0.1", "localhost"),
        "wrong-name": authority.issue_cert("elsewhere.test"),
        "expired": authority.issue_cert("127.0.0.1", "localhost", not_before=past - datetime.timedelta(days=1), not_after=past),
    }
    paths = {}
    for name, certificate in made.items():
        paths[name] = folder / f"{name}.pem"
        certificate.private_key_and_cert_chain_pem.write_to_path(os.fspath(paths[name]))
    return paths
