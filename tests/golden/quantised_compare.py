#!/usr/bin/env python3
"""Quantised folders beside the same numbers as floats: the same logits.

    tests/golden/quantised_compare.py --generate build/tests/generate --gguf MODEL.gguf [--only WORD]

Real weights (some layers of the GGUF file), and a small random model for FP8's scales of rows and matrices, in each format that
folders are published in (quantise_folder.py). FP8 and 8-bit integers with scales that are powers of two are exact in BF16, so
they must give their BF16 twin's logits on any kernel and number of ranks. Packed integers must give their F32 twin's on the
plain kernels, bit by bit; on the fast ones, which round activations to 8 bits, they may differ by LIMIT, and all rank counts
must give the same bits. In act-order, columns are added up in another order and o's numbers are rounded to F16: within ORDER_LIMIT
of the twin on the plain kernels, and again the same bits on all rank counts. On the fast ones a random order spreads the large
activations over more of the blocks that are rounded: ORDER_LIMIT_FAST."""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy

HERE = pathlib.Path(__file__).resolve().parent
TOKENS = "5 6 7 8 9 10 200 300"
LIMIT = 0.05
ORDER_LIMIT, ORDER_LIMIT_FAST = 2e-3, 0.1
FLOATS = [  # source, arguments
    ("random", ["--method", "fp8", "--scales", "row"]),
    ("random", ["--method", "fp8", "--scales", "matrix"]),
    ("real", ["--method", "fp8", "--scales", "block"]),
    ("real", ["--method", "int8", "--scales", "row"]),
    ("mixtral", ["--method", "fp8", "--scales", "matrix"]),
    ("mixtral", ["--method", "int8", "--scales", "row"]),
]
PACKED = [  # source, arguments, ranks
    ("real", ["--method", "gptq"], [1, 2]),
    ("real", ["--method", "gptq", "--group", "32", "--asymmetric"], [1, 3]),
    ("real", ["--method", "gptq", "--group", "64", "--asymmetric", "--v2"], [1]),
    ("real", ["--method", "gptq", "--group", "-1", "--bits", "8"], [1]),
    ("real", ["--method", "awq", "--group", "64", "--asymmetric"], [1, 2]),
    ("real", ["--method", "packed", "--group", "32", "--scale-type", "bf16"], [1, 2]),
    ("real", ["--method", "packed", "--group", "-1", "--asymmetric"], [1]),
    ("mixtral", ["--method", "gptq", "--group", "32", "--asymmetric"], [1, 3]),
    ("mixtral", ["--method", "awq", "--group", "32", "--asymmetric"], [1]),
    ("mixtral", ["--method", "packed", "--group", "32"], [1, 2]),
]
ORDERED = [  # arguments, ranks; and 8 bits off the middle, which become F16, too
    (["--method", "gptq", "--group", "32", "--asymmetric", "--act-order"], [2, 3]),
    (["--method", "gptq", "--group", "64", "--bits", "8", "--act-order"], [2]),
    (["--method", "gptq", "--group", "64", "--act-order", "--stray"], [2]),
    (["--method", "packed", "--group", "128", "--asymmetric", "--act-order"], [3]),
    (["--method", "gptq", "--group", "64", "--bits", "8", "--asymmetric"], [2]),
]


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


class Compare:
    def __init__(self, args, folder):
        self.args, self.folder, self.passed, self.failed = args, folder, 0, 0
        self.sources = {"random": folder / "random", "mixtral": folder / "mixtral", "real": folder / "real"}
        for source, preset in (("random", "twin6"), ("mixtral", "twin-mixtral")):
            run([sys.executable, HERE / "make_random_llama.py", "--preset", preset, "--folder", self.sources[source], "--dtype", "f32"])
        run([sys.executable, HERE / "gguf_folder.py", args.gguf, self.sources["real"]])

    def that(self, holds, text):
        self.passed += bool(holds)
        self.failed += not holds
        print(f"{'ok    ' if holds else 'FAILED'} {text}", flush=True)

    def logits(self, model, ranks=1, *extra):
        out = self.folder / "logits"
        launch = ["mpirun", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "-n", ranks] if ranks > 1 else []
        run([*launch, self.args.generate, self.folder / model, "--tokens", TOKENS, "--kv-type", "f32", "--logits-out", out, *extra])
        return numpy.fromfile(out, "<f4")

    def make(self, source, arguments):
        run([sys.executable, HERE / "quantise_folder.py", self.sources[source], self.folder / "quantised", self.folder / "twin", *arguments])

    def floats(self, source, arguments):
        self.make(source, arguments)
        want = self.logits("twin")
        for ranks in (1, 3):
            got = self.logits("quantised", ranks)
            self.that((got.view("u4") == want.view("u4")).all() and numpy.isfinite(want).all(),
                      f"{source} {' '.join(arguments)}: {got.nbytes} bytes of logits on {ranks} ranks are the twin's")

    def packed(self, source, arguments, ranks):
        self.make(source, arguments)
        want, got = self.logits("twin", 1, "--isa", "reference"), self.logits("quantised", 1, "--isa", "reference")
        name = " ".join([source, *arguments])
        self.that((got.view("u4") == want.view("u4")).all() and numpy.isfinite(want).all(),
                  f"{name}: {got.nbytes} bytes of logits are the twin's")
        self.fast(name, want, ranks, LIMIT)

    def ordered(self, arguments, ranks):
        self.make("real", arguments)
        want, got = self.logits("twin", 1, "--isa", "reference"), self.logits("quantised", 1, "--isa", "reference")
        name = " ".join(arguments)
        error = float(numpy.abs(got - want).max() / numpy.abs(want).max())
        self.that(0 < error < ORDER_LIMIT, f"{name}: {got.nbytes} bytes of logits are within {error:.2g} of the twin's")
        self.fast(name, want, [1, *ranks], ORDER_LIMIT_FAST)

    def fast(self, name, want, ranks, limit):
        first = None
        for count in ranks:
            got = self.logits("quantised", count)
            if first is None:
                first = got
                error = float(numpy.abs(got - want).max() / numpy.abs(want).max())
                self.that(0 < error < limit, f"{name}: fast kernels within {error:.2g}")
            else:
                self.that((got.view("u4") == first.view("u4")).all(), f"{name}: {count} ranks give the bits of one")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generate", required=True)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--only", default="", help="cases whose arguments have this word")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare = Compare(args, pathlib.Path(folder))
        for source, arguments in FLOATS:
            if args.only in " ".join([source, *arguments]):
                compare.floats(source, arguments)
        for source, arguments, ranks in PACKED:
            if args.only in " ".join([source, *arguments]):
                compare.packed(source, arguments, ranks)
        for arguments, ranks in ORDERED:
            if args.only in " ".join(arguments):
                compare.ordered(arguments, ranks)
    print(f"{compare.passed} passed, {compare.failed} failed")
    return int(compare.failed > 0 or compare.passed == 0)


if __name__ == "__main__":
    sys.exit(main())
