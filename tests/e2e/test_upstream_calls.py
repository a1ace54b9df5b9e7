"""The edge of the closed APIs (coordinator/upstream, by tests/tools/upstream_call) against the doubles: what each API's answer, fault
and refusal means, in the breaker's words, and that not a byte is sent that may not be."""
import itertools
import json
import queue
import subprocess
import threading

import pytest

from cluster import BUILD, PATIENCE
from upstream_doubles import APIS, KEY, TEXT, WORDS, canonical

HELLO = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "search", "description": "finds", "parameters": {
    "type": "object", "properties": {"query": {"type": "string"}, "count": {"type": "integer"}}}}}
# One clock each that runs out while a test looks on; the others have time for any machine.
CLOCKS = {"": {}, "-first": {"first-content-timeout": "1s"}, "-chunks": {"between-chunks-timeout": "1s", "drain": "500ms"},
          "-rate": {"min-rate": 1000, "rate-window": "500ms"}}


class Caller:
    """tests/tools/upstream_call: one call at a time, or several."""

    def __init__(self, config):
        self.numbers, self.lines, self.leaves = itertools.count(1), {}, []
        self.process = subprocess.Popen([BUILD / "tests/upstream_call", config], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, env={"DOUBLE_KEY": KEY})
        self.errors = []
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            event = json.loads(line)
            if "leave" in event:
                self.leaves.append(event)
            else:
                self.lines.setdefault(event["call"], queue.Queue()).put(event)

    def begin(self, upstream, messages=HELLO, **more):
        number = next(self.numbers)
        self.lines.setdefault(number, queue.Queue())
        self.send(call=number, upstream=upstream, messages=messages, **more)
        return number

    def send(self, **line):
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def next(self, number):
        try:
            return self.lines[number].get(timeout=30 * PATIENCE)
        except queue.Empty:
            raise AssertionError(f"no end of call {number}; {self.errors}") from None

    def end(self, number):
        """The end, with "text" and "tools" (index to [id, name, arguments])."""
        text, tools = "", {}
        while "end" not in (event := self.next(number)):
            text += event.get("text", "")
            if "tool" in event:
                tool = tools.setdefault(event["tool"], [event.get("id"), event.get("name"), ""])
                tool[2] += event["arguments"]
        return {**event, "text": text, "tools": tools}

    def call(self, upstream, messages=HELLO, **more):
        return self.end(self.begin(upstream, messages, **more))

    def close(self):
        self.process.stdin.close()
        return self.process.wait(60 * PATIENCE)


def target(api, url, **more):
    patient = {"connect-timeout": "100s", "first-content-timeout": "100s", "between-chunks-timeout": "100s", "total-timeout": "110s"}
    return {"api": api, "base-url": url, "key-env": "DOUBLE_KEY", "drain": "20s", **patient, **more}


@pytest.fixture(scope="module")
def caller(doubles, tmp_path_factory):
    targets = {api + clock: target(api, doubles.url(api), model=api + clock, prefill=True, **more) for api in APIS for clock, more in CLOCKS.items()}
    targets |= {api + "-refuse": target(api, doubles.refusing(api), model="double") for api in APIS}
    for listener in ("good", "self-signed", "wrong-name", "expired"):
        targets["tls-" + listener] = target("openai-chat", doubles.url("openai-chat", listener), model="tls-" + listener,
                                            **{"ca-file": str(doubles.ca)})
    targets["tls-system"] = target("openai-chat", doubles.url("openai-chat", "good"), model="tls-system")
    config = tmp_path_factory.mktemp("caller") / "octant.yaml"
    config.write_text(json.dumps({"upstreams": targets}))
    running = Caller(config)
    yield running
    assert running.close() == 0, running.errors


@pytest.fixture(autouse=True)
def no_faults(doubles):
    yield
    doubles.control("DELETE")


def of(end, *names):
    return tuple(end[name] for name in names)


@pytest.mark.parametrize("api", APIS)
def test_answer(doubles, caller, api):
    end = caller.call(api)
    assert of(end, "end", "text", "finish", "status") == ("ok", TEXT, "stop", 200), end
    assert (end["usage"]["output"], end["usage"]["known"]) == (WORDS, True)
    assert end["usage"]["input"] == sum(len(m["content"].split()) for m in HELLO) + 3 * len(HELLO)
    line = doubles.requests(api)[-1]
    assert line["key_ok"] and "user-agent" in line["headers"]
    assert caller.leaves[-1]["leave"] == line["sha256"]  # what the audit says is what left


@pytest.mark.parametrize("api", APIS)
def test_length_and_stop(doubles, caller, api):
    end = caller.call(api, [{"role": "user", "content": "say 40 words"}], max_tokens=20)
    assert of(end, "end", "text", "finish") == ("ok", canonical(20), "length"), end


@pytest.mark.parametrize("api", APIS)
def test_tools(doubles, caller, api):
    messages = [{"role": "user", "content": "call search"}]
    end = caller.call(api, messages, tools=[TOOL])
    assert of(end, "end", "finish", "text") == ("ok", "tool_calls", ""), end
    (id, name, arguments), = end["tools"].values()
    assert id and name == "search" and json.loads(arguments) == {"query": "é search", "count": 7}
    told = [*messages, {"role": "assistant", "content": None, "tool_calls": [{"id": id, "type": "function", "function": {
        "name": name, "arguments": arguments}}]}, {"role": "tool", "tool_call_id": id, "content": "found"}]
    assert of(caller.call(api, told, tools=[TOOL]), "end", "text") == ("ok", TEXT)
    forced = caller.call(api, HELLO, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "search"}})
    assert of(forced, "end", "finish") == ("ok", "tool_calls"), forced


@pytest.mark.parametrize("api", APIS)
def test_two_tools(doubles, caller, api):
    other = json.loads(json.dumps(TOOL).replace("search", "order"))
    end = caller.call(api, [{"role": "user", "content": "call search and call order"}], tools=[TOOL, other])
    assert [tool[1] for tool in end["tools"].values()] == ["search", "order"], end
    assert [json.loads(tool[2])["count"] for tool in end["tools"].values()] == [7, 8]
    assert len({tool[0] for tool in end["tools"].values()}) == 2


@pytest.mark.parametrize("api", APIS)
def test_reasoning_is_no_content(doubles, caller, api):
    doubles.fault(api, "reasoning", at=4)
    end = caller.call(api)
    assert of(end, "end", "text") == ("ok", TEXT) and end["usage"]["output"] == WORDS + 4, end


@pytest.mark.parametrize("api", APIS)
def test_cached_tokens(doubles, caller, api):
    doubles.fault(api, "", cached=4)
    end = caller.call(api)
    assert end["usage"]["cached"] == 4 and end["usage"]["input"] == 9, end


# ---- continuing ----

PARTIALS = ["alpha1 βeta2 gam", "alpha1 βeta2 gamma3 ", "alpha1 βeta2 gamma3 語"]


@pytest.mark.parametrize("partial", PARTIALS)
@pytest.mark.parametrize("api", APIS)
def test_prefill(doubles, caller, api, partial):
    end = caller.call(api, mode="prefill", partial=partial)
    assert end["end"] == "ok" and partial + end["text"] == TEXT, end


@pytest.mark.parametrize("partial", PARTIALS)
@pytest.mark.parametrize("api", APIS)
def test_user_turn(doubles, caller, api, partial):
    end = caller.call(api, mode="user-turn", partial=partial)
    assert end["end"] == "ok" and end["text"] == partial[-9:] + TEXT[len(partial):], end  # the core trims what was said before


@pytest.mark.parametrize("api", APIS)
def test_prefill_refused(doubles, caller, api):
    doubles.fault(api, "prefill-refused")
    end = caller.call(api, mode="prefill", partial="alpha1 ")
    assert of(end, "end", "other_target", "prefill_refused", "status", "text") == ("client", True, True, 400, ""), end
    assert of(caller.call(api, mode="user-turn", partial="alpha1 "), "end") == ("ok",)


# ---- faults ----

CANNOT = ("client", True)  # this target, but another may
WRONG = ("client", False)  # the request itself

HTTP = [  # fault, status, outcome, other_target
    ("rate-limit", 429, "busy", False), ("rate-limit-bare", 429, "busy", False), ("overloaded", None, "busy", False),
    ("unavailable", 503, "busy", False), ("spend-limit", 429, "account", False), ("no-credit", None, "account", False),
    ("unauthorized", None, "account", False), ("forbidden", 403, "account", False), ("server-error", 500, "fault", False),
    ("bad-gateway", 502, "fault", False), ("gateway-timeout", 504, "fault", False), ("redirect", 307, "fault", False),
    ("html", 200, "fault", False), ("not-found", 404, *CANNOT), ("too-long", 400, *CANNOT), ("too-large", 413, *CANNOT),
    ("bad-request", 400, *WRONG)]


@pytest.mark.parametrize("fault, status, outcome, other", HTTP, ids=[row[0] for row in HTTP])
@pytest.mark.parametrize("api", APIS)
def test_refusals(doubles, caller, api, fault, status, outcome, other):
    doubles.fault(api, fault, after=7)
    before = len(doubles.requests())
    end = caller.call(api)
    if (api, fault) == ("gemini", "spend-limit"):  # a 429 by name: nothing tells it from the minute's limit
        outcome = "busy"
    assert of(end, "end", "text", "finish") == (outcome, "", ""), end
    assert status in (None, end["status"]), end
    if outcome == "client":
        assert end["other_target"] == other, end
    if fault in ("rate-limit", "unavailable"):
        assert end["retry_after_ms"] == 7000, end
    assert len(doubles.requests()) == before + 1  # nobody tries again by himself, or follows a redirect
    assert "hello" not in end["reason"] and KEY not in end["reason"]


BROKEN = [  # fault, outcome
    ("half-event", "fault"), ("early-close", "fault"), ("cut", "fault"), ("reset-mid", "fault"), ("wrong-json", "fault"),
    ("wrong-shape", "fault"), ("huge-event", "fault"), ("overloaded-event", "busy"), ("failed-event", None)]


@pytest.mark.parametrize("at", [0, 5])
@pytest.mark.parametrize("fault, outcome", BROKEN, ids=[row[0] for row in BROKEN])
@pytest.mark.parametrize("api", APIS)
def test_broken_streams(doubles, caller, api, fault, outcome, at):
    """What came before the fault is whole; the end is never a clean one."""
    doubles.fault(api, fault, at=at)
    end = caller.call(api)
    assert end["end"] == (outcome or ("fault" if api == "openai-responses" else "busy")), end
    if fault == "reset-mid":
        assert canonical(at).startswith(end["text"]), end
    else:
        assert end["text"] == (canonical(at) if at else ""), end
    assert end["finish"] == "" and end["reason"], end


@pytest.mark.parametrize("api", APIS)
def test_no_connection(doubles, caller, api):
    end = caller.call(api + "-refuse")
    assert of(end, "end", "status", "text") == ("fault", 0, ""), end
    doubles.fault(api, "reset")
    assert of(caller.call(api), "end", "text") == ("fault", "")


@pytest.mark.parametrize("fault, clock, text", [("hang-before", "-first", ""), ("hang-head", "-first", ""), ("hang-mid", "-chunks", canonical(3))])
@pytest.mark.parametrize("api", APIS)
def test_silence(doubles, caller, api, fault, clock, text):
    doubles.fault(api + clock, fault)
    end = caller.call(api + clock)
    assert of(end, "end", "text") == ("fault", text), end
    assert {"-first": "first content", "-chunks": "between chunks"}[clock] in end["reason"]


@pytest.mark.parametrize("api", APIS)
def test_slow_streams(doubles, caller, api):
    doubles.fault(api + "-rate", "slow", ms=200)
    end = caller.call(api + "-rate")
    assert end["end"] == "fault" and "minimum rate" in end["reason"] and TEXT.startswith(end["text"]), end
    doubles.fault(api, "slow", ms=20)
    assert of(caller.call(api), "end", "text") == ("ok", TEXT)


@pytest.mark.parametrize("api", APIS)
def test_dripping_bytes(doubles, caller, api):
    doubles.fault(api, "drip")
    assert of(caller.call(api), "end", "text", "finish") == ("ok", TEXT, "stop")


@pytest.mark.parametrize("api", APIS)
def test_usage_is_estimated_when_it_is_not_told(doubles, caller, api):
    doubles.fault(api, "no-usage")
    end = caller.call(api)
    assert of(end, "end", "text") == ("ok", TEXT)
    if api != "anthropic":  # there a count of zero is a count
        assert not end["usage"]["known"] and end["usage"]["output"] > 0, end


# ---- TLS ----

def test_tls(doubles, caller):
    assert of(caller.call("tls-good"), "end", "text") == ("ok", TEXT)
    for name in ("self-signed", "wrong-name", "expired", "system"):
        before = len(doubles.requests())
        end = caller.call("tls-" + name)
        assert of(end, "end", "status", "text") == ("fault", 0, ""), end
        assert len(doubles.requests()) == before, f"{name}: a request went out before the certificate was checked"


# ---- what may not leave ----

@pytest.mark.parametrize("how, outcome", [("local_only", "client"), ("unlisted", "client"), ("no_books", "busy")])
def test_what_may_not_leave_does_not(doubles, caller, how, outcome):
    before = len(doubles.requests())
    end = caller.call("openai-chat", **{how: True})
    assert of(end, "end", "text") == (outcome, ""), end
    assert len(doubles.requests()) == before


# ---- cancels, deadlines, many at once ----

@pytest.mark.parametrize("api", APIS)
def test_cancel_drains_for_the_usage(doubles, caller, api):
    doubles.fault(api, "slow", ms=100)
    number = caller.begin(api)
    assert caller.next(number)["text"]
    caller.send(cancel=number)
    end = caller.end(number)
    assert end["end"] == "cancelled" and end["usage"]["known"] and end["usage"]["output"] == WORDS, end


@pytest.mark.parametrize("api", APIS)
def test_deadline(doubles, caller, api):
    """The request's deadline is nobody's fault; what it used is waited for, as after a cancel."""
    doubles.fault(api + "-chunks", "hang-before")
    assert of(caller.call(api + "-chunks", deadline_ms=500), "end", "text") == ("cancelled", "")


def test_many_at_once(doubles, caller):
    numbers = [(caller.begin(api, [{"role": "user", "content": f"say {10 + i} words"}]), 10 + i) for i in range(50) for api in APIS]
    for number, words in numbers:
        assert of(caller.end(number), "end", "text") == ("ok", canonical(words))


def test_nothing_of_a_key_is_said(caller):
    assert not any(KEY in line for line in caller.errors)
