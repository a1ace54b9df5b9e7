#!/usr/bin/env python3
"""Makes the reference logits in tests/golden/logits/ with transformers and torch on the CPU, in float32.

    python3 tests/golden/make_llama_logits.py [PRESET...]

Needs torch and transformers, which the tests do not: they read the files. A file is one line of JSON (the model's arguments for
make_random_llama.py, SHA-256 of its model.safetensors, versions, RoPE frequencies, token ids, positions, vocabulary), a newline, then
float32 logits, little-endian, (positions, vocabulary). For BF16 the stored weights are BF16 and the arithmetic is float32.
"""
import hashlib
import json
import os
import subprocess
import sys
import tempfile

import torch
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))
# Preset, dtype, seed of the weights, tokens. Mixtral's are chosen such that no router's second and third best are nearer than 0.07:
# where they tie, a rounding in BF16 changes the expert and with it everything.
CASES = [*((preset, dtype, 1, 96) for preset in ("twin6", "twin9", "twin-qwen2") for dtype in ("f32", "bf16")),
         ("twin-mixtral", "f32", 39, 24), ("twin-mixtral", "bf16", 39, 24),
         ("twin-mistral", "f32", 1, 96), ("twin-window", "f32", 1, 96), ("twin-phi3", "f32", 1, 96), ("twin-phi3", "bf16", 1, 96),
         ("twin-phi4", "f32", 1, 96), ("twin-gemma2", "f32", 1, 96), ("twin-gemma2", "bf16", 1, 96)]
# What the tests must know of a case: the longest sequence that the rank is to be made for, where that decides about the RoPE
# factors (transformers decides by the prompt), and that GGUF cannot hold the model.
NOTES = {"twin-phi4": {"context": 128}, "twin-window": {"gguf": False}}
SEED = 7


def positions_of(tokens):
    return [0, 1, 2, 3] + list(range(8, tokens - 1, 5)) + [tokens - 1]


def make(preset, dtype, seed, tokens):
    arguments, positions = ["--preset", preset, "--dtype", dtype, "--seed", str(seed)], positions_of(tokens)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, os.path.join(HERE, "make_random_llama.py"), *arguments, "--folder", folder], check=True)
        with open(os.path.join(folder, "model.safetensors"), "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        if dtype == "bf16" and hasattr(model.model.embed_tokens, "embed_scale"):
            scale = model.model.embed_tokens.embed_scale  # is rounded to the type that the model is run in
            scale.copy_(scale.to(torch.bfloat16).float())
        vocab = model.config.vocab_size
        ids = [(SEED + 97 * i + i * i * 31) % (vocab - 3) for i in range(tokens)]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, positions].to(torch.float32).contiguous()
    head = {"arguments": arguments, "weights_sha256": digest, "torch": torch.__version__, "transformers": transformers.__version__,
            "inv_freq": [float(x) for x in model.model.rotary_emb.inv_freq], "tokens": ids, "positions": positions, "vocab": vocab,
            **NOTES.get(preset, {})}
    path = os.path.join(HERE, "logits", f"{preset}-{dtype}.logits")
    with open(path, "wb") as out:
        out.write(json.dumps(head).encode() + b"\n" + logits.numpy().astype("<f4").tobytes())
    print(f"{path}: {len(positions)} x {vocab}, largest {logits.abs().max():.3f}")


def main():
    torch.set_num_threads(1)
    os.makedirs(os.path.join(HERE, "logits"), exist_ok=True)
    for case in CASES:
        make(*case)


if __name__ == "__main__":
    main()
