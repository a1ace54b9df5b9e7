#!/usr/bin/env python3
"""Makes the reference logits in tests/golden/logits/ with transformers and torch on the CPU, in float32.

    python3 tests/golden/make_llama_logits.py

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
CASES = [("twin6", "f32"), ("twin6", "bf16"), ("twin9", "f32"), ("twin9", "bf16"), ("twin-qwen2", "f32"), ("twin-qwen2", "bf16")]
TOKENS, SEED = 96, 7
POSITIONS = [0, 1, 2, 3] + list(range(8, TOKENS - 1, 5)) + [TOKENS - 1]


def make(preset, dtype):
    arguments = ["--preset", preset, "--dtype", dtype, "--seed", "1"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, os.path.join(HERE, "make_random_llama.py"), *arguments, "--folder", folder], check=True)
        with open(os.path.join(folder, "model.safetensors"), "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        vocab = model.config.vocab_size
        ids = [(SEED + 97 * i + i * i * 31) % (vocab - 3) for i in range(TOKENS)]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, POSITIONS].to(torch.float32).contiguous()
    head = {"arguments": arguments, "weights_sha256": digest, "torch": torch.__version__, "transformers": transformers.__version__,
            "inv_freq": [float(x) for x in model.model.rotary_emb.inv_freq], "tokens": ids, "positions": POSITIONS, "vocab": vocab}
    path = os.path.join(HERE, "logits", f"{preset}-{dtype}.logits")
    with open(path, "wb") as out:
        out.write(json.dumps(head).encode() + b"\n" + logits.numpy().astype("<f4").tobytes())
    print(f"{path}: {len(POSITIONS)} x {vocab}, largest {logits.abs().max():.3f}")


def main():
    torch.set_num_threads(1)
    os.makedirs(os.path.join(HERE, "logits"), exist_ok=True)
    for preset, dtype in CASES:
        make(preset, dtype)


if __name__ == "__main__":
    main()
