#!/usr/bin/env python3
"""Greedy tokens of 1, 2, 3, 5 and 9 ranks on one model: the same, but for ties.

    tests/ranks/compare.py --generate build/tests/generate --model MODEL.gguf [--ranks 2,3,5,9] [--max-tokens 64]

The base is one rank, which also tells, token by token, how far the best two log probabilities lie apart. Where another
rank count first differs, that gap must be a tie: below --tie. Sums over ranks round elsewhere than one long sum, so a
tie may fall either way; it ends that prompt's comparison and is counted. Exit status 1 when a difference is no tie."""
import argparse
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def generate(args, ranks, extra=()):
    command = [args.generate, args.model, "--prompts", str(args.prompts), "--max-tokens", str(args.max_tokens), *extra]
    if ranks > 1:
        command = ["mpirun", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "-n", str(ranks), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    print(done.stderr.strip().splitlines()[-1])
    return [line.split() for line in done.stdout.splitlines()]


def first_difference(left, right):
    return next((i for i, (a, b) in enumerate(zip(left, right)) if a != b), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generate", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", default=HERE / "prompts.txt")
    parser.add_argument("--ranks", default="2,3,5,9")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--tie", type=float, default=0.02, help="largest gap of log probabilities that counts as a tie")
    parser.add_argument("--timeout", type=float, default=900)
    args = parser.parse_args()

    base = generate(args, 1, ["--gaps"])
    tokens = [[entry.split(":")[0] for entry in line] for line in base]
    gaps = [[float(entry.split(":")[1]) for entry in line] for line in base]
    bad = 0
    for ranks in map(int, args.ranks.split(",")):
        other = generate(args, ranks)
        assert len(other) == len(base) and base
        equal, ties, widest = 0, 0, 0.0
        for n, line in enumerate(other):
            at = first_difference(tokens[n], line)
            if at is None:
                equal += 1
                continue
            widest = max(widest, gaps[n][at])
            if gaps[n][at] <= args.tie:
                ties += 1
            else:
                bad += 1
                print(f"ranks {ranks}, prompt {n + 1}, token {at}: {line[at]}, not {tokens[n][at]}; gap {gaps[n][at]:.6f}")
        print(f"ranks={ranks} prompts={len(base)} equal={equal} ties={ties} widest_tie={widest:.6f}")
    print(f"{'failed' if bad else 'passed'}: {bad} differences that are no ties")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
