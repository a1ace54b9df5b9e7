"""Clients that never rest: each asks, reads its stream to the end, compares the text, and asks again. In one thread of their own."""
import asyncio
import collections
import json
import threading
import time
import urllib.parse

LONGEST = 180  # seconds; a stream that has no end after so long is lost

Piece = collections.namedtuple("Piece", "at stream")


async def read_events(reader):
    """The data of each server-sent event of a chunked HTTP/1.1 response; the status comes first."""
    status = int((await reader.readline()).split()[1])
    chunked = False
    while (line := await reader.readline()).strip():
        chunked |= line.lower().startswith(b"transfer-encoding: chunked")
    yield status
    waiting = b""
    while True:
        if chunked:
            size = int(await reader.readline() or b"0", 16)
            data = (await reader.readexactly(size + 2))[:-2]
        else:
            data = await reader.read(1 << 16)
        if not data:
            if waiting.strip() and status != 200:
                yield waiting.decode(errors="replace")
            return
        *events, waiting = (waiting + data).split(b"\n\n")
        for event in events:
            for line in event.split(b"\n"):
                if line.startswith(b"data: "):
                    yield line[6:].decode()


async def complete(address, body, on_text=None):
    """(text, error): error is None for an answer with its proper end."""
    host, port = address
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(host, port)
    text, done = [], False
    try:
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(data) + data)
        await writer.drain()
        events = read_events(reader)
        status = await anext(events)
        async for event in events:
            if status != 200:
                return "", f"HTTP {status}: {event[:300]}"
            if done:
                return "".join(text), "an event after [DONE]"
            if event == "[DONE]":
                done = True
                continue
            value = json.loads(event)
            if "error" in value:
                return "".join(text), f"error event: {value['error']}"
            piece = "".join(choice["text"] for choice in value["choices"])
            text.append(piece)
            if on_text and piece:
                on_text()
        return "".join(text), None if done else f"no [DONE]; HTTP {status}"
    except (OSError, EOFError, asyncio.IncompleteReadError, ValueError) as error:
        return "".join(text), f"broken: {error!r}"
    finally:
        writer.close()


class Streams:
    """`count` clients of the server at `http`; client i asks prompt i again and again. `wanted`: the text of each, or None yet."""

    def __init__(self, http, count, tokens):
        url = urllib.parse.urlsplit(http)
        self.address, self.count, self.tokens = (url.hostname, url.port), count, tokens
        self.wanted = [None] * count
        self.requests, self.errors, self.lost, self.different = 0, [], 0, 0
        self.began, self.last = [None] * count, [0.0] * count  # of each client: its stream's begin, its last text
        self.stalls = [0.0] * count
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)

    def body(self, i):
        return {"model": "", "prompt": f"stream {i}: ", "max_tokens": self.tokens, "stream": True, "ignore_eos": True, "temperature": 0}

    def learn(self):
        """The undisturbed run: what each prompt's text is."""
        async def one(i, gate):
            async with gate:
                text, error = await asyncio.wait_for(complete(self.address, self.body(i)), LONGEST)
            assert error is None and text, f"the undisturbed run: {error}"
            self.wanted[i] = text

        async def all_of_them():
            gate = asyncio.Semaphore(32)
            await asyncio.gather(*(one(i, gate) for i in range(self.count)))
        asyncio.run(all_of_them())

    def start(self):
        self.thread.start()

    def stop(self):
        """Lets every stream end; False when one does not."""
        self.stopping.set()
        self.thread.join(LONGEST + 20)
        return not self.thread.is_alive()

    async def _all(self):
        await asyncio.gather(*(self._client(i) for i in range(self.count)))

    async def _client(self, i):
        def heard():
            self.last[i] = time.monotonic()
        while not self.stopping.is_set():
            self.began[i] = time.monotonic()
            try:
                text, error = await asyncio.wait_for(complete(self.address, self.body(i), heard), LONGEST)
            except asyncio.TimeoutError:
                self.lost += 1
                text, error = "", None
            except OSError as why:
                text, error = "", f"cannot connect: {why}"
            self.requests += 1
            if error:
                self.errors.append((i, error))
                await asyncio.sleep(0.2)
            elif text != self.wanted[i]:
                self.different += 1
                self.errors.append((i, f"another text after {common(text, self.wanted[i])} of {len(self.wanted[i])} characters"))
            self.began[i] = None

    def waiting_since(self, moment):
        """Of the streams that had text before the moment: how many have had none since."""
        return sum(1 for began, last in zip(self.began, self.last) if began is not None and began < moment and last < moment)


def common(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
