#!/usr/bin/env python3
"""Greedy tokens beside llama.cpp's on the same GGUF file.

    llama_cpp_tokens.py MODEL.gguf [--prompts 20] [--tokens 64] [--generate build/tests/generate]

llama.cpp is the PyPI wheel xllamacpp: its server answers token ids with the log probabilities of the best two. Both sides get the same prompt ids.
Where the answers part, the gap of llama.cpp's best two tells whether that was a tie. How large a tie can be is measured in the same run: llama.cpp answers
twice, with and without flash attention, two orders of the same sums, and the gaps of the two runs differ by so much. With
quantised weights both programs round activations to 8 bits, where a sum in another order changes many a rounding: ties are wide. With
F32 weights (widen_gguf.py) nothing is rounded, and ties are narrow: that is the sharp comparison.
The last line is 'N passed, M failed'."""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

PROMPTS = [
    "The capital of France is", "Once upon a time, in a small village,", "def fibonacci(n):", "Water boils at", "The three laws of robotics are",
    "To make a good cup of tea, first", "In 1969, humans first", "The opposite of hot is", "A list of prime numbers: 2, 3, 5,",
    "Dear Sir or Madam,", "The mitochondria is", "SELECT name FROM users WHERE", "Roses are red, violets are", "The quick brown fox",
    "How do I sort a list in Python?", "The largest planet in the solar system", "My favourite book is", "1 + 1 = 2, 2 + 2 = 4, 3 + 3 =",
    "Our support team will answer your ticket", "#include <stdio.h>\n\nint main(void) {", "The weather today", "Shakespeare wrote", "When the train arrived",
    "Photosynthesis is the process"]


def ask(url, path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.loads(response.read())


def llama_answers(model, prompts, count, flash):
    """(prompt ids, answer ids, gap of the best two at each answer token), one per prompt."""
    import xllamacpp
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    params.n_parallel, params.n_ctx, params.cache_ram_mib = 1, 2048, 0
    kinds = xllamacpp.llama_flash_attn_type
    params.flash_attn_type = kinds.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED
    wide = is_wide(model)
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32 if wide else xllamacpp.ggml_type.GGML_TYPE_F16
    server = xllamacpp.Server(params)
    answers = []
    for prompt in prompts:
        ids = ask(server.listening_address, "/tokenize", {"content": prompt})["tokens"]
        got = ask(server.listening_address, "/completion", {
            "prompt": ids, "n_predict": count, "temperature": 0, "n_probs": 2, "return_tokens": True, "cache_prompt": False})
        steps = got["completion_probabilities"]
        gaps = [s["top_logprobs"][0]["logprob"] - s["top_logprobs"][1]["logprob"] for s in steps]
        answers.append((ids, [s["id"] for s in steps], gaps))
    return answers


def is_wide(model):
    from gguf import GGMLQuantizationType, GGUFReader
    return all(t.tensor_type == GGMLQuantizationType.F32 for t in GGUFReader(model).tensors)


def noise(one, other):
    """The largest difference of the gaps that the same tokens got in two runs."""
    largest = 0.0
    for (_, a, a_gaps), (_, b, b_gaps) in zip(one, other):
        same = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
        largest = max([largest] + [abs(x - y) for x, y in zip(a_gaps[:same], b_gaps[:same])])
    return largest


def our_answers(generate, model, prompts, count):
    with tempfile.NamedTemporaryFile("w", suffix=".tokens") as file:
        file.writelines(" ".join(map(str, ids)) + "\n" for ids in prompts)
        file.flush()
        done = subprocess.run([generate, model, "--token-file", file.name, "--max-tokens", str(count), "--threads", "2"],
                              capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"generate failed: {done.stderr}")
    lines = [line for line in done.stdout.splitlines() if line and line[0].isdigit()]
    return [list(map(int, line.split())) for line in lines]


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("model")
    arguments.add_argument("--prompts", type=int, default=20)
    arguments.add_argument("--tokens", type=int, default=64)
    arguments.add_argument("--generate", default=str(pathlib.Path(__file__).resolve().parents[2] / "build/tests/generate"))
    options = arguments.parse_args()
    theirs = llama_answers(options.model, PROMPTS[: options.prompts], options.tokens, flash=False)
    # Ours is a third draw of the same noise: it may part where the two would not have, so the limit leaves it a margin of half.
    tie = max(0.001, 1.5 * noise(theirs, llama_answers(options.model, PROMPTS[: options.prompts], options.tokens, flash=True)))
    print(f"llama.cpp differs from itself by up to {tie / 1.5:.4f} in the gap of the best two")
    ours = our_answers(options.generate, options.model, [ids for ids, _, _ in theirs], options.tokens)
    assert len(ours) == len(theirs), (len(ours), len(theirs))
    same = ties = failed = compared = 0
    for (ids, want, gaps), got in zip(theirs, ours):
        parting = next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), None)
        compared += len(want) if parting is None else parting
        if parting is None:
            same += 1
        elif gaps[parting] <= tie:
            ties += 1
            print(f"tie at token {parting}: gap {gaps[parting]:.4f}")
        else:
            failed += 1
            print(f"PROMPT {ids}: token {parting} is {got[parting]}, llama.cpp has {want[parting]} with gap {gaps[parting]:.4f}")
    print(f"{same} answers identical, {ties} ended by a tie, {compared} tokens compared")
    print(f"{same + ties} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
