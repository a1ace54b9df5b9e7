"""deploy/get-model.sh against a small hub of our own: what it fetches and checks, how it goes on after a break, whom it gives the token, and
what it says when it cannot."""
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import threading

import pytest

from cluster import ROOT

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def lfs(data):
    return {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}}


def plain(data):
    return {"size": len(data), "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}


REPOSITORIES = {
    "we/one": {"README.md": (b"hi", plain), "model.Q4_K_M.gguf": (WEIGHTS, lfs)},
    "we/two": {"a.Q4_K_M.gguf": (WEIGHTS, lfs), "a.Q8_0.gguf": (WEIGHTS[:1000], lfs)},
    "we/deep": {"q4/model.gguf": (WEIGHTS, lfs), "q8/model.gguf": (WEIGHTS[:1000], lfs)},
    "we/parts": {"big-00001-of-00002.gguf": (WEIGHTS, lfs)},
    "we/folder": {"config.json": (b"{}", plain), "model.safetensors": (WEIGHTS, lfs), "tokenizer.json": (b"[]", plain),
                  "pytorch_model.bin": (b"x", plain), "onnx/model.json": (b"x", plain)},
    "we/wrong": {"model.gguf": (WEIGHTS, lambda data: lfs(data[1:] + b"!"))},
    "we/nothing": {"notes.txt": (b"hi", plain)},
    "we/gated": {"model.gguf": (WEIGHTS, lfs)},
}


class Server:
    """A hub, or where it sends downloads."""

    def __init__(self, answer):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.seen.append((self.path, self.headers.get("Authorization"), self.headers.get("Range")))
                answer(self)

            def log_message(self, *_):
                pass

            def send(self, status, body=b"", **headers):
                self.send_response(status)
                for name, value in {"Content_Length": len(body), **headers}.items():
                    self.send_header(name.replace("_", "-"), str(value))
                self.end_headers()
                self.wfile.write(body)

        self.seen = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Hub:
    """The API and its files, which come from a second host; `cut`: how many answers break off in the middle."""

    def __init__(self):
        self.cut = 0
        self.front, self.back = Server(self.api), Server(self.file)

    def api(self, request):
        path = request.path.split("?")[0]
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name = "/".join(parts[2:4])
            if name == "we/gated" and request.headers.get("Authorization") != "Bearer secret-token":
                return request.send(401)
            files = REPOSITORIES.get(name)
            if files is None:
                return request.send(404)
            siblings = [{"rfilename": file, **about(data)} for file, (data, about) in files.items()]
            return request.send(200, json.dumps({"sha": COMMIT, "siblings": siblings}).encode())
        return request.send(302, Location=self.back.url + path)

    def file(self, request):
        parts = request.path.strip("/").split("/")
        data = REPOSITORIES["/".join(parts[:2])]["/".join(parts[4:])][0]
        begin = int((request.headers.get("Range") or "bytes=0-")[6:-1])
        rest = data[begin:]
        if self.cut > 0:
            self.cut -= 1
            return request.send(206 if begin else 200, rest[:len(rest) // 2], Content_Length=len(rest))
        return request.send(206 if begin else 200, rest)


@pytest.fixture
def hub():
    running = Hub()
    yield running
    running.front.stop()
    running.back.stop()


def get(hub, name, folder, **environment):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return subprocess.run([ROOT / "deploy/get-model.sh", name], capture_output=True, text=True, timeout=60,
                          env={**clean, "XDG_CACHE_HOME": str(folder), "HF_HOME": str(folder), "HF_ENDPOINT": hub.front.url, **environment})


def path_of(ended):
    assert ended.returncode == 0, ended.stderr
    return pathlib.Path(ended.stdout.strip())


def test_one_file_and_once(hub, tmp_path):
    path = path_of(get(hub, "we/one", tmp_path))
    assert path.name == "model.Q4_K_M.gguf" and path.read_bytes() == WEIGHTS and "octant/models" in str(path)
    fetched = len(hub.back.seen)
    assert path_of(get(hub, "we/one@main:q4_k_m", tmp_path)) == path and len(hub.back.seen) == fetched
    assert path_of(get(hub, f"{hub.front.url}/we/one/resolve/main/model.Q4_K_M.gguf", tmp_path)) == path
    small = path_of(get(hub, "we/two:q8_0", tmp_path))
    assert small.read_bytes() == WEIGHTS[:1000]


def test_files_of_one_name_in_two_folders(hub, tmp_path):
    for name, data in (("q4/model.gguf", WEIGHTS), ("q8/model.gguf", WEIGHTS[:1000])):
        path = path_of(get(hub, f"we/deep:{name}", tmp_path))
        assert path.name == "model.gguf" and path.read_bytes() == data


def test_a_broken_download_goes_on_where_it_was(hub, tmp_path):
    hub.cut = 2
    assert path_of(get(hub, "we/one", tmp_path)).read_bytes() == WEIGHTS
    ranges = [begin for _, _, begin in hub.back.seen]
    assert ranges == [None, f"bytes={len(WEIGHTS) // 2}-", f"bytes={len(WEIGHTS) * 3 // 4}-"]


def test_a_folder(hub, tmp_path):
    path = path_of(get(hub, "we/folder", tmp_path))
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (path / "model.safetensors").read_bytes() == WEIGHTS


def test_the_token_goes_to_the_hub_alone(hub, tmp_path):
    path_of(get(hub, "we/gated", tmp_path, HF_TOKEN="secret-token"))
    assert all(key == "Bearer secret-token" for _, key, _ in hub.front.seen) and len(hub.front.seen) == 2
    assert [key for _, key, _ in hub.back.seen] == [None]
    path_of(get(hub, f"{hub.back.url}/we/one/resolve/main/model.Q4_K_M.gguf", tmp_path, HF_TOKEN="secret-token"))
    assert hub.back.seen[-1][1] is None


def test_a_url_with_a_checksum(hub, tmp_path):
    url = f"{hub.back.url}/we/one/resolve/main/model.Q4_K_M.gguf"
    assert path_of(get(hub, f"{url}#sha256={hashlib.sha256(WEIGHTS).hexdigest()}", tmp_path)).read_bytes() == WEIGHTS
    refused = get(hub, f"{url}#sha256={'0' * 64}", tmp_path)
    assert refused.returncode == 1 and "checksum" in refused.stderr


@pytest.mark.parametrize("name, words", [
    ("we/two", "several files fit; say which one as we/two:FILE: a.Q4_K_M.gguf, a.Q8_0.gguf"),
    ("we/two:q3", "no GGUF fits"), ("we/parts", "one part of several"), ("we/wrong", "size or checksum"),
    ("we/nothing", "neither a GGUF nor a config.json"), ("we/nowhere", "not found (404)"), ("we/gated", "set HF_TOKEN"),
    ("no-such-model", "give smollm2-135m"), ("http://127.0.0.1:9/x.bin", "is to end in .gguf"),
])
def test_one_line_when_it_cannot(hub, tmp_path, name, words):
    ended = get(hub, name, tmp_path)
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("fetching ")]
    assert ended.returncode == 1 and ended.stdout == "" and len(lines) == 1, ended.stderr
    assert lines[0].startswith("get-model.sh: ") and words in lines[0], lines[0]
    assert not list(tmp_path.rglob("*.part")), "what was wrong does not stay"


def test_a_hub_that_is_not_there(hub, tmp_path):
    ended = get(hub, "we/one", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert ended.returncode == 1 and "HF_ENDPOINT names another hub" in ended.stderr and len(ended.stderr.splitlines()) == 1
