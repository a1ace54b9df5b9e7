#!/usr/bin/env python3
"""What may not leave does not, whatever happens: requests of all kinds, at random, while groups live and are dead and upstreams fail, each
with a marker of its own. What the doubles were sent must hold no marker of a local-only request and nothing that had to be redacted, and
every row of the audit matches what came, body by body.

    tests/e2e/test_privacy.py --cases 10000 [--seed N]      by hand; as a test a few hundred"""
import argparse
import collections
import concurrent.futures
import dataclasses
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

from cluster import ROOT, wait_for
from outside import Site
from upstream_doubles import APIS, Doubles

CASES = int(os.environ.get("OCTANT_PRIVACY_CASES", "400"))
SEED = int(os.environ.get("OCTANT_PRIVACY_SEED", "1"))
AT_ONCE = 24
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


@dataclasses.dataclass
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
    redacted: bool = False  # the secret has to be replaced, if it leaves


def place(rng, body, marker, extra, tools):
    """Messages, perhaps tools, with the marker in the last turn, and with what a detector finds somewhere in them."""
    spots = {name: "" for name in ("system", "before", "answer", "last", "tool", "call", "result")}
    if extra:
        spots[rng.choice(list(spots) if tools else list(spots)[:4])] = " " + extra
    messages = []
    if spots["system"] or rng.random() < 0.3:
        messages.append({"role": "system", "content": "Be short." + spots["system"]})
    if spots["before"] or spots["answer"] or rng.random() < 0.4:
        messages += [{"role": "user", "content": "and?" + spots["before"]}, {"role": "assistant", "content": "well" + spots["answer"]}]
    if tools:
        parameters = {"type": "object", "properties": {"x": {"type": "string"}}}
        function = {"name": "look", "description": "looks" + spots["tool"], "parameters": parameters}
        body["tools"] = [{"type": "function", "function": function}]
    if spots["call"] or spots["result"]:
        call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": json.dumps({"x": "y" + spots["call"]})}}
        messages += [{"role": "user", "content": "look"}, {"role": "assistant", "content": None, "tool_calls": [call]},
                     {"role": "tool", "tool_call_id": "call_1", "content": "seen" + spots["result"]}]
    said = f"{marker} say {rng.randint(1, 4)} words"
    last = said + spots["last"]
    if rng.random() < 0.3:  # parts become lines; what is cut in the middle is no number any more
        cut = rng.randint(len(marker), len(said))
        last = [{"type": "text", "text": part} for part in (last[:cut], last[cut:])]
    body["messages"] = [*messages, {"role": "user", "content": last}]


def as_anthropic(body):
    """The same request in the other format; its path."""
    if body["messages"][0]["role"] == "system":
        body["system"] = body["messages"].pop(0)["content"]
    return "/v1/messages"


def make(rng, number):
    marker = f"mk{number:06d}{rng.getrandbits(48):012x}"
    secret = f"{rng.getrandbits(64):016x}"
    key = rng.choice(["open"] * 4 + ["redacted"] * 2 + ["closed", "unlisted"])
    model = rng.choice(["tiny"] * 6 + list(MODELS))
    headers, word = rng.choice(HEADERS)
    classes = [KEYS.get(key, LOCAL), MODELS[model], word]
    extra = ""
    if rng.random() < 0.5:
        extra, found = finds(rng, secret)
        classes.append(found)
    body = {"model": model, "max_tokens": rng.randint(1, 3), "stream": rng.random() < 0.4}
    path = "/v1/chat/completions"
    if rng.random() < 0.1:
        path, body["prompt"] = "/v1/completions", f"{marker} {extra}"
    else:
        place(rng, body, marker, extra, rng.random() < 0.15)
        if rng.random() < 0.2 and "tools" not in body:
            path = as_anthropic(body)
        elif rng.random() < 0.1:
            body["response_format"] = {"type": "json_object"}
    privacy = min(classes, key=ORDER.index)
    return Case(number, marker, secret if extra else "-", key, model, headers, privacy, path, body, bool(extra))


def policy(doubles):
    upstreams = {api: {"api": api, "base-url": doubles.url(api), "model": api, "breaker": {"window": 1000, "least": 1000},
                       "first-content-timeout": "20s"} for api in APIS}
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
        self.statuses, self.paths = collections.Counter(), collections.Counter()

    def send(self, case):
        answer = self.site.ask(case.path, case.body, case.key, case.headers)
        where = "outside" if answer.served_by in APIS else "here" if answer.status == 200 else "nobody"
        self.statuses[case.privacy, answer.status, where] += 1
        self.paths[case.path, where] += 1
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

    def check_what_left(self):
        by_marker = {case.marker: case for case in self.cases}
        by_secret = {case.secret: case for case in self.cases if case.redacted}
        left = collections.Counter()
        for line in self.doubles.requests():
            everything = f"{line['path']}?{line['query']} {line['headers']} {line['body']}"
            for marker in set(re.findall(r"mk\d{6}[0-9a-f]{12}", everything)):
                case = by_marker[marker]
                assert case.privacy != LOCAL, f"a local-only request left: {case}\n{line}"
                left[case.privacy, line["api"]] += 1
            for word in set(re.findall(r"(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])", line["body"])):
                assert word not in by_secret, f"what had to be redacted left: {by_secret[word]}\n{line}"
        return left

    def check_audit(self):
        rows, (status, said) = self.site.audit()
        assert status == 0, said
        came = collections.Counter(line["sha256"] for line in self.doubles.requests())
        kept = collections.Counter(row["sha256"] for row in rows)
        assert came == kept, f"{sum(came.values())} came, {sum(kept.values())} on record"
        assert all(row["privacy"] in (REDACT, LEAVE) for row in rows)
        return len(rows)


def run(model, folder, cases, seed):
    """One line that says what was seen."""
    begin = time.monotonic()
    with Doubles(folder) as doubles:
        with Site(policy(doubles), keys=[*KEYS, "unlisted"], model=model, name="tiny",
                  coordinator_args=["--no-group-wait", "200ms", "--max-queue", "4096"]) as site:
            site.start_group()  # so that the model is known; it dies in the first phase
            site.wait_ready()
            for pid in site.rank_pids():
                os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not site.healthy(), 20)
            test = Run(site, doubles, random.Random(seed), cases)
            test.run()
            left, rows = test.check_what_left(), test.check_audit()
    classes = collections.Counter(case.privacy for case in test.cases)
    for (privacy, status, where), count in sorted(test.statuses.items()):
        print(f"{privacy:18} {status} {where:8} {count}")
    print(f"{cases} cases (seed {seed}): {dict(classes)}; left: {dict(left)}; {rows} audit rows; {time.monotonic() - begin:.0f} s")
    print(", ".join(f"{path} {where} {count}" for (path, where), count in sorted(test.paths.items())))
    served = {where for _, status, where in test.statuses if status == 200}
    assert served == {"here", "outside"}, "the test did not see both"
    assert test.paths["/v1/messages", "outside"] and test.paths["/v1/chat/completions", "outside"]
    assert {api for _, api in left} == set(APIS) and {privacy for privacy, _ in left} == {REDACT, LEAVE}, left
    assert not any(status >= 500 and privacy != LOCAL and status != 503 for privacy, status, _ in test.statuses), test.statuses


def test_privacy(tiny_model, tmp_path):
    run(tiny_model, tmp_path / "doubles", CASES, SEED)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        tiny = pathlib.Path(temporary) / "tiny.gguf"
        subprocess.run([sys.executable, ROOT / "tests/golden/make_random_llama.py", "--preset", "tiny", "--gguf", tiny, "--dtype", "f32"],
                       check=True, stdout=subprocess.DEVNULL)
        run(tiny, pathlib.Path(temporary) / "doubles", given.cases, given.seed)
