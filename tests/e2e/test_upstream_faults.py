"""Upstreams alone, without a group: every scripted fault ends as documented. Before the first content another target takes over unseen;
after it the route's mid-stream policy decides; a client's own fault is nobody else's; the breaker opens and closes."""
import time

import pytest

from cluster import wait_for
from upstream_doubles import APIS, TEXT, canonical
from outside import Site

KINDS = ("", "-brief", "-account")  # patient; with clocks that run out; whose account is refused
POLICIES = ("continue", "turn", "error", "restart", "replay")


@pytest.fixture(scope="module")
def site(doubles):
    def target(api, **more):
        return {"api": api, "base-url": doubles.url(api), "breaker": {"window": 1000, "least": 1000}, **more}

    upstreams = {"second": target("openai-chat", model="second", prefill=True), "third": target("anthropic", model="third")}
    for api in APIS:
        upstreams[api] = target(api, model=api)
        upstreams[api + "-brief"] = target(api, model=api + "-brief", **{"first-content-timeout": "1s", "between-chunks-timeout": "1s"})
        upstreams[api + "-account"] = target(api, model=api + "-account")
    upstreams["fragile"] = target("openai-chat", model="fragile", breaker={"window": 4, "least": 4, "share": 0.5, "open": "4s"})
    upstreams["patient"] = target("openai-chat", model="patient")
    upstreams["refusing"] = {**target("openai-chat", model="refusing"), "base-url": doubles.refusing("openai-chat")}
    routes = [{"name": f"{policy}-{api}", "match": {"keys": [policy], "models": [api + kind for kind in KINDS]}, "local": False,
               "upstreams": ["third" if policy == "turn" else "second", *(api + kind for kind in KINDS)],
               "midstream": "continue" if policy == "turn" else policy} for policy in POLICIES for api in APIS]
    routes += [{"name": "fragile", "match": {"models": ["fragile"]}, "local": False, "upstreams": ["fragile", "second"]},
               {"name": "alone", "match": {"models": ["patient"]}, "local": False, "upstreams": ["patient"]},
               {"name": "refusing", "match": {"models": ["refusing"]}, "local": False, "upstreams": ["refusing", "second"]}]
    policy = {"upstreams": upstreams, "upstream-rules": {"max-attempts": 2}, "routes": routes,
              "privacy": {"default": "local-only", "keys": {name: "may-leave" for name in POLICIES}}}
    with Site(policy, keys=POLICIES, coordinator_args=["--no-group-wait", "5s"]) as running:
        yield running


@pytest.fixture(autouse=True)
def no_faults(doubles):
    yield
    doubles.control("DELETE")


def ready(site, *names):
    """Waits until these are asked again: an earlier test may have made them busy."""
    for name in names:
        wait_for(lambda: site.chat("continue", name).segments == [name], 30)


def came(doubles, since):
    """Which models were asked, in order, after `since` requests."""
    return [line["model"] for line in doubles.requests()[since:]]


@pytest.mark.parametrize("api", APIS)
def test_served_by_an_upstream(site, doubles, api):
    ready(site, api)
    since = len(doubles.requests())
    answer = site.chat("continue", api)
    assert (answer.status, answer.text, answer.served_by, answer.segments) == (200, TEXT, api, [api]), answer
    stream = site.stream("continue", api).run()
    assert (stream.text, stream.finish, stream.done, stream.segments) == (TEXT, "stop", True, [api]), stream
    assert stream.served_by == api and came(doubles, since) == [api, api]


FIRST = ["rate-limit", "rate-limit-bare", "overloaded", "unavailable", "server-error", "bad-gateway", "gateway-timeout", "redirect", "html",
         "reset", "not-found", "too-long", "too-large"]
AT_ONCE = ["half-event", "early-close", "cut", "reset-mid", "wrong-json", "wrong-shape", "huge-event", "overloaded-event", "failed-event"]


@pytest.mark.parametrize("fault", FIRST + AT_ONCE)
@pytest.mark.parametrize("api", APIS)
def test_another_target_takes_over_unseen(site, doubles, api, fault):
    """Nothing of the answer was said yet: the client sees one answer, whole, from the second."""
    ready(site, api)
    doubles.fault(api, fault, at=0, after=1)
    since = len(doubles.requests())
    stream = site.stream("continue", api).run()
    assert (stream.text, stream.done, stream.segments) == (TEXT, True, ["second"]), stream
    assert came(doubles, since) == [api, "second"]
    assert stream.served_by == "second"


@pytest.mark.parametrize("fault", ["hang-before", "hang-head"])
@pytest.mark.parametrize("api", APIS)
def test_silence_is_a_fault(site, doubles, api, fault):
    doubles.fault(api + "-brief", fault)
    answer = site.chat("continue", api + "-brief")
    assert (answer.status, answer.text, answer.segments) == (200, TEXT, ["second"]), answer


def test_a_refused_connection(site, doubles):
    answer = site.chat("continue", "refusing")
    assert (answer.status, answer.text, answer.segments) == (200, TEXT, ["second"]), answer


@pytest.mark.parametrize("api", APIS)
def test_a_clients_fault_is_the_clients(site, doubles, api):
    ready(site, api)
    doubles.fault(api, "bad-request")
    since = len(doubles.requests())
    answer = site.chat("continue", api)
    assert answer.status == 400 and "upstream" in answer.error, answer
    assert came(doubles, since) == [api]


# ---- in the middle of an answer ----

BROKEN = ["half-event", "early-close", "cut", "wrong-json", "overloaded-event", "failed-event"]


@pytest.mark.parametrize("second", ["continue", "turn"])
@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("api", APIS)
def test_continue(site, doubles, api, fault, second):
    """The next target goes on from the partial answer, by prefill or by a user's turn with what it repeats cut off: no character is lost
    or said twice."""
    by = {"continue": "second", "turn": "third"}[second]
    ready(site, api)
    doubles.fault(api, fault, at=5)
    since = len(doubles.requests())
    stream = site.stream(second, api).run()
    assert (stream.text, stream.finish, stream.done, stream.segments) == (TEXT, "stop", True, [api, by]), stream
    assert came(doubles, since) == [api, by]


@pytest.mark.parametrize("api", APIS)
def test_continue_whole_answers(site, doubles, api):
    ready(site, api)
    doubles.fault(api, "cut", at=5)
    answer = site.chat("continue", api)
    assert (answer.status, answer.text, answer.segments) == (200, TEXT, [api, "second"]), answer


@pytest.mark.parametrize("api", APIS)
def test_continue_after_silence(site, doubles, api):
    doubles.fault(api + "-brief", "hang-mid", at=4)
    stream = site.stream("turn", api + "-brief").run()
    assert (stream.text, stream.done) == (TEXT, True), stream


def test_continue_is_once(site, doubles):
    ready(site, "anthropic")
    doubles.fault("anthropic", "cut", at=3)
    doubles.fault("second", "cut", at=3)
    stream = site.stream("continue", "anthropic").run()
    assert not stream.done and stream.error and TEXT.startswith(stream.text), stream


def test_tool_calls_are_not_continued(site, doubles):
    tool = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}
    whole = site.chat("continue", "anthropic", "call search", tools=[tool])
    assert whole.status == 200 and whole.body["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "search", whole
    doubles.fault("anthropic", "cut", at=2)
    stream = site.stream("continue", "anthropic", "call search", tools=[tool]).run()
    assert not stream.done and stream.error, stream


@pytest.mark.parametrize("policy", ["error", "restart", "replay"])
@pytest.mark.parametrize("api", APIS)
def test_others_end_with_an_error(site, doubles, api, policy):
    ready(site, api)
    doubles.fault(api, "cut", at=5)
    since = len(doubles.requests())
    stream = site.stream(policy, api).run()
    assert stream.error and not stream.done and stream.finish is None and stream.text == canonical(5), stream
    assert came(doubles, since) == [api]


def test_a_prefill_that_is_refused(site, doubles):
    """The second's model takes no prefill although its operator said so: the same target is asked by a user's turn, once and for all."""
    ready(site, "gemini")
    doubles.fault("gemini", "cut", at=5)
    doubles.fault("second", "prefill-refused")
    stream = site.stream("continue", "gemini").run()
    assert stream.text.startswith(canonical(5)) and (stream.text == TEXT) == stream.done, stream
    again = site.stream("continue", "gemini").run()
    assert (again.text, again.done) == (TEXT, True), again


# ---- accounts ----

@pytest.mark.parametrize("api, fault", [("openai-chat", "spend-limit"), ("openai-responses", "unauthorized"), ("anthropic", "no-credit"),
                                        ("gemini", "forbidden")])
def test_an_account_that_is_refused_is_not_asked_again(site, doubles, api, fault):
    name = api + "-account"
    doubles.fault(name, fault)
    since = len(doubles.requests())
    for _ in range(3):
        answer = site.chat("continue", name)
        assert (answer.status, answer.text, answer.segments) == (200, TEXT, ["second"]), answer
    assert came(doubles, since) == [name, "second", "second", "second"]
    wait_for(lambda: any(event["upstream"] == name for event in site.events("upstream-disabled")), 10)


# ---- back-pressure ----

def test_retry_after_is_kept(site, doubles):
    doubles.fault("patient", "rate-limit", after=2, times=1)
    begin = time.monotonic()
    answer = site.chat("continue", "patient")
    assert (answer.status, answer.text, answer.segments) == (200, TEXT, ["patient"]), answer
    assert time.monotonic() - begin >= 1.9


# ---- the breaker ----

def states(site):
    return [event["kind"] for event in site.events() if event.get("upstream") == "fragile"]


def test_breaker(site, doubles):
    for fault in ("bad-request", "too-long", "not-found", "rate-limit"):  # a client's faults and back-pressure say nothing of its health
        doubles.fault("fragile", fault, after=1)
        for _ in range(5):
            site.chat("continue", "fragile")
    assert states(site) == []
    doubles.control("DELETE")
    assert site.chat("continue", "patient").status == 200
    wait_for(lambda: site.chat("continue", "fragile").segments == ["fragile"], 10)  # its retry-after is over

    doubles.fault("fragile", "server-error")
    wait_for(lambda: site.chat("continue", "fragile").segments == ["second"] and "breaker-open" in states(site), 20)
    opened = time.monotonic()
    since = len(doubles.requests("fragile"))
    assert site.chat("continue", "fragile").segments == ["second"]
    if time.monotonic() - opened < 3:  # else it may be half-open already
        assert len(doubles.requests("fragile")) == since

    def probed():
        site.chat("continue", "fragile")
        return len(doubles.requests("fragile")) > since
    wait_for(probed, 30)  # half-open: one probe, which fails and opens it again
    wait_for(lambda: states(site).count("breaker-open") >= 2, 20)
    assert "breaker-closed" not in states(site)

    doubles.control("DELETE")
    wait_for(lambda: site.chat("continue", "fragile").segments == ["fragile"], 30)
    wait_for(lambda: states(site)[-1] == "breaker-closed", 10)


# ---- the books ----

def test_books(site, doubles):
    since = len(doubles.requests())
    site.chat("continue", "anthropic")
    line, = doubles.requests()[since:]
    wait_for(lambda: any(row["sha256"] == line["sha256"] for row in site.audit()[0]), 10)
    rows, (status, said) = site.audit()
    assert status == 0, said
    assert {row["sha256"] for row in rows} >= {line["sha256"] for line in doubles.requests()}  # nothing came that is not on record
    row = next(row for row in rows if row["sha256"] == line["sha256"])
    assert (row["key"], row["privacy"], row["upstream"], row["size"]) == ("key:continue", "may-leave", "anthropic", len(line["body"].encode()))
