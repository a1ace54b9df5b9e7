"""For tests of what leaves the site: a cluster whose coordinator has an octant.yaml, keys, prices, books and an event log, and whose
upstreams are doubles; and the client's side of it, in plain HTTP so that headers and events are seen as they are."""
import http.client
import json
import sqlite3
import subprocess
import urllib.parse

from cluster import BIN, PATIENCE, Cluster
from upstream_doubles import KEY

PATIENT = {"connect-timeout": "100s", "first-content-timeout": "100s", "between-chunks-timeout": "100s", "total-timeout": "300s"}


def key_of(name):
    return f"client-key-of-{name}"


class Site(Cluster):
    """with Site(policy, keys=["one", ...]) as s: ... `policy` is octant.yaml as an object; its upstreams get the doubles' key, patience
    and a price unless they say otherwise. No group is started but by start_group()."""

    def __init__(self, policy, keys=(), model="", coordinator_args=(), **more):
        super().__init__(model, **more)
        self.data, self.events_path = self.folder / "data", self.folder / "events.jsonl"
        key_file = self.folder / "upstream.key"
        key_file.write_text(KEY + "\n")
        key_file.chmod(0o600)
        policy = json.loads(json.dumps(policy))
        for target in policy["upstreams"].values():
            for name, value in {**PATIENT, "key-file": str(key_file), "price": "double"}.items():
                target.setdefault(name, value)
        (self.folder / "octant.yaml").write_text(json.dumps(policy))
        (self.folder / "keys").write_text("".join(f"{name} {key_of(name)}\n" for name in keys))
        (self.folder / "keys").chmod(0o600)
        (self.folder / "prices.json").write_text(json.dumps({"about": "of the doubles", "rows": [
            {"model": "double", "vendor": "double", "from": "2020-01-01", "tiers": [{"input": 1, "output": 2}], "source": "made up",
             "seen": "2026-01-01"}]}))
        self.coordinator_args = ["--routing", self.folder / "octant.yaml", "--data-dir", self.data, "--prices", self.folder / "prices.json",
                                 "--event-log", self.events_path, "--heartbeat-timeout", "30s",
                                 *(["--api-keys", self.folder / "keys"] if keys else []), *coordinator_args]

    def __enter__(self):
        try:
            self.start_coordinator()
        except BaseException:
            self.__exit__()
            raise
        return self

    def healthy(self):
        """A group serves; with upstreams alone the coordinator calls itself degraded, which is 200 too."""
        status, body = self.get("/health")
        return status == 200 and json.loads(body)["status"] == "ok"

    def ask(self, path, body, key=None, headers=(), timeout=60 * PATIENCE):
        """An Answer. `headers`: pairs."""
        address = urllib.parse.urlsplit(self.http)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=timeout)
        try:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.putrequest("POST", path)
            given = [("Content-Type", "application/json"), ("Content-Length", str(len(data))), *headers]
            for name, value in given + ([("Authorization", "Bearer " + key_of(key))] if key else []):
                connection.putheader(name, value)
            connection.endheaders(data)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def chat(self, key, model, text="hello", headers=(), timeout=60 * PATIENCE, **more):
        messages = text if isinstance(text, list) else [{"role": "user", "content": text}]
        return self.ask("/v1/chat/completions", {"model": model, "messages": messages, **more}, key, headers, timeout)

    def stream(self, key, model, text="hello", headers=(), **more):
        """A Stream that has begun."""
        address = urllib.parse.urlsplit(self.http)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60 * PATIENCE)
        messages = text if isinstance(text, list) else [{"role": "user", "content": text}]
        connection.request("POST", "/v1/chat/completions", json.dumps({"model": model, "messages": messages, "stream": True, **more}),
                           {"Content-Type": "application/json", "Authorization": "Bearer " + key_of(key), **dict(headers)})
        return Stream(connection)

    def events(self, kind=None):
        lines = self.events_path.read_text().splitlines() if self.events_path.exists() else []
        return [event for event in map(json.loads, lines) if kind in (None, event["kind"])]

    def rows(self, query, *values):
        books = sqlite3.connect(f"file:{self.data / 'ledger.db'}?mode=ro", uri=True, timeout=60)
        try:
            books.row_factory = sqlite3.Row
            return [dict(row) for row in books.execute(query, values)]
        finally:
            books.close()

    def audit(self):
        """The audit's rows but the genesis, and what `octant audit verify` says: (exit status, output)."""
        rows = self.rows("SELECT *, lower(hex(body_sha256)) AS sha256 FROM audit WHERE rule <> 'genesis' ORDER BY seq")
        verified = subprocess.run([BIN / "octant", "audit", "verify", "--data-dir", self.data], capture_output=True, text=True, timeout=120)
        return rows, (verified.returncode, verified.stdout + verified.stderr)


class Answer:
    def __init__(self, response):
        self.status, self.headers, data = response.status, response.headers, response.read()
        self.raw = data.decode(errors="replace")
        try:
            self.body = json.loads(data)
        except ValueError:
            self.body = {}

    @property
    def text(self):
        return self.body["choices"][0]["message"]["content"]

    @property
    def error(self):
        return self.body.get("error", {}).get("message", "")

    @property
    def served_by(self):
        return self.headers.get("octant-served-by")

    @property
    def segments(self):
        return [segment["by"] for segment in self.body["octant"]["segments"]]

    def __repr__(self):
        return f"{self.status} {self.raw[:600]}"


class Stream:
    """What a chat stream says: `text` so far; run() reads to its end."""

    def __init__(self, connection):
        self.connection, self.text, self.chunks, self.error, self.done, self.finish = connection, "", [], None, False, None
        self.response = connection.getresponse()
        self.status, self.served_by = self.response.status, self.response.headers.get("octant-served-by")

    def run(self, enough=lambda stream: False):
        """Reads until the end, or until there is enough; self."""
        while not enough(self) and (line := self.response.readline()):
            if line.startswith(b"data: "):
                self._take(line[6:].strip())
        return self

    def _take(self, data):
        if data == b"[DONE]":
            self.done = True
            return
        chunk = json.loads(data)
        self.chunks.append(chunk)
        if "error" in chunk:
            self.error = chunk["error"]["message"]
        for choice in chunk.get("choices", []):
            self.text += choice["delta"].get("content") or ""
            self.finish = choice["finish_reason"] or self.finish

    @property
    def segments(self):
        """Who served it, in order: the first chunk of each part says so, and the chunk with the usage, if asked for, says all."""
        told = [chunk["octant"] for chunk in self.chunks if "octant" in chunk]
        names = [segment["by"] for segment in told[-1]["segments"]] if told and "segments" in told[-1] else [o["served_by"] for o in told]
        return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]

    def close(self):
        self.connection.close()

    def __repr__(self):
        return f"{self.status} done={self.done} finish={self.finish} error={self.error!r} text={self.text[-200:]!r} {self.segments}"
