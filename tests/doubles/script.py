"""The faults. A fault is named in the model's name, or set for a model at the control endpoint:

    double~hang-mid~at=3          the model "double~..." hangs after three pieces
    POST /_control {"model": "double", "fault": "rate-limit", "after": 2, "times": 5}

A model without a fault answers. `times=N`: only the first N requests are treated so, then the model is well again."""
import dataclasses

# name: what happens. Those of HTTP_FAULTS are answered with an error of the API's own form.
FAULTS = {
    "hang-before": "accepts the request and never says a byte",
    "hang-head": "sends the response's head and events without content, then nothing more",
    "hang-mid": "sends `at` pieces, then nothing more",
    "half-event": "sends `at` pieces and half of the next event, then ends the body in good order",
    "early-close": "sends `at` pieces, then ends the body in good order, without an end event",
    "cut": "sends `at` pieces, then closes the connection in the middle of the body",
    "reset": "resets the connection before it answers",
    "reset-mid": "sends `at` pieces, then resets the connection",
    "overloaded-event": "says that it is overloaded in an event of a 200, after `at` pieces",
    "failed-event": "as overloaded-event; at OpenAI Responses by response.failed",
    "wrong-json": "sends an event that is not JSON after `at` pieces",
    "wrong-shape": "sends JSON of another shape after `at` pieces",
    "html": "answers 200 with a web page",
    "huge-event": "sends one event of 3 MiB after `at` pieces",
    "drip": "sends every byte by itself",
    "slow": "waits `ms` between pieces",
    "slow-start": "waits `ms` before the first piece",
    "no-usage": "does not say what was used",
    "empty": "ends in good order without having said anything",
    "redirect": "answers 307 to another path of this server",
    "prefill-refused": "refuses a conversation that ends with the assistant's turn, as the API says it",
    "restarts": "accepts such a conversation, but begins the answer anew",
    "reasoning": "thinks aloud (`at` pieces) before it answers",
}
HTTP_FAULTS = {
    "rate-limit": "429 with a retry-after of `after` seconds",
    "rate-limit-bare": "429 without a retry-after",
    "spend-limit": "the spend limit's form: no time will help",
    "no-credit": "out of credit",
    "overloaded": "529 or 503, as the API says it",
    "unavailable": "503 with a retry-after of `after` seconds",
    "server-error": "500",
    "bad-gateway": "502 with a proxy's web page",
    "gateway-timeout": "504",
    "unauthorized": "401: the key is wrong",
    "forbidden": "403",
    "not-found": "404: no such model",
    "bad-request": "400: the request is wrong",
    "too-long": "the prompt is too long for the model, as the API says it",
    "too-large": "413",
}
NUMBERS = {"at": 3, "after": 1, "ms": 300, "times": 0, "cached": 0}


@dataclasses.dataclass
class Fault:
    name: str = ""
    at: int = 3
    after: int = 1
    ms: int = 300
    times: int = 0  # 0: always
    cached: int = 0


def parse(words):
    """A fault from ["hang-mid", "at=3"]. ValueError names the word that it does not know."""
    fault = Fault()
    for text in words:
        key, equals, value = text.partition("=")
        if equals and key in NUMBERS:
            setattr(fault, key, int(value))
        elif not equals and (key in FAULTS or key in HTTP_FAULTS) and not fault.name:
            fault.name = key
        else:
            raise ValueError(f"'{text}' is no fault of the doubles; tests/doubles/script.py lists them")
    return fault


class Script:
    """Which fault the next request of a model meets."""

    def __init__(self):
        self.faults, self.met = {}, {}

    def set(self, model, fault):
        self.faults[model] = fault
        self.met[model] = 0

    def clear(self, model=None):
        for name in [model] if model else list(self.faults):
            self.faults.pop(name, None)
            self.met.pop(name, None)

    def next(self, model):
        if model not in self.faults:
            _, *words = model.split("~")
            self.set(model, parse(words))
        fault = self.faults[model]
        self.met[model] += 1
        if fault.times and self.met[model] > fault.times:
            return Fault(cached=fault.cached)
        return fault
