"""python3 -m doubles [--port N] ... in the folder tests; README.md has the rest. Runs until SIGTERM, SIGINT or, with
--until-stdin-closes, the end of its standard input."""
import argparse
import asyncio
import contextlib
import json
import os
import signal
import ssl
import sys

from .server import Server


def arguments():
    parser = argparse.ArgumentParser(prog="doubles", description="Doubles of the closed APIs, with scripted faults.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--log", help="JSON lines of every request")
    parser.add_argument("--key", default="", help="what requests must carry; default: anything will do")
    parser.add_argument("--tls", action="append", default=[], metavar="NAME=CERT.pem", help="one more listener with this certificate and key")
    parser.add_argument("--address-file", help="is written when all listen: JSON of listener to port")
    parser.add_argument("--until-stdin-closes", action="store_true")
    return parser.parse_args()


async def serve(options):
    server, ports = Server(options.log, options.key), {}
    ports["plain"] = await server.listen(options.host, options.port)
    for given in options.tls:
        name, _, path = given.partition("=")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(path)
        ports[name] = await server.listen(options.host, 0, context, name)
    if options.address_file:
        with open(options.address_file + ".new", "w", encoding="utf-8") as file:
            json.dump(ports, file)
        os.rename(options.address_file + ".new", options.address_file)
    print("doubles:", ", ".join(f"{name} on {options.host}:{port}" for name, port in ports.items()), flush=True)
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for how in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(how, done.set)
    if options.until_stdin_closes:
        loop.add_reader(sys.stdin, lambda: done.set() if not os.read(0, 4096) else None)
    await done.wait()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        asyncio.run(serve(arguments()))
