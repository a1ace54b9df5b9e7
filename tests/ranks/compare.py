#!/usr/bin/env python3
"""Greedy tokens and logits of one rank and of several, in one or more stages, on one model: the same, bit by bit.

    tests/ranks/compare.py --generate build/tests/generate --model MODEL.gguf [--ranks 2,3/3,5/2,9] [--max-tokens 64]

3/3 are three ranks, each a stage of its own; 5/2 are stages of two ranks and of three.

No tie is excused: parts of a sum over ranks are added exactly (kernels_matmul_sums), so the number of ranks and of
stages leaves no trace; nor do other sequences in the batch, chunks of the prompt, threads or transport. Exit status 1 when one bit of a
prompt's logits or one token differs."""
import argparse
import hashlib
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent

# What must not matter either: company, chunks, who finds the largest logit, threads, transport.
VARIANTS = [
    ("16 prompts at once", 1, ["--batch", "16"]),
    ("16 prompts at once on 3 ranks", 3, ["--batch", "16"]),
    ("prompts in chunks of 3 tokens", 1, ["--chunk", "3"]),
    ("the leader sees whole rows, 2 waves in 2 stages", 2, ["--full", "--stages", "2", "--batch", "8", "--waves", "2"]),
    ("2 threads", 1, ["--threads", "2"]),
    ("2 stages of 2 ranks joined by MPI", 4, ["--transport", "mpi", "--stages", "2"]),
    ("3 waves in 3 stages of 5 ranks joined by MPI", 5, ["--transport", "mpi", "--stages", "3", "--batch", "16", "--waves", "3"]),
    ("4 waves in 4 stages of 9 ranks, chunks of 7 tokens", 9, ["--stages", "4", "--batch", "16", "--waves", "4", "--chunk", "7"]),
]


def generate(args, ranks, extra):
    command = [args.generate, args.model, "--prompts", args.prompts, *extra]
    if ranks > 1:
        command = ["mpirun", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "-n", str(ranks), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout.splitlines()


def outputs(args, ranks, stages=1):
    """The answers' token ids, one line per prompt, and a hash of all prompts' logits."""
    cut = ["--stages", str(stages)]
    tokens = generate(args, ranks, ["--max-tokens", str(args.max_tokens), *cut])
    with tempfile.NamedTemporaryFile() as logits:
        generate(args, ranks, ["--logits-out", logits.name, *cut])
        return tokens, hashlib.sha256(pathlib.Path(logits.name).read_bytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generate", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", default=HERE / "prompts.txt")
    parser.add_argument("--count", type=int, default=50, help="of the prompts")
    parser.add_argument("--ranks", default="2,3/3,5/2,9")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--timeout", type=float, default=900)
    args = parser.parse_args()

    with tempfile.NamedTemporaryFile("w") as some:
        some.writelines(pathlib.Path(args.prompts).read_text().splitlines(keepends=True)[: args.count])
        some.flush()
        args.prompts = some.name
        return int(compare(args) > 0)


def compare(args):
    base, base_logits = outputs(args, 1)
    failed = 0
    for spec in args.ranks.split(","):
        ranks, stages = map(int, (spec.split("/") + ["1"])[:2])
        tokens, logits = outputs(args, ranks, stages)
        assert base and len(tokens) == len(base)
        equal = sum(a == b for a, b in zip(base, tokens))
        failed += equal != len(base) or logits != base_logits
        print(f"ranks={ranks} stages={stages} prompts={len(base)} equal={equal} logits={'equal' if logits == base_logits else 'differ'}")
    for what, ranks, extra in VARIANTS:
        tokens = generate(args, ranks, ["--max-tokens", str(args.max_tokens), *extra])
        equal = sum(a == b for a, b in zip(base, tokens))
        failed += equal != len(base)
        print(f"{what}: prompts={len(base)} equal={equal}")
    whole = generate(args, 1, ["--max-tokens", "1", "--prompt-logprobs"])
    for ranks, stages, chunk in ((1, 1, 1), (1, 1, 3), (2, 2, 5)):
        extra = ["--chunk", str(chunk), "--stages", str(stages)]
        pieces = generate(args, ranks, ["--max-tokens", "1", "--prompt-logprobs", *extra])
        failed += pieces != whole
        print(f"prompt log probabilities, ranks={ranks} stages={stages} chunk={chunk}: {'equal' if pieces == whole else 'differ'}")
    print("failed" if failed else "passed")
    return failed


if __name__ == "__main__":
    sys.exit(main())
