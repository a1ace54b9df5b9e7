#!/usr/bin/env python3
"""Makes small models with random weights: a Hugging Face folder, a GGUF file, or both.

    make_random_llama.py --preset twin6 --dtype f32 --folder /tmp/twin6
    make_random_llama.py --preset tiny --gguf /tmp/tiny.gguf --dtype q8_0

A model is a pure function of the arguments: the numbers come from SplitMix64 and exact arithmetic, so that logits made
with one version of numpy hold for every other. The same arguments give the same model in both formats (for dtypes that
both have). Needs numpy only. The presets:

    twin6        6 query and 3 KV heads, head_dim not width / heads, untied output, llama3 RoPE scaling
    twin9        9 query and 3 KV heads, untied output
    twin-qwen2   6 query and 2 KV heads, biases on q, k, v, tied output
    twin-mistral, twin-window   a sliding window in all layers; Qwen2's in all but the first (which a GGUF file cannot say)
    twin-phi3, twin-phi4        long RoPE past its original context, with a window; below it, with part of each head rotated
    twin-gemma2  norms after each half of a layer, soft caps low enough to bite, a window in every other layer
    tiny         2 layers of width 64, context 4096: for load tests with thousands of streams
    tiny-qwen2   the same with Qwen2's biases
    twin-mixtral 5 experts of which 2 are used, in a shape like twin6's
    tiny-mixtral tiny with 4 experts
"""
import argparse
import json
import math
import os
import struct

import numpy as np

import gguf_writer

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "factor": 4.0}

PRESETS = {
    "twin6": dict(family="llama", layers=3, width=96, heads=6, kv_heads=3, head_dim=32, ffn=416, context=512, rope="llama3"),
    "twin9": dict(family="llama", layers=2, width=288, heads=9, kv_heads=3, head_dim=32, ffn=480, context=512, theta=500000.0),
    "twin-qwen2": dict(family="qwen2", layers=2, width=192, heads=6, kv_heads=2, head_dim=32, ffn=320, context=512, tied=True),
    "twin-mistral": dict(family="llama", layers=2, width=96, heads=6, kv_heads=3, head_dim=32, ffn=224, context=512, window=24),
    "twin-window": dict(family="qwen2", layers=3, width=96, heads=3, kv_heads=1, head_dim=32, ffn=224, context=512, window=17,
                        window_first=1),
    "twin-phi3": dict(family="phi3", layers=2, width=192, heads=3, kv_heads=1, head_dim=64, ffn=320, context=512, rope="longrope",
                      original=64, window=33),
    "twin-phi4": dict(family="phi3", layers=2, width=96, heads=3, kv_heads=3, head_dim=32, ffn=224, context=512, rope="longrope",
                      original=128, rotated=0.75, tied=True),
    "twin-gemma2": dict(family="gemma2", layers=4, width=96, heads=4, kv_heads=2, head_dim=64, ffn=416, context=512, window=20, tied=True,
                        attention_cap=2.0, logit_cap=2.0),
    "tiny": dict(family="llama", layers=2, width=64, heads=4, kv_heads=2, head_dim=16, ffn=128, context=4096),
    "twin-mixtral": dict(family="llama", layers=3, width=96, heads=6, kv_heads=3, head_dim=32, ffn=224, context=512, experts=5),
    "tiny-mixtral": dict(family="llama", layers=2, width=64, heads=4, kv_heads=2, head_dim=16, ffn=128, context=4096, experts=4),
    "tiny-qwen2": dict(family="qwen2", layers=2, width=64, heads=4, kv_heads=2, head_dim=16, ffn=128, context=4096, tied=True),
}
DEFAULTS = dict(family="llama", layers=2, width=64, heads=4, kv_heads=2, head_dim=16, ffn=128, vocab=512, context=4096,
                rope="none", theta=10000.0, tied=False, seed=1, window=0, window_first=0, original=0, rotated=1.0, attention_cap=0.0,
                logit_cap=0.0, experts=0, used=2)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
                 "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


# ---- numbers

def splitmix64(seed, first, count):
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(first + 1, first + count + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


class Numbers:
    """Nearly normal numbers: the sum of the four 16-bit parts of a draw; no function whose last bit depends on the machine."""

    def __init__(self, seed):
        self.seed, self.used = seed, 0

    def take(self, shape, scale, mean=0.0):
        count = int(np.prod(shape))
        bits = splitmix64(self.seed, self.used, count)
        self.used += count
        total = sum(((bits >> np.uint64(16 * i)) & np.uint64(0xFFFF)).astype(np.float64) for i in range(4))
        unit = (total / 65536.0 - 2.0) * 1.7320508075688772  # variance 1
        return (unit * scale + mean).astype(np.float32).reshape(shape)


def ffn_names(m):
    """Gate, up and down of each feed-forward network of a layer."""
    if not m["experts"]:
        return [("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")]
    return [tuple(f"block_sparse_moe.experts.{e}.{w}" for w in ("w1", "w3", "w2")) for e in range(m["experts"])]


def make_tensors(m):
    """Name in Hugging Face's terms -> float32 array, in the order of the file."""
    n = Numbers(m["seed"])
    d, f, q, kv = m["width"], m["ffn"], m["heads"] * m["head_dim"], m["kv_heads"] * m["head_dim"]
    norm, spread = 1.0, 2.0 * d ** -0.5 if m["tied"] else 1.0
    if m["family"] == "gemma2":  # stores what its norms' weights are above 1, and multiplies its embeddings by d ** 0.5
        norm, spread = 0.0, 0.8 * d ** -0.5
    t = {"model.embed_tokens.weight": n.take((m["vocab"], d), spread)}
    for i in range(m["layers"]):
        p = f"model.layers.{i}."
        t[p + "input_layernorm.weight"] = n.take((d,), 0.1, norm)
        if m["family"] == "phi3":
            t[p + "self_attn.qkv_proj.weight"] = n.take((q + 2 * kv, d), d ** -0.5)
            t[p + "self_attn.o_proj.weight"] = n.take((d, q), q ** -0.5)
            t[p + "post_attention_layernorm.weight"] = n.take((d,), 0.1, norm)
            t[p + "mlp.gate_up_proj.weight"] = n.take((2 * f, d), d ** -0.5)
            t[p + "mlp.down_proj.weight"] = n.take((d, f), f ** -0.5)
            continue
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            t[p + f"self_attn.{name}_proj.weight"] = n.take((rows, d), d ** -0.5)
            if m["family"] == "qwen2":
                t[p + f"self_attn.{name}_proj.bias"] = n.take((rows,), 0.5)
        t[p + "self_attn.o_proj.weight"] = n.take((d, q), q ** -0.5)
        t[p + "post_attention_layernorm.weight"] = n.take((d,), 0.1, norm)
        if m["family"] == "gemma2":
            t[p + "pre_feedforward_layernorm.weight"] = n.take((d,), 0.1, norm)
            t[p + "post_feedforward_layernorm.weight"] = n.take((d,), 0.1, norm)
        if m["experts"]:
            t[p + "block_sparse_moe.gate.weight"] = n.take((m["experts"], d), 2.0 * d ** -0.5)
        for gate, up, down in ffn_names(m):
            t[p + gate + ".weight"] = n.take((f, d), d ** -0.5)
            t[p + up + ".weight"] = n.take((f, d), d ** -0.5)
            t[p + down + ".weight"] = n.take((d, f), f ** -0.5)
    t["model.norm.weight"] = n.take((d,), 0.1, norm)
    if not m["tied"]:
        t["lm_head.weight"] = n.take((m["vocab"], d), 2.0 * d ** -0.5)
    return t


# ---- the tokenizer: byte-level BPE whose merges are pairs of letters, then pairs with a third

def byte_alphabet():
    """GPT-2's: printable bytes stand for themselves, the others for code points from 256 on."""
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for b in range(256):
        table[b] = chr(b) if b in plain else chr(256 + extra)
        extra += b not in plain
    return table


def make_vocab(size):
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    pairs = [(a, b) for a in letters for b in letters]
    triples = [(a + b, c) for a, b in pairs for c in letters]
    count = size - 256 - len(SPECIALS)
    if not 0 <= count <= len(pairs) + len(triples):
        raise SystemExit(f"--vocab {size} is not between {256 + len(SPECIALS)} and {256 + len(SPECIALS) + len(pairs) + len(triples)}")
    merges = (pairs + triples)[:count]
    return [byte_alphabet()[b] for b in range(256)] + [a + b for a, b in merges] + SPECIALS, merges


def tokenizer_json(tokens, merges):
    first_special = len(tokens) - len(SPECIALS)
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": first_special + i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for i, text in enumerate(SPECIALS)],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(tokens)}, "merges": [f"{a} {b}" for a, b in merges]},
    }


# ---- the Hugging Face folder

def architecture(m):
    if m["family"] == "llama":
        return "MistralForCausalLM" if m["window"] else "LlamaForCausalLM"
    return m["family"].capitalize() + "ForCausalLM"


def longrope_factors(m):
    """Short and long ones: any that grow."""
    pairs = int(m["head_dim"] * m["rotated"]) // 2
    return [1.0 + i / 16 for i in range(pairs)], [1.5 + i / 2 for i in range(pairs)]


def rope_scaling(m):
    if m["rope"] == "longrope":
        short, extended = longrope_factors(m)
        return {"type": "longrope", "short_factor": short, "long_factor": extended}
    return {"llama3": LLAMA3, "linear": LINEAR, "none": None}[m["rope"]]


def config_json(m, dtype):
    name = architecture(m)
    config = {
        "architectures": [name], "model_type": "mistral" if name.startswith("Mistral") else m["family"],
        "hidden_size": m["width"], "intermediate_size": m["ffn"], "num_hidden_layers": m["layers"],
        "num_attention_heads": m["heads"], "num_key_value_heads": m["kv_heads"], "head_dim": m["head_dim"],
        "vocab_size": m["vocab"], "max_position_embeddings": m["context"], "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "rope_theta": m["theta"], "rope_scaling": rope_scaling(m),
        "tie_word_embeddings": m["tied"], "bos_token_id": m["vocab"] - 3, "eos_token_id": m["vocab"] - 1,
        "torch_dtype": {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}[dtype],
    }
    if m["family"] == "qwen2":
        config["use_sliding_window"] = m["window"] > 0
        config["max_window_layers"] = m["window_first"]
    if m["experts"]:
        config.update(architectures=["MixtralForCausalLM"], model_type="mixtral", num_local_experts=m["experts"],
                      num_experts_per_tok=m["used"], sliding_window=None)
    if m["window"]:
        config["sliding_window"] = m["window"]
    if m["family"] == "phi3":
        config.update({"original_max_position_embeddings": m["original"], "partial_rotary_factor": m["rotated"], "pad_token_id": 0})
    if m["family"] == "gemma2":
        del config["hidden_act"]
        config.update({"hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": m["head_dim"],
                       "attn_logit_softcapping": m["attention_cap"] or None, "final_logit_softcapping": m["logit_cap"] or None})
    return config


def write_safetensors(path, tensors, dtype):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, t in tensors.items():
        size = len(gguf_writer.encode(t, dtype))
        header[name] = {"dtype": dtype.upper(), "shape": list(t.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for t in tensors.values():
            out.write(gguf_writer.encode(t, dtype))


def write_weights(folder, tensors, dtype, shards):
    if shards == 1:
        write_safetensors(os.path.join(folder, "model.safetensors"), tensors, dtype)
        return
    names, where = list(tensors), {}
    for i in range(shards):
        part = names[i * len(names) // shards:(i + 1) * len(names) // shards]
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        write_safetensors(os.path.join(folder, file), {n: tensors[n] for n in part}, dtype)
        where.update({n: file for n in part})
    total = sum(len(gguf_writer.encode(t, dtype)) for t in tensors.values())
    write_json(folder, "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as out:
        json.dump(value, out, ensure_ascii=False, indent=1)


def write_folder(folder, m, dtype, shards):
    os.makedirs(folder, exist_ok=True)
    tokens, merges = make_vocab(m["vocab"])
    write_json(folder, "config.json", config_json(m, dtype))
    write_json(folder, "tokenizer.json", tokenizer_json(tokens, merges))
    write_json(folder, "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIALS[0], "eos_token": SPECIALS[2],
        "clean_up_tokenization_spaces": False, "model_max_length": m["context"], "chat_template": CHAT_TEMPLATE})
    write_json(folder, "generation_config.json", {"bos_token_id": m["vocab"] - 3, "eos_token_id": m["vocab"] - 1})
    write_weights(folder, make_tensors(m), dtype, shards)


# ---- the GGUF file

GGUF_NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
              "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
              "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up",
              "block_sparse_moe.gate": "ffn_gate_inp"}
EXPERT_NAMES = {"w1": "ffn_gate", "w3": "ffn_up", "w2": "ffn_down"}
GEMMA2_NAMES = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
                "post_feedforward_layernorm": "post_ffw_norm"}


def gguf_name(name, family):
    top = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
    if name in top:
        return top[name]
    layer, rest = name[len("model.layers."):].split(".", 1)
    base, kind = rest.rsplit(".", 1)
    if base.startswith("block_sparse_moe.experts."):
        expert, which = base.split(".")[2:]
        return f"blk.{layer}.{EXPERT_NAMES[which]}.{expert}.{kind}"
    names = {**GGUF_NAMES, **GEMMA2_NAMES} if family == "gemma2" else GGUF_NAMES
    return f"blk.{layer}.{names[base]}.{kind}"


def interleave(w, heads):
    """Half-style rows (i, i + C/2) to pairs (2i, 2i + 1), which GGUF's llama files use."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def llama3_factors(m):
    frequency = m["theta"] ** -(np.arange(0, m["head_dim"], 2) / m["head_dim"])
    turns = LLAMA3["original_max_position_embeddings"] * frequency / (2 * np.pi)
    keep = np.clip((turns - LLAMA3["low_freq_factor"]) / (LLAMA3["high_freq_factor"] - LLAMA3["low_freq_factor"]), 0, 1)
    return (1 / ((1 - keep) / LLAMA3["factor"] + keep)).astype(np.float32)


def gguf_metadata(m):
    tokens, merges = make_vocab(m["vocab"])
    a = m["family"]
    pairs = [("general.architecture", a), ("general.name", f"random {a}"), (f"{a}.block_count", m["layers"]),
             (f"{a}.context_length", m["context"]), (f"{a}.embedding_length", m["width"]), (f"{a}.feed_forward_length", m["ffn"]),
             (f"{a}.attention.head_count", m["heads"]), (f"{a}.attention.head_count_kv", m["kv_heads"]),
             (f"{a}.attention.key_length", m["head_dim"]), (f"{a}.attention.value_length", m["head_dim"]),
             (f"{a}.attention.layer_norm_rms_epsilon", 1e-5), (f"{a}.rope.freq_base", m["theta"]),
             (f"{a}.rope.dimension_count", int(m["head_dim"] * m["rotated"])), (f"{a}.vocab_size", m["vocab"])]
    if m["experts"]:
        pairs += [(f"{a}.expert_count", m["experts"]), (f"{a}.expert_used_count", m["used"])]
    if m["rope"] == "linear":
        pairs += [(f"{a}.rope.scaling.type", "linear"), (f"{a}.rope.scaling.factor", LINEAR["factor"])]
    if m["rope"] == "longrope":
        factor = m["context"] / m["original"]
        pairs += [(f"{a}.rope.scaling.attn_factor", math.sqrt(1 + math.log(factor) / math.log(m["original"]))),
                  (f"{a}.rope.scaling.original_context_length", m["original"])]
    if m["window"]:
        pairs.append((f"{a}.attention.sliding_window", m["window"]))
    if a == "gemma2":
        pairs += [("gemma2.attn_logit_softcapping", m["attention_cap"]), ("gemma2.final_logit_softcapping", m["logit_cap"])]
    normal, control = 1, 3
    kinds = [normal] * (len(tokens) - len(SPECIALS)) + [control] * len(SPECIALS)
    return pairs + [("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "gpt-2"), ("tokenizer.ggml.tokens", tokens),
                    ("tokenizer.ggml.token_type", np.array(kinds, np.int32)), ("tokenizer.ggml.merges", [f"{x} {y}" for x, y in merges]),
                    ("tokenizer.ggml.bos_token_id", m["vocab"] - 3), ("tokenizer.ggml.eos_token_id", m["vocab"] - 1),
                    ("tokenizer.ggml.add_bos_token", False), ("tokenizer.chat_template", CHAT_TEMPLATE)]


def merge_experts(tensors):
    """One tensor of three dimensions for the experts' matrices, as files are since 2024-04."""
    merged = {}
    for name, t, dtype in tensors:
        part = name.split(".")
        if len(part) == 5:  # blk.LAYER.ffn_gate.EXPERT.weight
            name = f"blk.{part[1]}.{part[2]}_exps.weight"
            merged.setdefault(name, (name, [], dtype))[1].append(t)
        else:
            merged[name] = (name, t, dtype)
    return [(name, np.stack(t) if isinstance(t, list) else t, dtype) for name, t, dtype in merged.values()]


def write_gguf(path, m, dtype, split_experts=False):
    tensors = []
    for name, t in make_tensors(m).items():
        for part, heads in ((".q_proj.", m["heads"]), (".k_proj.", m["kv_heads"])):
            if part in name and m["family"] == "llama":
                t = interleave(t, heads)
        if m["family"] == "gemma2" and name.endswith("norm.weight"):
            t = t + np.float32(1)
        unquantised = dtype[0] == "q" and ".gate.weight" in name  # converters leave routers alone
        tensors.append((gguf_name(name, m["family"]), t, dtype if t.ndim == 2 and not unquantised else "f32"))
    if not split_experts:
        tensors = merge_experts(tensors)
    if m["rope"] == "llama3":
        tensors.append(("rope_freqs.weight", llama3_factors(m), "f32"))
    if m["rope"] == "longrope":
        for name, factors in zip(("short", "long"), longrope_factors(m)):
            tensors.append((f"rope_factors_{name}.weight", np.array(factors, np.float32), "f32"))
    gguf_writer.write(path, gguf_metadata(m), tensors)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--preset", choices=PRESETS)
    p.add_argument("--folder", help="write a Hugging Face folder here")
    p.add_argument("--gguf", help="write a GGUF file here")
    p.add_argument("--dtype", default="f32", choices=["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"])
    p.add_argument("--shards", type=int, default=1, help="safetensors files of the folder")
    p.add_argument("--family", choices=["llama", "qwen2", "phi3", "gemma2"])
    p.add_argument("--rope", choices=["none", "linear", "llama3"])
    p.add_argument("--theta", type=float)
    p.add_argument("--split-experts", action="store_true", help="a tensor for each expert in the GGUF file, as until 2024-04")
    p.add_argument("--tied", action="store_true", default=None)
    for name in ("layers", "width", "heads", "kv_heads", "head_dim", "ffn", "vocab", "context", "window", "seed", "experts", "used"):
        p.add_argument("--" + name.replace("_", "-"), type=int)
    a = p.parse_args()
    if not a.folder and not a.gguf:
        p.error("give --folder or --gguf")
    if a.folder and a.dtype[0] == "q":
        p.error(f"a folder cannot hold {a.dtype}")
    m = dict(DEFAULTS, **PRESETS.get(a.preset, {}))
    m.update({k: v for k, v in vars(a).items() if k in m and v is not None})
    if a.folder:
        write_folder(a.folder, m, a.dtype, a.shards)
    if a.gguf:
        write_gguf(a.gguf, m, a.dtype, a.split_experts)


if __name__ == "__main__":
    main()
