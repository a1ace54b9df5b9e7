#!/usr/bin/env python3
"""A GGUF file's twin with every tensor in F32, for comparisons without the noise of 8-bit activations.

    widen_gguf.py IN.gguf OUT.gguf

The metadata is copied byte by byte; the weights are dequantised by the PyPI package gguf."""
import struct
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

ALIGNMENT = 32


def metadata_end(data):
    """Offset of the first tensor info: behind the key-value pairs."""
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    at = 24

    def skip(kind):
        nonlocal at
        if kind == 8:
            at += 8 + struct.unpack_from("<Q", data, at)[0]
        elif kind == 9:
            inner, count = struct.unpack_from("<IQ", data, at)
            at += 12
            if inner in sizes:
                at += sizes[inner] * count
            else:
                for _ in range(count):
                    skip(inner)
        else:
            at += sizes[kind]

    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        skip(8)
        kind = struct.unpack_from("<I", data, at)[0]
        at += 4
        skip(kind)
    return at


def main(source, target):
    reader = GGUFReader(source)
    with open(source, "rb") as file:
        header = file.read(64 << 20)
    header = header[: metadata_end(header)]
    infos, offset = b"", 0
    for t in reader.tensors:
        name = t.name.encode()
        infos += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(t.shape))
        infos += b"".join(struct.pack("<Q", int(n)) for n in t.shape) + struct.pack("<IQ", 0, offset)
        offset += -(-int(np.prod(t.shape)) * 4 // ALIGNMENT) * ALIGNMENT
    with open(target, "wb") as out:
        out.write(header + infos)
        out.write(b"\0" * (-out.tell() % ALIGNMENT))
        for t in reader.tensors:
            out.write(np.ascontiguousarray(dequantize(t.data, t.tensor_type), np.float32).tobytes())
            out.write(b"\0" * (-out.tell() % ALIGNMENT))


if __name__ == "__main__":
    main(*sys.argv[1:])
