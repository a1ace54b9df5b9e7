#!/usr/bin/env python3
"""Turns the matrices of a folder's layers into FP8 as llm-compressor stores it, beside the same numbers in BF16.

    tests/golden/quantise_folder.py FOLDER FP8_FOLDER TWIN_FOLDER [--scales row|matrix]

The scales are powers of two, so that stored number times scale is exact in BF16: both folders are the same model, and
must give the same logits, bit by bit, wherever FP8 is multiplied exactly. Needs numpy only."""
import argparse
import json
import pathlib
import shutil

import gguf_writer
import numpy as np


def read(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    for name, t in header.items():
        assert t["dtype"] == "F32", "make the folder with --dtype f32"
        begin, end = t["data_offsets"]
        yield name, np.frombuffer(data[8 + size + begin : 8 + size + end], "<f4").reshape(t["shape"])


def e4m3(x):
    """The nearest E4M3 value's byte, ties to even: 4 bits of exponent (bias 7), 3 of mantissa, up to 448."""
    codes = np.arange(127)
    values = np.where(codes < 8, codes * 2.0**-9, (8 + codes % 8) * 2.0 ** (codes // 8 - 10))
    a = np.minimum(np.abs(x), 448).astype(np.float64)
    above = np.minimum(np.searchsorted(values, a), 126)
    below = np.maximum(above - 1, 0)
    up, down = values[above] - a, a - values[below]
    code = np.where((up < down) | ((up == down) & (above % 2 == 0)), above, below)
    return (code | np.signbit(x) * 128).astype(np.uint8), np.where(np.signbit(x), -values[code], values[code])


def write(folder, tensors):
    header, at = {}, 0
    for name, (kind, shape, data) in tensors.items():
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    body = b"".join(data for _, _, data in tensors.values())
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("fp8", type=pathlib.Path)
    parser.add_argument("twin", type=pathlib.Path)
    parser.add_argument("--scales", choices=["row", "matrix"], default="row")
    args = parser.parse_args()
    for folder in (args.fp8, args.twin):
        shutil.copytree(args.folder, folder, dirs_exist_ok=True)
    fp8, twin = {}, {}
    for name, t in read(args.folder / "model.safetensors"):
        if t.ndim < 2 or ".layers." not in name:
            fp8[name] = twin[name] = ("BF16", t.shape, gguf_writer.encode(t, "bf16"))
            continue
        peak = np.abs(t).max(axis=1, keepdims=True) if args.scales == "row" else np.abs(t).max(keepdims=True)
        scale = 2.0 ** np.ceil(np.log2(peak / 448))
        codes, values = e4m3(t / scale)
        shape = scale.shape if args.scales == "row" else (1,)
        fp8[name] = ("F8_E4M3", t.shape, codes.tobytes())
        fp8[name + "_scale"] = ("F32", shape, scale.astype("<f4").tobytes())
        twin[name] = ("BF16", t.shape, gguf_writer.encode((values * scale).astype(np.float32), "bf16"))
    write(args.fp8, fp8)
    write(args.twin, twin)
    config = json.loads((args.fp8 / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "compressed-tensors", "format": "float-quantized"}
    (args.fp8 / "config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    main()
