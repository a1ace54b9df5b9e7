#!/usr/bin/env python3
"""The first layers and tokens of a GGUF file of the llama family as a Hugging Face folder in F32: real weights, quickly read.

    gguf_folder.py IN.gguf FOLDER [--layers 3] [--vocab 1024]

The tokenizer is that of a random model (make_random_llama.py): for tests that feed ids. Needs numpy and the PyPI package gguf."""
import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

from quantise_folder import write

HERE = pathlib.Path(__file__).resolve().parent
NAMES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def number(reader, key):
    field = reader.fields[f"llama.{key}"]
    return field.parts[field.data[0]][0].item()


def halves(t, heads):
    """GGUF's rows of q and k are pairs (2i, 2i + 1), the folder's (i, i + C/2)."""
    return t.reshape(heads, t.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(t.shape)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--vocab", type=int, default=1024)
    args = parser.parse_args()
    subprocess.run([sys.executable, HERE / "make_random_llama.py", "--preset", "tiny", "--folder", args.folder, "--dtype", "f32"], check=True)
    reader, tensors = GGUFReader(args.gguf), {}
    heads, kv_heads = number(reader, "attention.head_count"), number(reader, "attention.head_count_kv")
    layers = min(args.layers, number(reader, "block_count"))

    def add(name, t):
        tensors[name] = ("F32", t.shape, np.ascontiguousarray(t, "<f4").tobytes())

    for t in reader.tensors:
        part = t.name.split(".")
        if part[0] == "blk" and int(part[1]) >= layers:
            continue
        values = dequantize(t.data, t.tensor_type)
        if part[0] == "blk":
            values = halves(values, heads) if part[2] == "attn_q" else halves(values, kv_heads) if part[2] == "attn_k" else values
            add(f"model.layers.{part[1]}.{NAMES[part[2]]}.weight", values)
        elif part[0] == "token_embd":
            add("model.embed_tokens.weight", values[: args.vocab])
        elif part[0] == "output_norm":
            add("model.norm.weight", values)
    write(args.folder, tensors)
    width, ffn = number(reader, "embedding_length"), number(reader, "feed_forward_length")
    config = json.loads((args.folder / "config.json").read_text())
    config.update(hidden_size=width, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=heads,
                  num_key_value_heads=kv_heads, head_dim=width // heads, vocab_size=tensors["model.embed_tokens.weight"][1][0], tie_word_embeddings=True,
                  rms_norm_eps=number(reader, "attention.layer_norm_rms_epsilon"), rope_theta=number(reader, "rope.freq_base"))
    (args.folder / "config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    main()
