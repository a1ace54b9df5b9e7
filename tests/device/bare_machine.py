#!/usr/bin/env python3
"""What bench/gpu.sh builds must need a compiler, cmake and nvcc alone: a card's machine has no library of ours and no network.

    tests/device/bare_machine.py CMAKE

Configures the kernels, their checks and benches alone, where neither pkg-config nor MPI can be asked for a library, and reads
from the compiler which headers their C sources include. Exit status 1 where one is a library's."""
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARIES = re.compile(r"/(jansson|yaml|sqlite3|pcre2|microhttpd|utf8proc|cmocka|mpi)\.h$|/(grpc|google|protobuf-c|curl|openssl)/")


def run(command, **where):
    done = subprocess.run(command, capture_output=True, text=True, **where)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def headers(unit):
    words = shlex.split(unit["command"])
    return run([*words[: words.index("-o")], "-M", unit["file"]], cwd=unit["directory"]).replace("\\\n", " ").split()


def main():
    with tempfile.TemporaryDirectory() as build:
        without = [f"-DCMAKE_DISABLE_FIND_PACKAGE_{name}=ON" for name in ("PkgConfig", "MPI")]
        run([sys.argv[1], "-S", str(ROOT), "-B", build, "-DOCTANT_ONLY_KERNELS=ON", *without])
        units = json.loads((pathlib.Path(build) / "compile_commands.json").read_text())
        sources = {unit["file"]: unit for unit in units if unit["file"].endswith(".c")}
        found = [f"{name} includes {header}" for name, unit in sources.items() for header in headers(unit) if LIBRARIES.search(header)]
    for line in found:
        print(line)
    print(f"{len(sources)} sources, {len(found)} headers of libraries")
    return 1 if found or not sources else 0


if __name__ == "__main__":
    sys.exit(main())
