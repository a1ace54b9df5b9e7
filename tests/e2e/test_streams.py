"""Many clients at once: 2,000 open streams, clients that do not read, 20,000 requests without growth."""
import json
import resource
import selectors
import socket
import threading
import time
import urllib.parse
import http.client

import pytest

from cluster import Cluster, wait_for

STREAMS, REQUESTS = 2000, 20000


@pytest.fixture(scope="module")
def busy(tiny_model):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * STREAMS)), hard))
    arguments = ["--max-queue", str(2 * STREAMS), "--http-connections", str(2 * STREAMS)]
    with Cluster(tiny_model, name="tiny", coordinator_args=arguments) as running:
        yield running


def request(body, path="/v1/completions"):
    data = json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
            "Connection: close\r\n\r\n").encode() + data


def dial(cluster):
    address = urllib.parse.urlparse(cluster.http)
    return socket.create_connection((address.hostname, address.port))


def metric(cluster, name):
    return float(next(line for line in cluster.get("/metrics")[1].splitlines() if line.startswith(name + " ")).split()[1])


def unchunked(answer):
    """The body of an HTTP answer: a chunk may end within an event, where more waited for a client than a chunk holds."""
    body, rest = b"", answer.partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        size = int(size, 16)
        body, rest = body + rest[:size], rest[size + 2:]
    return body


def test_2000_open_streams(busy):
    body = request({"prompt": "Once", "max_tokens": 300, "stream": True, "ignore_eos": True, "temperature": 0})
    selector, heads, tails = selectors.DefaultSelector(), {}, {}
    begin, first, most_open = time.monotonic(), None, 0
    for _ in range(STREAMS):
        connection = dial(busy)
        connection.sendall(body)
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ)
        heads[connection], tails[connection] = b"", b""
    watch = threading.Event()

    def sample():
        nonlocal most_open
        while not watch.wait(0.2):
            most_open = max(most_open, metric(busy, "octant_open_streams"))

    thread = threading.Thread(target=sample)
    thread.start()
    left, good, answers = STREAMS, 0, set()
    while left and time.monotonic() - begin < 240:
        for key, _ in selector.select(1):
            connection = key.fileobj
            data = connection.recv(65536)
            first = first or time.monotonic() - begin
            heads[connection] = heads[connection] or data[:12]
            tails[connection] += data
            if data:
                continue
            text = unchunked(tails[connection])
            good += heads[connection] == b"HTTP/1.1 200" and b"data: [DONE]" in text
            answers.add("".join(json.loads(line[6:])["choices"][0]["text"] for line in text.decode().splitlines()
                                if line.startswith("data: {")))
            selector.unregister(connection)
            connection.close()
            left -= 1
    watch.set()
    thread.join()
    print(f"{STREAMS} streams: first bytes after {first:.2f} s, all after {time.monotonic() - begin:.1f} s, at most {most_open:.0f} open at once")
    assert (left, good) == (0, STREAMS)
    assert len(answers) == 1  # greedy, the same prompt: the same answer for everybody
    assert most_open > STREAMS * 0.8
    assert metric(busy, "octant_open_streams") == 0


def pace(cluster, seconds):
    """Tokens per second of one stream."""
    address = urllib.parse.urlparse(cluster.http)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 4000, "stream": True, "ignore_eos": True}),
                       {"Content-Type": "application/json"})
    response, count, begin = connection.getresponse(), 0, time.monotonic()
    for line in response:
        count += line.startswith(b"data: {")
        if time.monotonic() - begin > seconds:
            break
    took = time.monotonic() - begin
    connection.close()
    return count / took


def test_clients_that_do_not_read_slow_nobody(busy):
    alone = pace(busy, 2)
    cut = metric(busy, "octant_clients_cut_total")
    dead = []
    for i in range(30):
        connection = dial(busy)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(request({"prompt": f"dead {i}", "max_tokens": 4000, "stream": True, "ignore_eos": True, "logprobs": 20}))
        dead.append(connection)
    # Each is cut as soon as 256 KiB wait for it, and its slot is free again.
    wait_for(lambda: metric(busy, "octant_clients_cut_total") >= cut + 30, 120)
    wait_for(lambda: metric(busy, "octant_sequences_running") == 0, 10)
    # Other work on this machine slows a stream, too: one good measurement of several tells that the dead readers do not.
    after = max(pace(busy, 2) for _ in range(3))
    print(f"one stream: {alone:.0f} tokens/s before, {after:.0f} after 30 dead readers")
    assert after > alone / 2
    [connection.close() for connection in dead]


def resident(cluster):
    status = open(f"/proc/{cluster.coordinator.pid}/status").read()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def run_requests(cluster, count, workers=16):
    address = urllib.parse.urlparse(cluster.http)
    body = json.dumps({"prompt": "Once", "max_tokens": 2, "ignore_eos": True})
    failures = []

    def work():
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        for _ in range(count // workers):
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read()
            if response.status != 200:
                failures.append(text)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures, failures[0]


def test_memory_is_flat(busy):
    run_requests(busy, REQUESTS // 4)
    before = resident(busy)
    begin = time.monotonic()
    run_requests(busy, REQUESTS)
    grown = resident(busy) - before
    print(f"{REQUESTS} requests in {time.monotonic() - begin:.0f} s: resident {before >> 20} MiB, grown by {grown / 1024:.0f} KiB")
    assert grown < 8 << 20
