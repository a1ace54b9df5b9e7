#!/usr/bin/env python3
"""Quantises the matrices of a folder's layers as one of the published formats stores them, beside the same numbers as floats.

    tests/golden/quantise_folder.py FOLDER QUANTISED_FOLDER TWIN_FOLDER [--method fp8|int8|gptq|awq|packed] ...

FOLDER is in F32. Both results are the same model, and must give the same logits, bit by bit, wherever quantised weights are
multiplied exactly. fp8 and int8 have scales that are powers of two, so that stored number times scale is exact in BF16, which
the twin is in; the others' twin is in F32. Rounding is to nearest: numbers are compared, not quality. The formats: AutoGPTQ's
and GPTQModel's QuantLinear.pack, AutoAWQ's WQLinear_GEMM.from_linear, compressed-tensors' pack_to_int32. Needs numpy only."""
import argparse
import json
import pathlib
import shutil

import gguf_writer
import numpy as np

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


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


# ---- a scale for each row, matrix or block

def peaks(t, args):
    """The largest magnitude of what shares a scale, and the scales' shape."""
    rows, cols = t.shape
    if args.scales == "matrix":
        return np.abs(t).max(keepdims=True), (1,)
    if args.scales == "row":
        return np.abs(t).max(axis=1, keepdims=True), (rows, 1)
    padded = np.zeros((-(-rows // 128) * 128, -(-cols // 128) * 128), np.float32)
    padded[:rows, :cols] = np.abs(t)
    blocks = padded.reshape(padded.shape[0] // 128, 128, padded.shape[1] // 128, 128).max(axis=(1, 3))
    return blocks, blocks.shape


def scaled(name, t, args):
    peak, shape = peaks(t, args)
    scale = 2.0 ** np.ceil(np.log2(np.maximum(peak, 1e-12) / (448 if args.method == "fp8" else 127)))
    wide = scale if args.scales != "block" else scale.repeat(128, 0).repeat(128, 1)[: t.shape[0], : t.shape[1]]
    if args.method == "fp8":
        codes, values = e4m3(t / wide)
    else:
        values = np.rint(t / wide)
        codes = values.astype(np.int8)
    end = "_scale_inv" if args.scales == "block" else "_scale"
    stored = {name: ("F8_E4M3" if args.method == "fp8" else "I8", t.shape, codes.tobytes()),
              name + end: ("F32", shape, scale.astype("<f4").tobytes())}
    return stored, ("BF16", t.shape, gguf_writer.encode((values * wide).astype(np.float32), "bf16"))


# ---- integers in 32-bit words

def pack(integers, bits, axis, order=None):
    """Words of 32 / bits integers that follow each other along an axis, the first in the lowest bits."""
    q = np.moveaxis(integers, axis, -1).astype(np.uint32)
    per = 32 // bits
    q = np.pad(q, ((0, 0), (0, -q.shape[-1] % per))).reshape(q.shape[0], -1, per)
    q = q[..., order or list(range(per))]
    words = np.bitwise_or.reduce(q << (bits * np.arange(per, dtype=np.uint32)), axis=-1)
    return np.ascontiguousarray(np.moveaxis(words, -1, axis)).view("<i4")


def words(t):
    return ("I32", t.shape, t.tobytes())


def integers(t, args):
    """(rows, cols) integers, (rows, groups) scales and zero points, and the numbers that they stand for."""
    rows, cols = t.shape
    group = args.group if args.group > 0 else cols
    padded = np.pad(t, ((0, 0), (0, -cols % group))).reshape(rows, -1, group)
    top, middle = 2**args.bits - 1, 2 ** (args.bits - 1)
    if args.asymmetric:
        low, high = np.minimum(padded.min(2), 0), np.maximum(padded.max(2), 0)
        scale = (high - low) / top
    else:
        scale = np.abs(padded).max(2) / (middle - 0.5)
    scale = np.maximum(scale, 1e-5)
    stored = gguf_writer.encode(scale, args.scale_type)
    scale = scale.astype(np.float16).astype(np.float32)
    if args.scale_type == "bf16":
        scale = (np.frombuffer(stored, "<u2").astype(np.uint32) << 16).view("<f4").reshape(scale.shape)
    zero = np.clip(np.rint(-low / scale), 0, top) if args.asymmetric else np.full(scale.shape, middle)
    q = np.clip(np.rint(padded / scale[..., None]) + zero[..., None], 0, top)
    numbers = ((q - zero[..., None]) * scale[..., None]).astype(np.float32).reshape(rows, -1)[:, :cols]
    return q.reshape(rows, -1)[:, :cols].astype(np.uint32), scale, zero.astype(np.uint32), numbers


# Matrices that meet one activation are quantised in one order of columns, that of its importance.
TOGETHER = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "qkv_proj": 0, "o_proj": 1, "gate_proj": 2, "up_proj": 2, "gate_up_proj": 2, "down_proj": 3}


def column_order(base, cols, args):
    """A random order of the columns to quantise in; --stray: v's and up's of layer 0 are of their own."""
    if not args.act_order:
        return np.arange(cols)
    layer, matrix = int(base.split(".layers.")[1].split(".")[0]), base.split(".")[-1]
    seed = [layer, TOGETHER[matrix] + 10 * (args.stray and layer == 0 and matrix in ("v_proj", "up_proj"))]
    return np.random.default_rng(seed).permutation(cols)


def ordered_integers(base, t, args):
    """integers() of the columns in their order, put back where they stood, and the group of each column."""
    cols = t.shape[1]
    order = column_order(base, cols, args)
    back = np.argsort(order)
    q, scale, zero, numbers = integers(t[:, order], args)
    groups = back // (args.group if args.group > 0 else cols)
    return np.ascontiguousarray(q[:, back]), scale, zero, np.ascontiguousarray(numbers[:, back]), groups.astype("<i4")


def packed(name, t, args):
    base, (rows, cols) = name.removesuffix(".weight"), t.shape
    q, scale, zero, numbers, groups = ordered_integers(base, t, args)
    twin = ("F32", t.shape, numbers.tobytes())
    kind = args.scale_type.upper()
    if args.method == "packed":
        stored = {base + ".weight_packed": words(pack(q, args.bits, 1)),
                  base + ".weight_scale": (kind, scale.shape, gguf_writer.encode(scale, args.scale_type)),
                  base + ".weight_shape": ("I64", (2,), np.array([rows, cols], "<i8").tobytes())}
        if args.act_order:
            stored[base + ".weight_g_idx"] = words(groups)
        if args.asymmetric:
            stored[base + ".weight_zero_point"] = words(pack(zero, args.bits, 0))
        return stored, twin
    scales = (kind, scale.T.shape, gguf_writer.encode(np.ascontiguousarray(scale.T), args.scale_type))
    if args.method == "awq":
        return {base + ".qweight": words(pack(q.T, 4, 1, AWQ_ORDER)),
                base + ".qzeros": words(pack(zero.T, 4, 1, AWQ_ORDER)), base + ".scales": scales}, twin
    less = 0 if args.v2 else 1
    return {base + ".qweight": words(pack(q.T, args.bits, 0)),
            base + ".qzeros": words(pack((zero.T - np.uint32(less)) & np.uint32(2**args.bits - 1), args.bits, 1)),
            base + ".scales": scales,
            base + ".g_idx": words(groups)}, twin


def compressed(form, weights):
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {"quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed", "ignore": ["lm_head"],
            "config_groups": {"group_0": group}}


def config_of(args):
    if args.method == "fp8" and args.scales == "block":
        return {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128]}
    if args.method in ("fp8", "int8"):
        kind = "float" if args.method == "fp8" else "int"
        return compressed(f"{kind}-quantized", {"num_bits": 8, "type": kind, "symmetric": True,
                                                "strategy": {"row": "channel", "matrix": "tensor", "block": "block"}[args.scales]})
    if args.method == "gptq":
        return {"quant_method": "gptq", "bits": args.bits, "group_size": args.group, "sym": not args.asymmetric, "desc_act": args.act_order,
                "checkpoint_format": "gptq_v2" if args.v2 else "gptq"}
    if args.method == "awq":
        return {"quant_method": "awq", "bits": 4, "group_size": args.group, "zero_point": True, "version": "gemm",
                "modules_to_not_convert": None}
    weights = {"num_bits": args.bits, "type": "int", "symmetric": not args.asymmetric, "actorder": "group" if args.act_order else None,
               "strategy": "group" if args.group > 0 else "channel", "group_size": args.group if args.group > 0 else None}
    return compressed("pack-quantized", weights)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("quantised", type=pathlib.Path)
    parser.add_argument("twin", type=pathlib.Path)
    parser.add_argument("--method", choices=["fp8", "int8", "gptq", "awq", "packed"], default="fp8")
    parser.add_argument("--scales", choices=["row", "matrix", "block"], default="row", help="fp8 and int8: what shares a scale")
    parser.add_argument("--bits", type=int, choices=[4, 8], default=4)
    parser.add_argument("--group", type=int, default=128, help="columns that share a scale; -1: the whole row")
    parser.add_argument("--asymmetric", action="store_true", help="zero points of their own")
    parser.add_argument("--v2", action="store_true", help="gptq: zero points are stored as they are")
    parser.add_argument("--act-order", action="store_true", help="gptq and packed: groups of columns in another order than theirs")
    parser.add_argument("--stray", action="store_true", help="with --act-order: v and up of layer 0 in an order of their own")
    parser.add_argument("--scale-type", choices=["f16", "bf16"], default="f16")
    args = parser.parse_args()
    for folder in (args.quantised, args.twin):
        shutil.copytree(args.folder, folder, dirs_exist_ok=True)
    quantised, twin = {}, {}
    for name, t in read(args.folder / "model.safetensors"):
        if t.ndim < 2 or ".layers." not in name or name.endswith("block_sparse_moe.gate.weight"):  # routers are left alone
            quantised[name] = twin[name] = ("BF16", t.shape, gguf_writer.encode(t, "bf16"))
            continue
        stored, twin[name] = (scaled if args.method in ("fp8", "int8") else packed)(name, t, args)
        quantised.update(stored)
    write(args.quantised, quantised)
    write(args.twin, twin)
    config = json.loads((args.quantised / "config.json").read_text())
    config["quantization_config"] = config_of(args)
    (args.quantised / "config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    main()
