"""The server: takes a request, writes it down, then answers it as its API would, or as the script says."""
import asyncio
import dataclasses
import hashlib
import json
import time

from . import anthropic_messages, gemini, openai_chat, openai_responses
from .answers import Refused, answer
from .http1 import Gone, read_request
from .script import HTTP_FAULTS, Fault, Script, parse

APIS = (openai_chat, openai_responses, anthropic_messages, gemini)
SECRET = ("authorization", "x-api-key", "x-goog-api-key")
EVENT_STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
BEFORE_THE_HEAD = ("hang-before", "reset", "redirect", "html", "bad-gateway", *HTTP_FAULTS)


class Log:
    """JSON lines: one when a request has come, before it is answered, and one when its answer is over."""

    def __init__(self, path):
        self.file = open(path, "a", encoding="utf-8") if path else None

    def write(self, **line):
        if self.file:
            self.file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self.file.flush()


class Server:
    """`key`: what every request must carry, in its API's header; "": nothing is asked for."""

    def __init__(self, log=None, key=""):
        self.log, self.key, self.script = Log(log), key, Script()
        self.number = self.now = self.peak = 0

    async def listen(self, host, port, tls=None, name="plain"):
        server = await asyncio.start_server(lambda r, w: self.connection(r, w, name), host, port, limit=1 << 20, backlog=4096, ssl=tls)
        return server.sockets[0].getsockname()[1]

    async def connection(self, reader, writer, listener):
        try:
            while exchange := await read_request(reader, writer):
                if exchange.path.startswith("/_control"):
                    await self.control(exchange)
                else:
                    await self.exchange(exchange, listener)
                if not exchange.keep_alive:
                    break
        except (Gone, OSError, ValueError):
            pass
        finally:
            writer.close()

    async def control(self, exchange):
        """GET: what is known. POST {"model", "fault", ...}: from now on. DELETE: no faults but those of the models' names."""
        if exchange.method == "POST":
            body = json.loads(exchange.body)
            fault = parse([body["fault"]] if body.get("fault") else [])
            numbers = {k: v for k, v in body.items() if k not in ("model", "fault")}
            self.script.set(body["model"], dataclasses.replace(fault, **numbers))
        elif exchange.method == "DELETE":
            self.script.clear()
        await exchange.reply(200, {}, {"requests": self.number, "now": self.now, "peak": self.peak, "met": self.script.met})

    async def exchange(self, exchange, listener):
        self.number += 1
        number, body, api, model = self.number, {}, None, None
        try:
            body = json.loads(exchange.body or b"{}")
            found = [(api, api.model_of(exchange, body)) for api in APIS]
            api, model = next(((a, m) for a, m in found if m), (None, None))
        except (ValueError, AttributeError):
            api = None
        key = api.key_of(exchange) if api else ""
        fault = self.script.next(model) if model else Fault()
        self.log.write(event="request", n=number, t=time.time(), listener=listener, method=exchange.method, path=exchange.path,
                       query=exchange.query, api=api.NAME if api else "", model=model or "", fault=fault.name, key_ok=not self.key or key == self.key,
                       headers={k: v for k, v in exchange.headers.items() if k not in SECRET},
                       sha256=hashlib.sha256(exchange.body).hexdigest(), body=exchange.body.decode(errors="replace"))
        self.now += 1
        self.peak = max(self.peak, self.now)
        state = {"event": "end", "n": number, "how": "answered", "pieces": 0}
        try:
            await self.answer(exchange, api, fault, key, number, body, state)
        except Gone as error:
            state["how"] = str(error)
            raise
        finally:
            self.now -= 1
            self.log.write(t=time.time(), **state)

    async def answer(self, exchange, api, fault, key, number, body, state):
        if api is None:
            return await exchange.reply(404, {}, {"error": {"message": f"no such endpoint: {exchange.path}"}})
        if self.key and key != self.key:
            return await self.refuse(exchange, api, "unauthorized", fault, state)
        try:
            ask = api.ask_of(exchange, body)
        except (Refused, KeyError, TypeError, AttributeError) as error:
            detail = str(error) if isinstance(error, Refused) else f"malformed request: {error!r}"
            return await self.refuse(exchange, api, "bad-request", fault, state, detail, getattr(error, "param", None))
        if fault.name in BEFORE_THE_HEAD:
            return await self.before_the_head(exchange, api, fault, state)
        if fault.name == "prefill-refused" and ask.prefill:
            return await self.refuse(exchange, api, "prefill-refused", fault, state)
        if fault.name == "slow-start":
            await asyncio.sleep(fault.ms / 1000)
        said = answer(ask, fault.name == "restarts", fault.cached, fault.at if fault.name == "reasoning" else 0)
        if fault.name == "empty":
            said.pieces, said.calls = [], []
        headers = api.limits(max(0, 10000 - number))
        if ask.stream:
            return await Stream(exchange, api, fault, state).run(ask, said, number, headers)
        await self.whole(exchange, api, fault, state, ask, said, number, headers)

    async def refuse(self, exchange, api, name, fault, state, detail="", param=None):
        status, headers, body = api.error(name, fault, detail, param)
        state |= {"status": status, "detail": detail}
        await exchange.reply(status, api.limits(0 if status == 429 else 100) | headers, body)

    async def before_the_head(self, exchange, api, fault, state):
        if fault.name == "hang-before":
            await exchange.hang()
        if fault.name == "reset":
            exchange.reset()
        page = b"<!doctype html><title>oops</title><h1>This is not the API</h1>"
        if fault.name == "redirect":
            return await exchange.reply(307, {"location": "/redirected" + exchange.path}, b"")
        if fault.name in ("html", "bad-gateway"):
            return await exchange.reply(200 if fault.name == "html" else 502, {"content-type": "text/html"}, page)
        await self.refuse(exchange, api, fault.name, fault, state)

    async def whole(self, exchange, api, fault, state, ask, said, number, headers):
        """An answer in one piece: a fault of the middle is one of the body."""
        data = json.dumps(api.whole(ask, said, number, fault.name != "no-usage"), ensure_ascii=False).encode()
        state["pieces"] = len(said.pieces)
        head = {"content-type": "application/json", **headers}
        half = data[:len(data) // 2]
        if fault.name in ("half-event", "early-close", "wrong-json"):
            return await exchange.reply(200, head, half)
        if fault.name == "wrong-shape":
            return await exchange.reply(200, head, b'{"answer": 42}')
        if fault.name in ("overloaded-event", "failed-event"):
            return await self.refuse(exchange, api, "overloaded", fault, state)
        if fault.name in ("hang-mid", "hang-head", "cut", "reset-mid"):
            await exchange.write(exchange.head(200, head, len(data)) + (b"" if fault.name == "hang-head" else half))
            return await Stream(exchange, api, fault, state).stop_here()
        if fault.name == "slow":
            await asyncio.sleep(fault.ms * len(said.pieces) / 1000)
        await exchange.reply(200, head, data, alone=fault.name == "drip")


class Stream:
    """An answer in events."""

    def __init__(self, exchange, api, fault, state):
        self.exchange, self.api, self.fault, self.state = exchange, api, fault, state

    async def run(self, ask, said, number, headers):
        fault, drip = self.fault, self.fault.name == "drip"
        await self.exchange.begin(200, EVENT_STREAM | headers, drip)
        for kind, data in self.api.events(ask, said, number, fault.name != "no-usage"):
            if kind == "content" or (kind == "tail" and self.state["pieces"] < fault.at):
                if fault.name and self.due(kind) and await self.strike(data, number):
                    return
            if kind == "tail" and fault.name == "early-close":
                break
            if kind == "content" and fault.name == "slow":
                await asyncio.sleep(fault.ms / 1000)
            await self.exchange.chunk(data, drip)
            self.state["pieces"] += kind == "content"
        await self.exchange.finish()

    def due(self, kind):
        return self.fault.name == "hang-head" or self.state["pieces"] >= self.fault.at or kind == "tail"

    async def strike(self, data, number):
        """True: the stream is over. `data`: the event whose turn it is."""
        name, chunk = self.fault.name, self.exchange.chunk
        if name in ("hang-head", "hang-mid", "cut", "reset-mid"):
            await self.stop_here()
        elif name == "half-event":
            await chunk(data[:len(data) // 2])
        elif name in ("overloaded-event", "failed-event"):
            await chunk(self.api.error_event(name, number))
        elif name == "wrong-json":
            await chunk(b'data: {"this": is not JSON\n\n')
        elif name == "wrong-shape":
            await chunk(b'data: {"answer": 42, "choices": 7, "candidates": "none", "type": ["delta"]}\n\n')
        elif name == "huge-event":
            await chunk(b"data: " + b"x" * (3 << 20) + b"\n\n")
        elif name != "early-close":
            return False
        await self.exchange.finish()
        return True

    async def stop_here(self):
        if self.fault.name in ("hang-head", "hang-mid"):
            await self.exchange.hang()
        await asyncio.sleep(0.05)  # what was sent is to arrive before the end does
        if self.fault.name == "reset-mid":
            self.exchange.reset()
        self.exchange.close()
