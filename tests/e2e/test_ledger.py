"""The books of a real coordinator: what requests cost here and outside, by a calculation of our own; the audit beside what the other
side received; and both after kill -9 of the coordinator under load, with groups that come back by themselves."""
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from cluster import BIN, ROOT, Cluster, wait_for

sys.path.insert(0, str(ROOT / "tests"))
from doubles.running import KEY, Doubles  # noqa: E402

GPU_HOUR = 3.60
INPUT, CACHED, OUTPUT = 2.0, 0.5, 10.0  # dollars per million tokens
ROUTING = """
models:
  away: {{model: tiny}}
  inside: {{model: tiny, privacy: local-only}}
upstreams:
  outside: {{api: openai-chat, base-url: "{url}", model: double, price: the-price, key-env: DOUBLE_KEY}}
privacy: {{default: may-leave}}
routes:
  - {{name: away-first, match: {{models: [away]}}, upstreams: [outside], prefer: upstream}}
  - {{name: home-first, upstreams: [outside]}}
local-cost: {{gpu-hour: {gpu_hour}}}
"""


@pytest.fixture
def doubles(tmp_path):
    with Doubles(tmp_path / "doubles") as running:
        yield running


@pytest.fixture
def books(tmp_path, doubles, monkeypatch):
    """Options of a coordinator that keeps books, in tmp_path / "data"."""
    monkeypatch.setenv("DOUBLE_KEY", KEY)
    routing, prices = tmp_path / "octant.yaml", tmp_path / "prices.json"
    routing.write_text(ROUTING.format(url=doubles.url("openai-chat"), gpu_hour=GPU_HOUR))
    tier = {"input": INPUT, "cached": CACHED, "output": OUTPUT}
    prices.write_text(json.dumps({"rows": [{"model": "the-price", "from": "2020-01-01", "tiers": [tier], "source": "a test", "seen": "2020-01-01"}]}))
    return ["--data-dir", tmp_path / "data", "--routing", routing, "--prices", prices, "--heartbeat-timeout", "10s"]  # who dies here is killed


def ask(cluster, model, text, tokens=12):
    status, body = cluster.post("/v1/chat/completions", {
        "model": model, "messages": [{"role": "user", "content": text}], "max_tokens": tokens, "temperature": 0})
    assert status == 200, body
    return json.loads(body)


def metric(cluster, name):
    return sum(float(line.rsplit(" ", 1)[1]) for line in cluster.get("/metrics")[1].splitlines() if line.split("{")[0].split(" ")[0] == name)


def ready(cluster):
    groups = json.loads(cluster.get("/status")[1] or '{"groups": []}')["groups"]
    return sum(group["state"] == "READY" for group in groups)


def octant(*words):
    return subprocess.run([str(word) for word in (BIN / "octant", *words)], capture_output=True, text=True, timeout=120)


def cost(data_dir, *words):
    done = octant("cost", "--data-dir", data_dir, "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def query(data_dir, sql):
    with sqlite3.connect(f"file:{data_dir}/ledger.db?mode=ro", uri=True) as db:
        return db.execute(sql).fetchall()


def price_of(usage):
    cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    return ((usage["prompt_tokens"] - cached) * INPUT + cached * CACHED + usage["completion_tokens"] * OUTPUT) / 1e6


def billed(doubles, request):
    """The usage that the other side said when it got this body: it says the same each time, and it is what it would bill."""
    body = {k: v for k, v in json.loads(request["body"]).items() if k not in ("stream", "stream_options")}
    again = urllib.request.Request(doubles.url("openai-chat") + "/chat/completions", json.dumps(body).encode(),
                                   {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(again, timeout=60) as response:
        return json.load(response)["usage"]


def test_cost_equals_a_hand_calculation(tiny_model, books, tmp_path, doubles):
    """A recorded run: 8 requests here, 6 that went outside by preference, 4 whose group had died. Each figure of `octant cost` within
    1 % of what the responses' usage, the other side's usage, the price file and the steps' wall time say."""
    data, ranks = tmp_path / "data", 2
    with Cluster(tiny_model, ranks=ranks, name="tiny", coordinator_args=books) as cluster:
        wait_for(lambda: ready(cluster) == 1, 30, log=cluster.log)  # health is good as soon as an upstream may be asked
        here = [ask(cluster, "inside", f"ticket {i}: " + "the printer is on fire " * (i + 1), 8 + i)["usage"] for i in range(8)]
        wait_for(lambda: metric(cluster, "octant_ledger_usage_rows_total") >= 8, 20)
        gpu_seconds = ranks * metric(cluster, "octant_step_compute_microseconds_total") / 1e6  # no request was under way but these
        away = [ask(cluster, "away", f"question {i}")["usage"] for i in range(6)]
        for pid in cluster.rank_pids(0):
            os.kill(pid, 9)
        wait_for(lambda: ready(cluster) == 0, 20)
        failed_over = [ask(cluster, "tiny", f"urgent {i}")["usage"] for i in range(4)]
        wait_for(lambda: metric(cluster, "octant_ledger_usage_rows_total") >= 18 and metric(cluster, "octant_ledger_call_rows_total") >= 10, 20)
        report = cost(data)
        assert octant("audit", "verify", "--data-dir", data).returncode == 0
        received = doubles.requests()
        audited = [bytes(row[0]).hex() for row in query(data, "SELECT body_sha256 FROM audit WHERE seq > 0 ORDER BY seq")]
        assert [request["sha256"] for request in received] == audited and len(received) == 10
        bills = [price_of(billed(doubles, request)) for request in received]
    lines = {line["name"]: line for line in report["lines"]}
    assert lines["tiny"]["requests"] == 18 and lines["tiny"]["errors"] == 0, report

    here_dollars = gpu_seconds / 3600 * GPU_HOUR
    assert lines["tiny"]["here_dollars"] == pytest.approx(here_dollars, rel=0.01)
    assert lines["tiny"]["prompt_tokens"] == sum(u["prompt_tokens"] for u in here + away + failed_over)
    assert lines["tiny"]["completion_tokens"] == sum(u["completion_tokens"] for u in here + away + failed_over)
    assert report["total"]["outside_dollars"] == pytest.approx(sum(bills), rel=0.01)

    assert report["failover"]["requests"] == 4
    assert report["failover"]["outside_dollars"] == pytest.approx(sum(bills[6:]), rel=0.01)
    tokens_here = sum(u["prompt_tokens"] + u["completion_tokens"] for u in here)
    tokens_over = sum(call[0] for call in query(data, "SELECT input_tokens + output_tokens FROM call WHERE failover"))
    assert report["failover"]["here_dollars"] == pytest.approx(here_dollars / tokens_here * tokens_over, rel=0.01)

    ticket, offer = report["ticket"], report["offers"][0]
    assert ticket["count"] == 8
    assert ticket["here_dollars"] == pytest.approx(here_dollars / 8, rel=0.01)
    there = sum(map(price_of, here)) / 8
    assert offer["ticket_dollars"] == pytest.approx(there, rel=0.01)
    assert offer["break_even_tickets_per_day"] == pytest.approx(24 * GPU_HOUR / there, rel=0.01)
    assert offer["break_even_tokens_per_day"] == pytest.approx(24 * GPU_HOUR / there * tokens_here / 8, rel=0.01)
    assert offer["break_even_share_of_capacity"] == pytest.approx(here_dollars / 8 / there, rel=0.01)


def stream(http, body, events):
    """Collects a stream's SSE lines; then how its connection ended: "end", or what broke it."""
    try:
        request = urllib.request.Request(http + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            for line in response:
                if line.startswith(b"data: "):
                    events.append(line[6:].decode().strip())
        events.append("end")
    except Exception as error:  # whatever a client sees of a connection that is cut
        events.append(f"broken: {error!r}")


def test_kill_9_of_the_coordinator_under_load(tiny_model, books, tmp_path, doubles):
    """Three times: clients see a closed connection, both groups are back by themselves with the same processes, the ledger and the
    audit are whole, and everything that left is in the audit."""
    data = tmp_path / "data"
    with Cluster(tiny_model, ranks=2, name="tiny", coordinator_args=books) as cluster:
        cluster.start_group()
        wait_for(lambda: ready(cluster) == 2, 30)
        pids = cluster.rank_pids(0) + cluster.rank_pids(1)
        answer = ask(cluster, "inside", "the same question")["choices"][0]["message"]["content"]
        doubles.fault("double", "slow-start", ms=50)
        known = set()
        for kill in range(3):
            known |= {ask(cluster, model, f"before kill {kill}")["id"] for model in ("inside", "away")}
            wait_for(lambda: metric(cluster, "octant_ledger_usage_rows_total") >= 2, 20)
            loads = [[] for _ in range(12)]
            for i, events in enumerate(loads):
                where = {"model": "away"} if i % 3 == 0 else {"model": "inside", "ignore_eos": True}
                body = {**where, "messages": [{"role": "user", "content": f"stream {kill} {i}"}], "stream": True, "max_tokens": 3500}
                threading.Thread(target=stream, args=(cluster.http, body, events), daemon=True).start()
            wait_for(lambda: all(len(events) > 3 for events in loads), 30, log=cluster.log)
            cluster.kill_coordinator()
            killed = time.monotonic()
            wait_for(lambda: all(events[-1] == "end" or events[-1].startswith("broken") for events in loads), 20)
            closed = time.monotonic() - killed
            assert all("[DONE]" not in events for events in loads[1::3] + loads[2::3])
            verified = octant("audit", "verify", "--data-dir", data)
            assert verified.returncode == 0, verified.stdout  # also while nobody runs
            begin = time.monotonic()
            cluster.start_coordinator(again=True)
            wait_for(lambda: ready(cluster) == 2, 2, log=cluster.log)
            print(f"kill {kill}: streams closed after {closed:.2f} s, two groups ready {time.monotonic() - begin:.2f} s after the start")
            assert cluster.rank_pids(0) + cluster.rank_pids(1) == pids  # no group was restarted
            assert ask(cluster, "inside", "the same question")["choices"][0]["message"]["content"] == answer
        verified = octant("audit", "verify", "--data-dir", data)
        assert verified.returncode == 0, verified.stdout
        assert query(data, "PRAGMA integrity_check") == [("ok",)]
        assert known <= {row[0] for row in query(data, "SELECT request_id FROM usage")}
        audited = [bytes(row[0]).hex() for row in query(data, "SELECT body_sha256 FROM audit WHERE seq > 0")]
        received = [request["sha256"] for request in doubles.requests()]
        assert len(received) >= 3 * 4 and set(received) <= set(audited) and len(audited) >= len(received)
        assert cost(data, "--by", "day")["total"]["requests"] >= len(known)


def test_a_row_that_was_changed_is_named(tiny_model, books, tmp_path):
    data = tmp_path / "data"
    with Cluster(tiny_model, name="tiny", coordinator_args=books) as cluster:
        for i in range(4):
            ask(cluster, "away", f"question {i}")
    with sqlite3.connect(data / "ledger.db") as db:
        db.executescript("DROP TRIGGER audit_no_update; UPDATE audit SET key = 'key:somebody-else' WHERE seq = 2")
    done = octant("audit", "verify", "--data-dir", data)
    assert done.returncode == 1 and "row 2" in done.stdout and "BROKEN" in done.stdout, done.stdout + done.stderr
    assert octant("audit", "verify", "--data-dir", tmp_path / "nothing").returncode == 1
    assert octant("audit", "--data-dir", data).returncode == 2
