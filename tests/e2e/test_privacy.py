#!/usr/bin/env python3
"""What may not leave does not, whatever happens: requests of all kinds, at random, while groups live and are dead and upstreams fail, each
with markers of its own, wherever a text can stand. What the doubles were sent must hold no marker of a local-only request and nothing that
had to be redacted, and every row of the audit matches what came, body by body.

As root the site is behind a border (border.py): the doubles are all that it can reach, it must have tried nothing else, and all of that
is asked once more of a packet capture of its only cable.

    tests/e2e/test_privacy.py --cases 10000 [--seed N] [--capture yes]      by hand; as a test a few hundred"""
import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

import pytest

import border
import wire
from cluster import ROOT, wait_for
from outside import Site
from upstream_doubles import APIS, Doubles

CASES = int(os.environ.get("OCTANT_PRIVACY_CASES", "400"))
SEED = int(os.environ.get("OCTANT_PRIVACY_SEED", "1"))
AT_ONCE = 24
ENOUGH = 400  # cases of which some have everything
PIECE = 10  # hex digits of a secret that tell whose it is
LOCAL, REDACT, LEAVE = "local-only", "redact-then-leave", "may-leave"
ORDER = [LOCAL, REDACT, LEAVE]  # the first of several holds

KEYS = {"open": LEAVE, "redacted": REDACT, "closed": LOCAL}  # and "unlisted"
MODELS = {"tiny": LEAVE, "open-alias": LEAVE, "redact-alias": REDACT, "vault": LOCAL, "outside": LEAVE, "openai-chat": LEAVE,
          "gemini": LEAVE, "outside-vault": LOCAL, "nobody-knows": LEAVE}
HEADERS = [((), LEAVE)] * 30 + [((("octant-privacy", word),), word) for word in (LEAVE, LEAVE, REDACT, LOCAL)] + [
    ((("octant-privacy", word),), LOCAL) for word in ("", "MAY-LEAVE", "yes", "may-leave;q=1", "x" * 300)] + [
    ((("octant-privacy", LEAVE), ("octant-privacy", LOCAL)), LOCAL), ((("Octant-Privacy", LOCAL), ("octant-privacy", LEAVE)), LOCAL)]
POLICY_DETECTORS = {"email": "redact", "phone": "redact", "card": "local-only", "iban": "local-only", "us-ssn": "local-only"}


def luhn(digits):
    """The digits with their check digit."""
    total = sum(sum(divmod(2 * int(d), 10)) if i % 2 == 0 else int(d) for i, d in enumerate(reversed(digits)))
    return digits + str(-total % 10)


def iban(rng):
    account = "".join(rng.choice("0123456789") for _ in range(18))
    return f"DE{98 - int(account + '131400') % 97:02d}{account}"


def finds(rng, secret):
    """(text that a detector must find, its class, whether the whole of `secret` is in it)."""
    card = luhn("4" + "".join(rng.choice("0123456789") for _ in range(14)))
    account = iban(rng)
    ssn = f"{rng.choice([*range(1, 666), *range(667, 900)]):03d}-{rng.randint(1, 99):02d}-{rng.randint(1, 9999):04d}"
    spaced = " ".join(card[i:i + 4] for i in range(0, 16, 4))
    return rng.choice([
        (f"{secret}@example.org", REDACT), (f"write to <{secret}.x+tag@mail.example.com>.", REDACT), (f"TCK-{secret}", REDACT),
        (f"card {card}", LOCAL), (f"card {spaced}.", LOCAL), (f"card {card[:4]}-{card[4:8]}-{card[8:12]}-{card[12:]}", LOCAL),
        (f"iban {account}", LOCAL), ("iban " + " ".join(account[i:i + 4] for i in range(0, len(account), 4)), LOCAL), (f"ssn {ssn}", LOCAL),
        (f"project-{secret}-internal", LOCAL)])


def disguise(rng, text):
    """As it is read, but not as it is written."""
    way = rng.choice(["full-width", "arabic", "invisible", "blanks"])
    if way == "invisible":
        return "".join(c + rng.choice("\u200b\u200d\u2060\u00ad\ufeff") if c.isdigit() and rng.random() < 0.3 else c for c in text)
    if way == "blanks":
        return text.translate({ord(" "): rng.choice("\u00a0\u2009\u3000"), ord("-"): rng.choice("\u2010\u2011\u2212")})
    zero = 0xFF10 if way == "full-width" else 0x660
    return "".join(chr(zero + int(c)) if c.isdigit() and rng.random() < 0.7 else c for c in text)


# Where a marker stands: its last letter, after the twelve hex digits that make it one case's.
PLACES = {"t": "text", "s": "system", "u": "a user's turn before", "w": "an answer before", "n": "a name", "d": "a tool's description",
          "p": "a tool's parameter", "f": "a function", "g": "arguments", "j": "arguments, escaped twice", "r": "a tool's result",
          "y": "a second part or turn", "z": "stop texts"}
MARKER = re.compile(rb"(mrk\d{6}[0-9a-f]{12})([a-z])")
REPLACED = re.compile(rb"\[(email|ticket)\]")


@dataclasses.dataclass(eq=False)
class Case:
    number: int
    marker: str
    secret: str
    key: str
    model: str
    headers: tuple
    privacy: str
    path: str
    body: dict
    escaped: bool  # the markers
    redacted: bool = False  # the secret has to be replaced, if it leaves

    def data(self):
        """The body: JSON allows any character to be written by its number."""
        text = json.dumps(self.body)
        return re.sub(self.marker, lambda m: escapes(m[0]), text).encode() if self.escaped else text.encode()


def escapes(text):
    return "".join(f"\\u{ord(c):04x}" for c in text)


def marks(rng, marker):
    """Puts the marker, with a letter that says where, into some of the places."""
    return lambda letter, often=0.5: f" {marker}{letter}" if rng.random() < often else ""


def place(rng, body, marker, extra, tools):
    """Messages, perhaps tools, with markers in them, and with what a detector finds somewhere."""
    mark = marks(rng, marker)
    spots = {name: "" for name in ("system", "before", "answer", "last", "tool", "call", "result")}
    if extra:
        spots[rng.choice(list(spots) if tools else list(spots)[:4])] = " " + extra
    messages = []
    if spots["system"] or rng.random() < 0.3:
        messages.append({"role": "system", "content": "Be short." + mark("s") + spots["system"]})
    if spots["before"] or spots["answer"] or rng.random() < 0.4:
        messages += [{"role": "user", "content": "and?" + mark("u") + spots["before"]},
                     {"role": "assistant", "content": "well" + mark("w") + spots["answer"]}]
    look = "look" + mark("f").strip()
    if tools:
        parameters = {"type": "object", "properties": {"x" + mark("p").strip(): {"type": "string"}}}
        function = {"name": look, "description": "looks" + mark("d") + spots["tool"], "parameters": parameters}
        body["tools"] = [{"type": "function", "function": function}]
    if spots["call"] or spots["result"] or (tools and rng.random() < 0.5):
        call = {"id": "call_1", "type": "function", "function": {"name": look, "arguments": arguments(mark, marker, spots["call"])}}
        messages += [{"role": "user", "content": "look"}, {"role": "assistant", "content": None, "tool_calls": [call]},
                     {"role": "tool", "tool_call_id": "call_1", "content": "seen" + mark("r") + spots["result"]}]
    said = f"{marker}t say {rng.randint(1, 4)} words"
    last = said + spots["last"]
    cut, way = rng.randint(len(marker) + 1, len(last)), rng.random()
    if way < 0.3:  # whatever is cut in two here
        last = [{"type": "text", "text": part} for part in (last[:cut], last[cut:] + mark("y"))]
    elif way < 0.4:
        messages.append({"role": "user", "content": last[:cut]})
        last = last[cut:] + mark("y")
    body["messages"] = [*messages, {"role": "user", "content": last}]
    if stop := mark("z", 0.2):
        body["stop"] = [stop]


def arguments(mark, marker, extra):
    text = json.dumps({"x": "y" + mark("g") + mark("j") + extra})
    return text.replace(f"{marker}j", escapes(f"{marker}j"))


def as_anthropic(body):
    """The same request in the other format; its path."""
    if body["messages"][0]["role"] == "system":
        body["system"] = body["messages"].pop(0)["content"]
    if "stop" in body:
        body["stop_sequences"] = body.pop("stop")
    return "/v1/messages"


def make(rng, number):
    marker = f"mrk{number:06d}{rng.getrandbits(48):012x}"
    secret = f"{rng.getrandbits(64):016x}"
    key = rng.choice(["open"] * 4 + ["redacted"] * 2 + ["closed", "unlisted"])
    model = rng.choice(["tiny"] * 6 + list(MODELS))
    headers, word = rng.choice(HEADERS)
    classes = [KEYS.get(key, LOCAL), MODELS[model], word]
    extra = ""
    if rng.random() < 0.5:
        extra, found = finds(rng, secret)
        classes.append(found)
        if found == LOCAL and rng.random() < 0.3:
            extra = disguise(rng, extra)
    body = {"model": model, "max_tokens": rng.randint(1, 3), "stream": rng.random() < 0.4}
    path = "/v1/chat/completions"
    if rng.random() < 0.1:
        path, body["prompt"] = "/v1/completions", f"{marker}t {extra}"
    else:
        place(rng, body, marker, extra, rng.random() < 0.25)
        if rng.random() < 0.2 and "tools" not in body:
            path = as_anthropic(body)
        elif rng.random() < 0.1:
            body["response_format"] = {"type": "json_object"}
        elif name := marks(rng, marker)("n").strip():
            body["messages"][-1]["name"] = name
    privacy = min(classes, key=ORDER.index)
    return Case(number, marker, secret if extra else "-", key, model, headers, privacy, path, body, rng.random() < 0.3, bool(extra))


def policy(doubles):
    upstreams = {api: {"api": api, "base-url": doubles.url(api), "model": api, "breaker": {"window": 1000, "least": 1000},
                       "first-content-timeout": "20s", "plain-http": True} for api in APIS}
    weights = [{"name": f"weighted-{i}", "match": {"complexity": [level]}, "upstreams": APIS[i:] + APIS[:i], "midstream": way,
                "weights": {"local": 60, APIS[i]: 40}} for i, (level, way) in enumerate([("simple", "continue"), ("medium", "replay")])]
    return {"upstreams": upstreams, "upstream-rules": {"return-after": "100ms", "max-attempts": 3},
            "models": {"open-alias": {"model": "tiny"}, "redact-alias": {"model": "tiny", "privacy": REDACT},
                       "vault": {"model": "tiny", "privacy": LOCAL}, "outside": {"model": "anthropic"},
                       "outside-vault": {"model": "openai-responses", "privacy": LOCAL}},
            "privacy": {"default": LOCAL, "keys": KEYS, "detectors": POLICY_DETECTORS, "patterns": [
                {"name": "ticket", "regex": "TCK-[0-9a-f]{16}", "action": "redact"},
                {"name": "project", "regex": "project-[0-9a-f]+-internal", "action": "local-only"}]},
            "routes": [{"name": "redacted", "match": {"keys": ["redacted"]}, "upstreams": APIS[2:] + APIS[:2], "spill-after": "50ms"},
                       *weights, {"name": "rest", "upstreams": APIS}]}


class Run:
    def __init__(self, site, doubles, rng, cases):
        self.site, self.doubles, self.rng = site, doubles, rng
        self.cases = [make(rng, number) for number in range(cases)]
        self.statuses, self.paths, self.served_outside = collections.Counter(), collections.Counter(), []
        self.by_marker = {case.marker: case for case in self.cases}
        self.by_secret = {case.secret[i:i + PIECE]: case for case in self.cases if case.redacted and case.privacy != LEAVE
                          for i in range(len(case.secret) - PIECE + 1)}

    def send(self, case):
        answer = self.site.ask(case.path, case.data(), case.key, case.headers)
        where = "outside" if answer.served_by in APIS else "here" if answer.status == 200 else "nobody"
        self.statuses[case.privacy, answer.status, where] += 1
        self.paths[case.path, where] += 1
        if where == "outside":
            self.served_outside.append(case)
        assert where != "outside" or case.privacy != LOCAL, (case, answer)

    def phase(self, pool, cases, alive):
        """All groups are dead or one lives, while these cases are sent."""
        if alive:
            self.site.start_group()
            self.site.wait_ready()
        for future in [pool.submit(self.send, case) for case in cases[:len(cases) // 2]]:
            future.result()
        rest = [pool.submit(self.send, case) for case in cases[len(cases) // 2:]]
        if alive:  # dies while it is asked
            for pid in self.site.rank_pids(len(self.site.groups) - 1):
                os.kill(pid, signal.SIGKILL)
        for future in rest:
            future.result()
        if alive:
            wait_for(lambda: not self.site.healthy(), 20)

    def run(self):
        phases = 4
        size = (len(self.cases) + phases - 1) // phases
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for i in range(phases):
                self.fail_some()
                self.phase(pool, self.cases[i * size:(i + 1) * size], alive=i % 2 == 0)

    def fail_some(self):
        """One upstream answers badly, another one not every time."""
        self.doubles.control("DELETE")
        bad, worse = self.rng.sample(APIS, 2)
        self.doubles.fault(bad, self.rng.choice(["rate-limit", "overloaded", "server-error", "reset", "too-long", "cut"]), at=1)
        self.doubles.fault(worse, self.rng.choice(["early-close", "wrong-json", "redirect", "overloaded-event"]), at=0, times=10)

    def check_text(self, data, told):
        """`data` (bytes) holds nothing that must not be outside; the cases whose markers it holds, with the places."""
        found = {(marker.decode(), place.decode()) for marker, place in MARKER.findall(data)}
        for marker, _ in found:
            assert self.by_marker[marker].privacy != LOCAL, f"a local-only request left: {self.by_marker[marker]}\n{told}"
        for word in re.findall(rb"(?=([0-9a-f]{%d}))" % PIECE, MARKER.sub(b" ", data)):
            assert word.decode() not in self.by_secret, f"what had to be redacted left: {self.by_secret[word.decode()]}\n{told}"
        return {(self.by_marker[marker], place) for marker, place in found}

    def check_what_left(self):
        left = collections.Counter()
        for line in self.doubles.requests():
            for case in {case for case, _ in self.check_text(f"{line['path']}?{line['query']} {line['headers']} {line['body']}".encode(), line)}:
                left[case.privacy, line["api"]] += 1
        return left

    def check_capture(self, read):
        """The same of what crossed the cable, in every form that it can be read in. What may leave was seen there, so that what may not
        would have been; of what was redacted the rest is there. Returns the bodies' hashes, and a line."""
        bodies, places, replaced, seen, payload_bytes = [], collections.Counter(), 0, set(), 0
        for frame in read.others:
            self.check_text(frame, frame)
        for connection in read.connections:
            payload = connection.payload()
            payload_bytes += len(payload)
            for form in wire.forms(payload):
                seen |= self.check_text(form, connection.stream)
            for _, body in wire.requests(payload):
                bodies.append(hashlib.sha256(body).hexdigest())
                cases = {case for case, _ in self.check_text(body, connection.stream)}
                if any(case.redacted and case.privacy == REDACT for case in cases):
                    assert REPLACED.search(body), body
                    replaced += 1
        places.update(place for _, place in seen)
        went = {case for case, _ in seen}
        missing = [case for case in self.served_outside if case not in went]
        assert not missing, f"served outside, and not in the capture: {missing[:3]}"
        assert len(self.cases) < ENOUGH or places.keys() == PLACES.keys(), places
        assert replaced, "nothing was redacted"
        return bodies, (f"capture: {read.frames} frames, {read.bytes} bytes, {len(read.connections) // 2} connections, {payload_bytes} bytes of "
                        f"payload, {len(bodies)} requests; markers of {len(went)} cases that may leave, of 0 local-only ones; {replaced} requests "
                        "with something replaced; marked places seen: " + ", ".join(f"{PLACES[p]} {n}" for p, n in places.most_common()))

    def check_audit(self, came):
        rows, (status, said) = self.site.audit()
        assert status == 0, said
        kept = collections.Counter(row["sha256"] for row in rows)
        for who, hashes in came.items():
            assert collections.Counter(hashes) == kept, f"{len(hashes)} came ({who}), {len(rows)} on record"
        assert all(row["privacy"] in (REDACT, LEAVE) for row in rows)
        return len(rows)

    def check(self, guard):
        """Once the site does no more. Returns where cases left to, and lines that say what was seen."""
        left, lines = self.check_what_left(), []
        came = {"the doubles' log": [line["sha256"] for line in self.doubles.requests()]}
        if guard:
            denied = guard.denied()
            assert denied == 0, f"the site tried to reach somebody else: {denied} packets\n{guard.tried()}"
            came["capture"], line = self.check_capture(guard.end())
            lines = [line, f"{denied} packets denied"]
        rows = self.check_audit(came)
        return left, [f"{rows} audit rows match " + " and ".join(came), *lines]


def run(model, folder, cases, seed, guard=None):
    """Prints what was seen. `guard`: the Border between site and doubles."""
    begin = time.monotonic()
    there = {"host": guard.address, "there": guard.outside} if guard else {}
    with contextlib.ExitStack() as stack:
        doubles = stack.enter_context(Doubles(folder, **there))
        if guard:
            guard.close(doubles.ports["plain"])
            stack.enter_context(guard.inside())
        site = stack.enter_context(Site(policy(doubles), keys=[*KEYS, "unlisted"], model=model, name="tiny",
                                        coordinator_args=["--no-group-wait", "200ms", "--max-queue", "4096"]))
        site.start_group()  # so that the model is known; it dies in the first phase
        site.wait_ready()
        for pid in site.rank_pids():
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not site.healthy(), 20)
        test = Run(site, doubles, random.Random(seed), cases)
        test.run()
        left, lines = test.check(guard)
    classes = collections.Counter(case.privacy for case in test.cases)
    for (privacy, status, where), count in sorted(test.statuses.items()):
        print(f"{privacy:18} {status} {where:8} {count}")
    print(", ".join(f"{path} {where} {count}" for (path, where), count in sorted(test.paths.items())))
    print(f"{cases} cases (seed {seed}): {dict(classes)}; left: {dict(left)}; {time.monotonic() - begin:.0f} s", *lines, sep="\n")
    served = {where for _, status, where in test.statuses if status == 200}
    assert served == {"here", "outside"}, "the test did not see both"
    assert test.paths["/v1/messages", "outside"] and test.paths["/v1/chat/completions", "outside"]
    assert {privacy for privacy, _ in left} == {REDACT, LEAVE}, left
    assert cases < ENOUGH or {api for _, api in left} == set(APIS), left
    assert not any(status >= 500 and privacy != LOCAL and status != 503 for privacy, status, _ in test.statuses), test.statuses


def run_guarded(model, folder, cases, seed, capture="auto"):
    """Behind a border where this machine allows one, unless `capture` is "no"; with "yes" it must. Why there was none; None: there was."""
    why_not = "not wanted" if capture == "no" else border.lacking()
    assert capture != "yes" or not why_not, why_not
    with tempfile.TemporaryDirectory() as files, contextlib.nullcontext() if why_not else border.Border(pathlib.Path(files)) as guard:
        run(model, folder, cases, seed, guard)
    return why_not


def test_privacy(tiny_model, tmp_path):
    if why_not := run_guarded(tiny_model, tmp_path, CASES, SEED):
        pytest.skip(f"passed by the doubles' log; no packet capture: {why_not}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--capture", choices=["auto", "yes", "no"], default="auto", help="a border and a packet capture; auto: where possible")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        tiny = pathlib.Path(temporary) / "tiny.gguf"
        subprocess.run([sys.executable, ROOT / "tests/golden/make_random_llama.py", "--preset", "tiny", "--gguf", tiny, "--dtype", "f32"],
                       check=True, stdout=subprocess.DEVNULL)
        if reason := run_guarded(tiny, pathlib.Path(temporary), given.cases, given.seed, given.capture):
            print(f"by the doubles' log alone; no packet capture: {reason}")
