#!/usr/bin/env python3
"""What 8-bit weights and 8-bit activations cost in accuracy, on a real model: float32 on the CPU, matrices and their inputs rounded.

    bench/activation_error.py --gguf MODEL.gguf [--tokenize build/tests/tokenize] [--text README.md] [--tokens 384]

For each way of rounding: perplexity of the text, KL divergence of the next token's distribution from the unrounded model's (mean
over the tokens, and the largest), and how often both like the same token best. Needs torch and transformers, which nothing else
of the benches does. The model is of the llama family; its matrices are the GGUF file's, as floats."""
import argparse
import math
import pathlib
import struct
import subprocess
import sys
import tempfile

import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUN = 128


def e4m3(x):
    return x.clamp(-448, 448).to(torch.float8_e4m3fn).float()


def rounded(x, to, largest):
    """The last dimension under one scale."""
    scale = (x.abs().amax(-1, keepdim=True) / largest).clamp_min(1e-12)
    return to(x / scale) * scale


def rows(kind):
    return (lambda x: rounded(x, e4m3, 448)) if kind == "fp8" else (lambda x: rounded(x, torch.round, 127))


def runs(x):
    """FP8, each run of 128 columns under one scale."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[-1] % RUN))
    return rounded(padded.reshape(*padded.shape[:-1], -1, RUN), e4m3, 448).reshape(padded.shape)[..., : x.shape[-1]]


def blocks(w):
    """FP8, each block of 128 x 128 under one scale."""
    out = w.clone()
    for r in range(0, w.shape[0], RUN):
        for c in range(0, w.shape[1], RUN):
            block = w[r : r + RUN, c : c + RUN]
            out[r : r + RUN, c : c + RUN] = rounded(block.reshape(-1), e4m3, 448).reshape(block.shape)
    return out


def bf16(x):
    return x.bfloat16().float()


WAYS = [  # name, weights, activations
    ("plain, BF16", None, bf16),
    ("FP8 by rows, BF16", rows("fp8"), bf16),
    ("FP8 by rows, FP8 by tokens", rows("fp8"), rows("fp8")),
    ("FP8 by rows, FP8 by runs of 128", rows("fp8"), runs),
    ("FP8 in blocks, BF16", blocks, bf16),
    ("FP8 in blocks, FP8 by tokens", blocks, rows("fp8")),
    ("FP8 in blocks, FP8 by runs of 128", blocks, runs),
    ("INT8 by rows, BF16", rows("int8"), bf16),
    ("INT8 by rows, INT8 by tokens", rows("int8"), rows("int8")),
]


def tokens(args):
    text = args.text.read_bytes()
    done = subprocess.run([args.tokenize, args.gguf], input=b"p" + struct.pack("<I", len(text)) + text, capture_output=True, check=True)
    return [int(word) for word in done.stdout.split()][: args.tokens]


def load(args):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, ROOT / "tests/golden/gguf_folder.py", args.gguf, folder, "--layers", "1000", "--vocab", "1000000"], check=True)
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def run(model, ids, matrices, weights, activations):
    hooks = []
    for matrix, whole in matrices:
        matrix.weight.data = weights(whole) if weights else whole
        if activations:
            hooks.append(matrix.register_forward_pre_hook(lambda _, inputs: (activations(inputs[0]),)))
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    for hook in hooks:
        hook.remove()
    return torch.log_softmax(logits, -1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--tokenize", default=ROOT / "build/tests/tokenize")
    parser.add_argument("--text", type=pathlib.Path, default=ROOT / "README.md")
    parser.add_argument("--tokens", type=int, default=384)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ids, model = tokens(args), load(args)
    matrices = [(m, m.weight.data.clone()) for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and ".layers." in name]
    want = run(model, ids, matrices, None, None)
    following = torch.tensor(ids[1:])
    print("weights, activations               perplexity  KL mean  KL max  same best")
    for name, weights, activations in [("plain, plain", None, None), *WAYS]:
        got = run(model, ids, matrices, weights, activations)
        perplexity = math.exp(torch.nn.functional.nll_loss(got[:-1], following).item())
        kl = (want.exp() * (want - got)).sum(-1)
        best = (got.argmax(-1) == want.argmax(-1)).double().mean()
        print(f"{name:<34} {perplexity:10.3f} {kl.mean():8.5f} {kl.max():7.4f} {100 * best:8.1f} %", flush=True)


if __name__ == "__main__":
    main()
