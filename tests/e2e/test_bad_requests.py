"""HTTP clients that are wrong, slow, gone or hostile: each gets the right status and one clear error, or is cut in time; whoever else asks
meanwhile is served, and the process neither grows nor keeps connections."""
import contextlib
import json
import pathlib
import socket
import time

import pytest

from cluster import PATIENCE, Cluster, wait_for

GROWTH = 48 << 20  # bytes that a test may leave behind: arenas, malloc's own caches; not a leak of what was sent
LIMIT = 4 << 20    # of a body


@pytest.fixture(scope="module")
def standing(tiny_model):
    with Cluster(tiny_model, name="tiny", worker_args=["--kv-memory", "64MiB"]) as running:
        for _ in range(20):
            ask(running)
        yield running


def ask(cluster):
    status, body = cluster.post("/v1/completions", {"model": "tiny", "prompt": "still there", "max_tokens": 4, "ignore_eos": True}, timeout=20)
    assert status == 200, body


def resident(cluster):
    text = pathlib.Path(f"/proc/{cluster.coordinator.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) << 10


@pytest.fixture(autouse=True)
def unharmed(standing):
    before = resident(standing)
    yield
    assert standing.coordinator.poll() is None, standing.log()
    ask(standing)
    assert resident(standing) - before < GROWTH, f"{before} bytes before, {resident(standing)} after"


class Raw:
    """A connection that says what it is told, valid or not."""

    def __init__(self, cluster, data=b"", timeout=20):
        host, port = cluster.http.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout)
        self.send(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        """False when the server has closed."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def until_closed(self):
        """What came before the end; of a connection that is kept, before nothing more came."""
        data = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            while chunk := self.socket.recv(65536):
                data += chunk
        return data

    def answer(self):
        """(status, headers as text, body) of one answer with a Content-Length."""
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = self.socket.recv(65536)
            assert chunk, f"closed after {data!r}"
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(next(line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")))
        while len(body) < length:
            body += self.socket.recv(length - len(body))
        return int(head.split()[1]), head.decode("latin-1"), body


def head(path="/v1/completions", method="POST", **headers):
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\nHost: test\r\n{lines}\r\n".encode()


def whole(body, path="/v1/completions", **headers):
    return head(path, Content_Type="application/json", Content_Length=len(body), **headers) + body


GOOD = json.dumps({"model": "tiny", "prompt": "hello", "max_tokens": 2, "ignore_eos": True}).encode()


def refused(cluster, path, body, status=400):
    """The error object of an answer that must be this refusal."""
    got, text = cluster.post(path, body, timeout=30)
    assert got == status, (got, text[:300], str(body)[:200])
    error = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert 0 < len(error["message"]) < 2000 and "\n" not in error["message"], error
    return error


# ---- bodies

BODIES = {
    "nothing": b"", "spaces": b"   ", "half": b'{"model": "tiny", "prompt": "a', "no JSON": b"hello", "a list": b"[]", "a text": b'"hello"',
    "a number": b"1", "null": b"null", "two": b"{}{}", "rest": GOOD + b"x", "deep lists": b"[" * 100000, "deep objects": b'{"a":' * 100000,
    "deep in a field": b'{"model": "tiny", "prompt": ' + b"[" * 100000 + b"]" * 100000 + b"}",
    "bad UTF-8": b'{"model": "tiny", "prompt": "\xff\xfe"}', "cut UTF-8": b'{"model": "tiny", "prompt": "\xe2\x82"}',
    "surrogate bytes": b'{"model": "tiny", "prompt": "\xed\xa0\x80"}', "lone surrogate": b'{"model": "tiny", "prompt": "\\ud800"}',
    "UTF-16": GOOD.decode().encode("utf-16"), "NUL byte": b'{"model": "tiny", "prompt": "a\0b"}', "zeroes": bytes(1000),
    "NaN": b'{"model": "tiny", "prompt": "a", "temperature": NaN}', "Infinity": b'{"model": "tiny", "prompt": "a", "temperature": Infinity}',
    "1e999": b'{"model": "tiny", "prompt": "a", "temperature": 1e999}', "long number": b'{"model": "tiny", "max_tokens": ' + b"9" * 100000 + b"}",
    "twice": b'{"model": "tiny", "prompt": "a", "prompt": "b"}', "many keys": json.dumps({f"k{i}": i for i in range(100000)}).encode(),
}


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/tokenize"])
def test_bodies(standing, path):
    for case, body in BODIES.items():
        print(f"{case}: {refused(standing, path, body)['message']}")


WRONG = {
    "model": [1, [], {}, True],
    "prompt": [1, True, {}, [], [[]], ["a", 1], [-1], [1 << 31], [512], [1.5], [[1 << 40]], [None]],
    "max_tokens": [-1, 0.5, "5", [], {}, True, 1 << 31, 1 << 62, 1e30],
    "temperature": [-0.1, 2.1, "1", [], True, 1e308],
    "top_p": [-0.1, 1.1, "1"], "min_p": [-1, 2, "0"], "top_k": [-2, 1.5, "1", 1 << 40],
    "n": [0, -1, 1000, 1.5, "1", 1 << 40], "best_of": [-1, 1000, "2"], "logprobs": [-1, 1000, "1", 1.5],
    "seed": ["1", 1.5, []], "stop": [1, {}, [1], ["a"] * 100, [""], [None]],
    "presence_penalty": [-2.1, 2.1, "0"], "frequency_penalty": [-2.1, 2.1, "0"], "repetition_penalty": [0, -1, "1", 1e30],
    "logit_bias": [[], "a", {"a": 1}, {"1": 101}, {"1": -101}, {"1": "1"}, {"512": 1}, {"-1": 1}, {"99999999999999999999": 1}, {"1.5": 1}, {"": 1}],
    "stream": ["true", 1, {}], "stream_options": [1, [], {"include_usage": 1}, {"other": True}], "echo": ["yes", 1], "user": [1, {}], "suffix": [1, {}],
    "ignore_eos": ["no", 3],
}
CHAT_WRONG = {
    "messages": [None, 1, "hello", {}, [], [1], [[]], [{}], [{"role": "user"}], [{"content": "a"}], [{"role": 1, "content": "a"}],
                 [{"role": "emperor", "content": "a"}], [{"role": "user", "content": 1}], [{"role": "user", "content": {}}],
                 [{"role": "user", "content": [1]}], [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}],
                 [{"role": "user", "content": [{"type": "text"}]}], [{"role": "user", "content": [{"type": "text", "text": 5}]}]],
    "top_logprobs": [-1, 21, "1"], "logprobs": [1, "true"], "max_completion_tokens": [-1, "1", 1 << 40],
    "tools": [1, [1], [{"type": "function"}]], "response_format": [1, {"type": "dance"}], "tool_choice": [1, {"a": 1}],
}


def test_wrong_types_and_ranges(standing):
    good, chat = json.loads(GOOD), {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
    wrong = []
    for path, base, cases in (("/v1/completions", good, WRONG), ("/v1/chat/completions", chat, CHAT_WRONG),
                              ("/v1/chat/completions", chat, {k: v for k, v in WRONG.items() if k not in ("prompt", "best_of", "logprobs", "echo", "suffix")})):
        for name, values in cases.items():
            for value in values:
                status, text = standing.post(path, {**base, name: value}, timeout=20)
                if status == 400 and name in (json.loads(text)["error"]["param"] or ""):
                    continue
                wrong.append(f"{path} {name}={value!r}: {status} {text[:200]}")
    assert not wrong, "\n".join(wrong)


def test_context_and_other_bounds(standing):
    long = refused(standing, "/v1/completions", {"model": "tiny", "prompt": [1] * 5000, "max_tokens": 1})
    assert long["code"] == "context_length_exceeded" and "4096" in long["message"] and "5000" in long["message"], long
    text = refused(standing, "/v1/completions", {"model": "tiny", "prompt": "z " * 1000000, "max_tokens": 1})
    assert text["code"] == "context_length_exceeded", text
    both = refused(standing, "/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 4096})
    assert both["code"] == "context_length_exceeded" and "4096 in the completion" in both["message"], both
    one = [{"role": "user", "content": "a"}]
    assert refused(standing, "/v1/chat/completions", {"model": "tiny", "messages": one * 10000})["code"] == "context_length_exceeded"
    assert refused(standing, "/v1/completions", {"model": "tiny", "prompt": "a", "stop": "x" * (1 << 20)})["param"] == "stop"
    assert refused(standing, "/v1/completions", {"model": "tiny", "prompt": ["a"] * 100000})["param"] == "prompt"
    for name in ("gpt-9", "x" * 100000, "tiny ", "../tiny", "a\nb\x1b[2J"):
        error = refused(standing, "/v1/completions", {"model": name, "prompt": "a"}, 404)
        assert error["code"] == "model_not_found" and error["param"] == "model", error
    for value in (1 << 63, 1 << 64, -(1 << 70)):
        for name in ("max_tokens", "seed", "n"):
            refused(standing, "/v1/completions", {"model": "tiny", "prompt": "a", name: value})


def test_routes(standing):
    for data, status in (
            (head("/v1/nowhere", "GET"), 404), (head("/", "GET"), 404), (head("/v1/completions/", "POST", Content_Length=0), 404),
            (head("/v1/" + "a" * 8000, "GET"), 404), (head("/v1/../v1/models", "GET"), 404), (head("//v1/models", "GET"), 404),
            (head("/v1/models/" + "%00%0a%ff", "GET"), 404), (head("/v1/completions", "GET"), 405), (head("/v1/completions", "DELETE"), 405),
            (head("/v1/models", "POST", Content_Length=0), 405), (head("/health", "PUT", Content_Length=0), 405),
            (head("/v1/completions", "BREW", Content_Length=0), 405),
            (head(Content_Type="text/plain", Content_Length=len(GOOD)) + GOOD, 415), (head(Content_Type="", Content_Length=len(GOOD)) + GOOD, 415),
            (head(Content_Type="multipart/form-data; boundary=x", Content_Length=len(GOOD)) + GOOD, 415),
            (head(Content_Type="application/json; charset=utf-8", Content_Length=len(GOOD)) + GOOD, 200),
            (head(Content_Type="Application/JSON", Content_Length=len(GOOD)) + GOOD, 200)):
        with Raw(standing, data) as raw:
            got, headers, body = raw.answer()
            assert got == status, (data[:100], got, body[:200])
            if status == 405:
                assert "\r\nAllow:" in headers, headers
            if status != 200:
                assert json.loads(body)["error"]["message"]


BROKEN = {
    "no HTTP": b"hello\r\n\r\n", "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64),
    "HTTP/9": b"GET /health HTTP/9.9\r\nHost: a\r\n\r\n", "no version": b"GET /health\r\n\r\n", "line breaks": b"\r\n" * 2000,
    "length of words": head(Content_Length="many"), "length below none": head(Content_Length=-1), "length of 2^64": head(Content_Length=1 << 64),
    "two lengths": b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 50\r\n\r\n" + b"x" * 50,
    "length and chunks": b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk of words": head(Transfer_Encoding="chunked") + b"many\r\nhello\r\n", "chunk of 2^64": head(Transfer_Encoding="chunked") + b"10000000000000000\r\nhello",
    "chunk below none": head(Transfer_Encoding="chunked") + b"-5\r\nhello\r\n", "unknown coding": head(Transfer_Encoding="gzip") + b"xx",
    "huge header": head(X_Long="x" * 100000), "many headers": b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 20000 + b"\r\n", "endless line": b"GET /" + b"a" * 200000,
    "header without colon": b"GET /health HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "bare CR": b"GET /health HTTP/1.1\rHost: a\r\r", "NUL": b"GET /hea\0lth HTTP/1.1\r\nHost: a\r\n\r\n", "folded": b"GET /health HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
}


def test_broken_http(standing):
    """An error or a cut connection, and never an answer that was not asked for."""
    for case, data in BROKEN.items():
        with Raw(standing, data, timeout=2) as raw:
            with contextlib.suppress(OSError):
                raw.socket.shutdown(socket.SHUT_WR)
            answer = raw.until_closed()
        first = answer.split(b"\r\n")[0].decode("latin-1")
        print(f"{case}: {first or 'closed'}")
        assert not answer or (first.startswith("HTTP/1.") and first.split()[1][0] in "45") or case in ("folded", "no host"), answer[:300]


def test_bodies_that_are_too_large(standing):
    """Refused at its header, or as soon as it passes the limit; never read to the end."""
    with Raw(standing, head(Content_Type="application/json", Content_Length=100 << 20)) as raw:
        assert raw.answer()[0] == 413
    with Raw(standing, head(Content_Type="application/json", Content_Length=100 << 20)) as raw:
        sent = 0
        while sent < 100 << 20 and raw.send(b"x" * (1 << 20)):
            sent += 1 << 20
        assert sent < 60 << 20
    with Raw(standing, head(Content_Type="application/json", Transfer_Encoding="chunked")) as raw:
        sent = 0
        while sent < 100 << 20 and raw.send(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"):
            sent += 1 << 20
        assert sent < 60 << 20
    with Raw(standing, head(Content_Type="application/json", Content_Length=100 << 20, Expect="100-continue")) as raw:
        assert raw.answer()[0] in (413, 417)


def test_unusual_but_right(standing):
    chunks = b"".join(b"%x\r\n%c\r\n" % (1, byte) for byte in GOOD) + b"0\r\n\r\n"
    with Raw(standing, head(Content_Type="application/json", Transfer_Encoding="chunked") + chunks) as raw:
        assert raw.answer()[0] == 200
    with Raw(standing, head(Content_Type="application/json", Content_Length=len(GOOD), Expect="100-continue")) as raw:
        assert raw.socket.recv(1000).startswith(b"HTTP/1.1 100")
        raw.send(GOOD)
        assert raw.answer()[0] == 200
    with Raw(standing, b"POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD) as raw:
        assert b" 200 " in raw.until_closed().split(b"\r\n")[0]  # and it closes
    streamed = json.dumps({**json.loads(GOOD), "stream": True}).encode()
    with Raw(standing, b"POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(streamed) + streamed) as raw:
        answer = raw.until_closed()
        assert answer.rstrip().endswith(b"data: [DONE]") and b"chunked" not in answer.split(b"\r\n\r\n")[0], answer
    with Raw(standing, whole(GOOD) * 20) as raw:  # pipelined
        texts = b""
        while texts.count(b"text_completion") < 20:
            chunk = raw.socket.recv(65536)
            assert chunk, texts[-300:]
            texts += chunk


def connections(cluster):
    return float(next(line for line in cluster.get("/metrics")[1].splitlines() if line.startswith("octant_http_connections ")).split()[1])


def running(cluster):
    return float(next(line for line in cluster.get("/metrics")[1].splitlines() if line.startswith("octant_sequences_running ")).split()[1])


def test_idle_connections_do_not_hinder(standing):
    with contextlib.ExitStack() as stack:
        raws = [stack.enter_context(Raw(standing)) for _ in range(500)]
        raws += [stack.enter_context(Raw(standing, whole(GOOD)[:i % 200 + 1])) for i in range(500)]  # half a request, then silence
        begin = time.monotonic()
        ask(standing)
        assert time.monotonic() - begin < 5 * PATIENCE
        assert connections(standing) > 900
    wait_for(lambda: connections(standing) < 20, 15)


def test_a_byte_at_a_time(standing):
    """Patience with a slow client within bounds, while others are served."""
    with Raw(standing) as raw:
        for i, byte in enumerate(whole(GOOD)):
            assert raw.send(bytes([byte]))
            time.sleep(0.002)
            if i % 50 == 0:
                ask(standing)
        assert raw.answer()[0] == 200


def test_clients_that_leave(standing):
    long = json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 3000, "stream": True, "ignore_eos": True}).encode()
    for request in (long, long.replace(b'"stream": true, ', b"")):
        raws = [Raw(standing, whole(request)) for _ in range(20)]
        wait_for(lambda: running(standing) >= 10, 10)
        for i, raw in enumerate(raws):
            if i % 2:  # reset, not closed
                raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            raw.socket.close()
        wait_for(lambda: running(standing) == 0, 3)
    for i in range(0, len(whole(GOOD)), 7):  # in the middle of the header and the body
        Raw(standing, whole(GOOD)[:i]).socket.close()
    # What was lost in between is closed by the header's or the body's deadline at the latest.
