#!/usr/bin/env python3
"""Makes the seed inputs of fuzz_gguf, fuzz_safetensors, fuzz_model_config and fuzz_quantised: small valid files to mutate.

    python3 tests/fuzz/make_corpus.py
"""
import json
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "golden"))
import gguf_writer  # noqa: E402
import make_random_llama as random_llama  # noqa: E402


def corpus(subject, name):
    folder = os.path.join(HERE, "corpus", subject)
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, name)


def model_arguments(**changes):
    small = dict(layers=1, width=32, heads=2, kv_heads=1, head_dim=16, ffn=32, vocab=4, context=64)
    return dict(random_llama.DEFAULTS, **small, **changes)


def make_gguf():
    pairs = [("general.name", "seed"), ("a", 7), ("b", 1.5), ("c", ["x", "", "yz"]), ("d", True),
             ("e", np.arange(3, dtype=np.int32)), ("f", np.ones(2, np.float32)), ("general.alignment", 32)]
    gguf_writer.write(corpus("gguf", "types"), pairs, [(t, np.ones((2, 32), np.float32), t) for t in gguf_writer.TYPES])
    gguf_writer.write(corpus("gguf", "empty"), [], [])
    for family, rope, experts in (("llama", "llama3", 0), ("llama", "linear", 0), ("qwen2", "none", 0), ("llama", "none", 3)):
        m = model_arguments(family=family, rope=rope, tied=True, experts=experts)
        metadata = [p for p in random_llama.gguf_metadata(dict(m, vocab=259)) if not p[0].startswith("tokenizer.")]
        tensors = [("token_embd.weight", np.ones((4, 32), np.float32), "q4_0")]
        if rope == "llama3":
            tensors.append(("rope_freqs.weight", random_llama.llama3_factors(m), "f32"))
        if experts:
            tensors.append(("blk.0.ffn_down_exps.weight", np.ones((experts, 32, 32), np.float32), "q8_0"))
        gguf_writer.write(corpus("gguf", f"{family}-{rope}"), metadata, tensors)


def make_safetensors():
    random_llama.write_safetensors(corpus("safetensors", "two"), {"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float32)}, "bf16")
    header = json.dumps({"hole": {"dtype": "F32", "shape": [], "data_offsets": [4, 8]}}).encode()
    with open(corpus("safetensors", "hole"), "wb") as out:
        out.write(struct.pack("<Q", len(header)) + header + bytes(8))


def make_configs():
    for family in ("llama", "qwen2"):
        for rope in ("none", "linear", "llama3"):
            with open(corpus("model_config", f"{family}-{rope}"), "w", encoding="utf-8") as out:
                json.dump(random_llama.config_json(model_arguments(family=family, rope=rope), "f32"), out)
    with open(corpus("model_config", "mixtral"), "w", encoding="utf-8") as out:
        json.dump(random_llama.config_json(model_arguments(experts=4), "f32"), out)
    for name, quantisation in (
            ("gptq", {"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq_v2", "is_marlin_format": False}),
            ("awq", {"quant_method": "awq", "bits": 4, "group_size": -1, "version": "gemm"}),
            ("fp8", {"quant_method": "fp8", "weight_block_size": [128, 128]}),
            ("packed", {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {"weights": {
                "num_bits": 4, "strategy": "group", "group_size": 32, "symmetric": False}}}})):
        with open(corpus("model_config", name), "w", encoding="utf-8") as out:
            json.dump(dict(random_llama.config_json(model_arguments(), "f32"), quantization_config=quantisation), out)
    new = random_llama.config_json(model_arguments(), "f32")
    new["rope_parameters"] = dict(random_llama.LLAMA3, rope_theta=5e5)
    new.update(architectures=["MistralForCausalLM"], sliding_window=16)
    with open(corpus("model_config", "mistral"), "w", encoding="utf-8") as out:
        json.dump(new, out)


def make_quantised():
    """config.json, a NUL, model.safetensors: each method, its smallest model."""
    with tempfile.TemporaryDirectory() as work:
        for source, experts in (("dense", 0), ("mixtral", 2)):
            m = model_arguments(tied=True, experts=experts)
            os.makedirs(os.path.join(work, source))
            random_llama.write_safetensors(os.path.join(work, source, "model.safetensors"), random_llama.make_tensors(m), "f32")
            with open(os.path.join(work, source, "config.json"), "w", encoding="utf-8") as out:
                json.dump(random_llama.config_json(m, "f32"), out)
        for method, source, more in (("fp8", "dense", ["--scales", "block"]), ("int8", "dense", []), ("gptq", "dense", []), ("awq", "dense", []),
                                     ("packed", "dense", ["--asymmetric", "--act-order"]), ("gptq", "mixtral", [])):
            name = method if source == "dense" else source
            out = os.path.join(work, f"{name}-{method}")
            subprocess.run([sys.executable, os.path.join(HERE, "..", "golden", "quantise_folder.py"), os.path.join(work, source), out,
                            os.path.join(work, "twin"), "--method", method, "--group", "32", *more], check=True)
            with open(os.path.join(out, "config.json"), "rb") as config, open(os.path.join(out, "model.safetensors"), "rb") as weights:
                bytes_ = config.read() + b"\0" + weights.read()
            with open(corpus("quantised", name), "wb") as seed:
                seed.write(bytes_)


if __name__ == "__main__":
    make_gguf()
    make_safetensors()
    make_configs()
    make_quantised()
