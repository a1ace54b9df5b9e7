"""Writes GGUF version 3 files for tests, and encodes arrays as the types that Octant reads (layouts: common/base/dtype.h).

The quantisers are the plain round-to-nearest of the format's description; a test compares what was read back, not their quality.
"""
import struct

import numpy as np

TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 8, "bf16": 30}
ALIGNMENT = 32


def _bf16(t):
    bits = np.ascontiguousarray(t, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _divide(x, d):
    return np.divide(x, d, out=np.zeros_like(x), where=d != 0)


def _nibbles(q):
    return (q[:, :16] | (q[:, 16:] << 4)).astype(np.uint8)


def _join(*columns):
    return np.concatenate([c.view(np.uint8).reshape(len(c), -1) for c in columns], axis=1).tobytes()


def _q8_0(x):
    d = np.abs(x).max(1, keepdims=True) / np.float32(127)
    return _join(d.astype(np.float16), np.rint(_divide(x, d)).astype(np.int8))


def _q4_0(x):
    peak = np.take_along_axis(x, np.abs(x).argmax(1)[:, None], 1)
    d = peak / np.float32(-8)
    return _join(d.astype(np.float16), _nibbles(np.clip(np.rint(_divide(x, d)) + 8, 0, 15).astype(np.uint8)))


def _q4_1(x):
    low = x.min(1, keepdims=True)
    d = (x.max(1, keepdims=True) - low) / np.float32(15)
    return _join(d.astype(np.float16), low.astype(np.float16), _nibbles(np.clip(np.rint(_divide(x - low, d)), 0, 15).astype(np.uint8)))


def encode(t, dtype):
    """The bytes of an array."""
    if dtype == "f32":
        return np.ascontiguousarray(t, np.float32).tobytes()
    if dtype == "f16":
        return t.astype(np.float16).tobytes()
    if dtype == "bf16":
        return _bf16(t).tobytes()
    if t.shape[-1] % 32:
        raise SystemExit(f"{dtype} needs rows of a multiple of 32 values, not {t.shape[-1]}")
    return {"q8_0": _q8_0, "q4_0": _q4_0, "q4_1": _q4_1}[dtype](np.ascontiguousarray(t, np.float32).reshape(-1, 32))


def _string(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def _value(v):
    if isinstance(v, bool):
        return struct.pack("<IB", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, str):
        return struct.pack("<I", 8) + _string(v)
    if isinstance(v, np.ndarray):
        kind = {"int32": 5, "float32": 6}[v.dtype.name]
        return struct.pack("<IIQ", 9, kind, len(v)) + v.tobytes()
    return struct.pack("<IIQ", 9, 8, len(v)) + b"".join(_string(s) for s in v)


def write(path, metadata, tensors):
    """metadata: pairs of key and value (bool, int, float, str, list of str, array). tensors: (name, array, dtype)."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(_string(k) + _value(v) for k, v in metadata)
    data = b""
    for name, t, dtype in tensors:
        data += b"\0" * (-len(data) % ALIGNMENT)
        shape = t.shape[::-1]  # the fastest first
        head += _string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", TYPES[dtype], len(data))
        data += encode(t, dtype)
    head += b"\0" * (-len(head) % ALIGNMENT)
    with open(path, "wb") as out:
        out.write(head + data)
