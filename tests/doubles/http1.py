"""The server's side of HTTP/1.1, as much as doubles need: requests with a length or in chunks, keep-alive, responses in one or in
chunks, and the ways to end badly that no library offers: silence, half a chunk, a reset."""
import asyncio
import json
import socket
import struct

HEAD_MAX, BODY_MAX = 64 << 10, 64 << 20
HANG_MAX = 600  # seconds that a hang lasts, unless the peer leaves first
REASONS = {200: "OK", 307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden",
           404: "Not Found", 405: "Method Not Allowed", 413: "Payload Too Large", 429: "Too Many Requests", 500: "Internal Server Error",
           502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout", 529: "Overloaded"}


class Gone(Exception):
    """The peer left, or we have ended the connection on purpose."""


class Exchange:
    """One request and its response."""

    def __init__(self, reader, writer, method, target, headers, body):
        self.reader, self.writer = reader, writer
        self.method, self.headers, self.body = method, headers, body
        self.path, _, self.query = target.partition("?")
        self.keep_alive = headers.get("connection", "").lower() != "close"

    async def write(self, data, alone=False):
        """`alone`: each byte in a segment of its own."""
        try:
            for part in ([data[i:i + 1] for i in range(len(data))] if alone else [data]):
                self.writer.write(part)
                await self.writer.drain()
                if alone:
                    await asyncio.sleep(0)
        except OSError as error:
            raise Gone("the client left") from error

    def head(self, status, headers, length=None):
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}", *(f"{k}: {v}" for k, v in headers.items())]
        lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def reply(self, status, headers, body, alone=False):
        if not isinstance(body, bytes):
            body = json.dumps(body, ensure_ascii=False).encode()
            headers = {"content-type": "application/json", **headers}
        await self.write(self.head(status, headers, len(body)) + body, alone)

    async def begin(self, status, headers, alone=False):
        await self.write(self.head(status, headers), alone)

    async def chunk(self, data, alone=False):
        if data:
            await self.write(b"%x\r\n%s\r\n" % (len(data), data), alone)

    async def finish(self):
        await self.write(b"0\r\n\r\n")

    async def hang(self):
        """Silence until the peer leaves."""
        try:
            await asyncio.wait_for(self.reader.read(1), HANG_MAX)
        except (OSError, asyncio.TimeoutError):
            pass
        raise Gone("the client left the silence")

    def close(self):
        self.writer.close()
        raise Gone("closed on purpose")

    def reset(self):
        """RST instead of FIN: what the peer has not read yet is lost to it."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        raise Gone("reset on purpose")


async def read_request(reader, writer):
    """The next request of a connection; None at its end. ValueError: it is none."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, OSError):
        return None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    method, target, version = first.split(" ")
    if version != "HTTP/1.1":
        raise ValueError(f"{version} is not spoken here")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        body = await read_body(reader, headers)
    except (asyncio.IncompleteReadError, OSError):
        return None
    return Exchange(reader, writer, method, target, headers, body)


async def read_body(reader, headers):
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
            if len(body) > BODY_MAX:
                raise ValueError("the body is too large")
        await reader.readuntil(b"\r\n")
        return body
    size = int(headers.get("content-length", 0))
    if size > BODY_MAX:
        raise ValueError("the body is too large")
    return await reader.readexactly(size)
