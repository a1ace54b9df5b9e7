#!/usr/bin/env python3
"""A whole worker on the CUDA backend, on the emulated device, beside the CPU backend: the same tokens.

    tests/device/worker_compare.py --emulated build/tests/generate_emulated --generate build/tests/generate [--ranks 1,2,3]

Small random models in several weight types, prompts of random tokens, greedy answers. On 1, 2 and 3 ranks, and in stages of them, with exact sums
the device must give the same logits bit by bit, whoever adds the sums, in whatever company and chunks. Beside the CPU's
plain reference it may differ by rounding: it multiplies BF16 activations (8 bits of mantissa). An answer may leave the
reference's only where the reference's best two log probabilities are nearer than TIE, and logits may differ by LIMIT of
the row's largest. Exit status 1 otherwise; 77 when numpy is not there."""
import argparse
import hashlib
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy
except ImportError:
    print("skipped: numpy is not installed")
    sys.exit(77)

HERE = pathlib.Path(__file__).resolve().parent
MAKE = HERE.parent / "golden" / "make_random_llama.py"
TIE = 0.05
LIMIT = 0.03
FP8_LIMIT = 0.15  # of activations with three bits of mantissa
MODELS = [  # preset, dtype; the KV cache is F16 on both sides
    ("twin6", "bf16"),
    ("twin9", "q8_0"),
    ("twin-qwen2", "q4_1"),
    ("twin6", "f32"),
    ("twin6", "fp8"),
    ("square", "fp8-block"),  # F8_BLOCK
    ("square", "awq"),        # I4; the o matrix, whose heads are 32 wide, and the others of twin-qwen2 I4_32
    ("twin-qwen2", "gptq"),   # columns sorted; o in F16
    ("twin-mixtral", "bf16"),
    ("twin-phi3", "bf16"),    # the last two: windows, shorter than the longest prompt, on tensor cores
    ("twin-gemma2", "bf16"),
]
QUANTISED = {
    "fp8": [],
    "fp8-block": ["--scales", "block"],
    "awq": ["--method", "awq", "--asymmetric"],
    "gptq": ["--method", "gptq", "--group", "64", "--asymmetric", "--act-order"],
}
SCHEMA = '{"type": "object", "properties": {"ab": {"type": "string"}, "n": {"type": "integer"}}, "required": ["ab", "n"]}'
SQUARE = ["--width", 128, "--heads", 4, "--kv-heads", 2, "--head-dim", 32, "--ffn", 384]  # sides that blocks of 128 divide


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout.splitlines()


def generate(program, model, prompts, ranks, extra):
    command = [program, model, "--token-file", prompts, "--context", 512, "--kv-type", "f16", *extra]
    if ranks > 1:
        command = ["mpirun", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "-n", ranks, *command]
    return run(command)


def answers(lines):
    """[(token, gap)] for each prompt of `generate --gaps`."""
    return [[(int(t), float(g)) for t, g in (word.split(":") for word in line.split())] for line in lines]


def compare_tokens(got, want):
    """How many answers are equal, end in a tie, or are wrong."""
    equal = ties = wrong = 0
    for a, b in zip(got, want):
        at = next((i for i, (x, y) in enumerate(zip(a, b)) if x[0] != y[0]), None)
        if at is None:
            equal += 1
        elif b[at][1] < TIE:
            ties += 1
        else:
            wrong += 1
    return equal, ties, wrong


class Check:
    def __init__(self, args, folder):
        self.args, self.folder, self.passed, self.failed = args, folder, 0, 0

    def that(self, holds, text):
        self.passed += bool(holds)
        self.failed += not holds
        print(f"{'ok    ' if holds else 'FAILED'} {text}")

    def logits(self, program, model, prompts, ranks, extra):
        path = self.folder / "logits"
        generate(program, model, prompts, ranks, ["--logits-out", path, *extra])
        return path.read_bytes()

    def make(self, preset, dtype):
        path = self.folder / f"{preset}-{dtype}"
        shape = SQUARE if preset == "square" else ["--preset", preset]
        if dtype not in QUANTISED:
            run([sys.executable, MAKE, *shape, "--gguf", path, "--dtype", dtype])
            return path
        source, twin = self.folder / f"{preset}-source", self.folder / f"{preset}-twin"
        run([sys.executable, MAKE, *shape, "--folder", source, "--dtype", "f32"])
        run([sys.executable, MAKE.parent / "quantise_folder.py", source, path, twin, *QUANTISED[dtype]])
        return path

    def model(self, preset, dtype):
        args, name = self.args, f"{preset} {dtype}"
        model = self.make(preset, dtype)
        random = numpy.random.default_rng(7)
        prompts = self.folder / "prompts"
        prompts.write_text("".join(" ".join(map(str, random.integers(3, 500, n))) + "\n" for n in (1, 5, 19, 40)[: args.prompts]))
        few = self.folder / "few"
        few.write_text("".join(prompts.read_text().splitlines(keepends=True)[2:3]))
        greedy = ["--max-tokens", args.max_tokens, "--gaps"]
        want = answers(generate(args.generate, model, prompts, 1, [*greedy, "--isa", "reference"]))
        want_logits = numpy.frombuffer(self.logits(args.generate, model, few, 1, ["--isa", "reference"]), "<f4")
        device = ["--device", "cuda", "--sums", "exact"]
        base, base_logits = None, None
        counts = [int(count) for count in args.ranks.split(",")]
        for ranks in counts[:2] if dtype in QUANTISED and dtype != "fp8" else counts:  # made on each rank in the same way: two will do
            lines = generate(args.emulated, model, prompts, ranks, [*greedy, *device])
            logits = self.logits(args.emulated, model, few, ranks, device)
            if base is None:
                base, base_logits = lines, logits
                equal, ties, wrong = compare_tokens(answers(lines), want)
                self.that(wrong == 0 and equal > 0, f"{name}: {equal} answers equal the CPU's, {ties} end in a tie, {wrong} differ")
                got = numpy.frombuffer(logits, "<f4")
                error = float(numpy.abs(got - want_logits).max() / numpy.abs(want_logits).max())
                self.that(numpy.isfinite(got).all() and error < LIMIT, f"{name}: logits within {error:.2g} of the CPU's")
                continue
            self.that(lines == base and logits == base_logits, f"{name}: {ranks} ranks give the bits of one")
        return model, prompts, few, greedy, base, want, want_logits

    def variants(self, model, prompts, few, greedy, base, want, want_logits):
        """What must leave no trace, and what may leave that of its rounding."""
        emulated = self.args.emulated
        for what, ranks, extra in [
            ("4 prompts at once", 1, ["--batch", 4]),
            ("4 prompts at once on 2 ranks", 2, ["--batch", 4]),
            ("prompts in chunks of 3 tokens", 1, ["--chunk", 3]),
            ("nothing recorded, 4 prompts at once, chunks of 3 tokens", 2, ["--graphs", "off", "--batch", 4, "--chunk", 3]),
            ("all recorded, 4 prompts at once, chunks of 3 tokens", 2, ["--graphs", "all", "--batch", 4, "--chunk", 3]),
            ("sums by way of the host", 2, ["--reduce", "host"]),
            ("sums by NCCL's stand-in, chunks", 2, ["--reduce", "nccl", "--chunk", 3]),
            ("sums over peer memory in 2 stages, rows by NCCL's stand-in, chunks", 3, ["--reduce", "peer", "--stages", 2, "--chunk", 3]),
            ("2 waves in 2 stages, 4 prompts at once, all by the host", 2, ["--reduce", "host", "--stages", 2, "--batch", 4, "--waves", 2]),
            ("3 waves in 3 stages, all by NCCL's stand-in", 3, ["--reduce", "nccl", "--stages", 3, "--batch", 4, "--waves", 3]),
        ]:
            lines = generate(emulated, model, prompts, ranks, [*greedy, "--device", "cuda", "--sums", "exact", *extra])
            self.that(lines == base, f"{what}: {'the same bits' if lines == base else 'other bits'}")
        self.choices(model, prompts, base)
        lost = ["mpirun", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "-x", "OCTANT_NCCL_STAND_IN=mute=1:3,limit=800",
                "-n", 2, emulated, model, "--token-file", few, "--context", 512, *greedy, "--device", "cuda", "--stages", 2]
        ended = subprocess.run([str(word) for word in lost], capture_output=True, text=True, timeout=100)
        said = "NCCL a rank's failure" in ended.stderr
        self.that(ended.returncode != 0 and said, f"rows that a stage never hands on: {'an error' if said else ended.stderr[-300:]}")
        for kv in ("f8", "i8"):
            got = numpy.frombuffer(self.logits(emulated, model, few, 2, ["--device", "cuda", "--sums", "exact", "--kv-type", kv]), "<f4")
            error = float(numpy.abs(got - want_logits).max() / numpy.abs(want_logits).max())
            self.that(numpy.isfinite(got).all() and LIMIT / 100 < error < 3 * LIMIT, f"KV cache in {kv}: logits within {error:.2g}")
        for kind in ("nccl", "peer"):
            lines = generate(emulated, model, prompts, 2, [*greedy, "--device", "cuda", "--sums", "bf16", "--reduce", kind])
            equal, ties, wrong = compare_tokens(answers(lines), want)
            self.that(wrong == 0, f"BF16 sums by {kind}: {equal} equal the CPU's, {ties} end in a tie, {wrong} differ")


    def choices(self, model, prompts, base):
        """Tokens that the ranks' devices choose together, steps begun ahead: those of one rank that waits for each."""
        device = ["--device", "cuda", "--sums", "exact", "--max-tokens", self.args.max_tokens, "--batch", 4]
        lines = generate(self.args.emulated, model, prompts, 3, device)
        self.that(lines == [" ".join(str(t) for t, _ in line) for line in answers(base)], "greedy tokens, chosen by the devices of 3 ranks")
        sampled = [*device, "--temperature", 0.9, "--seed", 5]
        alone = generate(self.args.emulated, model, prompts, 1, [*sampled, "--ahead=false"])
        ahead = generate(self.args.emulated, model, prompts, 2, sampled)
        self.that(ahead == alone and alone != lines, "sampled tokens on 2 ranks, a step ahead")
        waves = generate(self.args.emulated, model, prompts, 3, [*sampled, "--stages", 2, "--waves", 2])
        self.that(waves == alone, "sampled tokens of 2 waves in 2 stages")
        masked = ["--max-tokens", self.args.max_tokens, "--schema", SCHEMA]
        alone = generate(self.args.emulated, model, prompts, 1, [*sampled, *masked, "--ahead=false"])
        ahead = generate(self.args.emulated, model, prompts, 2, [*sampled, *masked])
        self.that(ahead == alone and alone != lines, "tokens under a grammar, sampled on 2 ranks, a step ahead")
        want = generate(self.args.generate, model, prompts, 1, [*masked, "--isa", "reference"])
        got = generate(self.args.emulated, model, prompts, 2, [*device, *masked])
        self.that(got == want and all(line.split()[0] == str(ord("{")) for line in got), "greedy tokens under a grammar: the CPU's")

    def fp8_activations(self, model, prompts, few, greedy, want_logits):
        """--fast on sm_90: FP8 activations meet FP8 weights. Other numbers, but the same ones in any company."""
        device = ["--device", "cuda", "--sums", "bf16", "--fast"]
        for ranks in (1, 2):
            got = numpy.frombuffer(self.logits(self.args.emulated, model, few, ranks, device), "<f4")
            error = float(numpy.abs(got - want_logits).max() / numpy.abs(want_logits).max())
            fine = numpy.isfinite(got).all() and LIMIT / 10 < error < FP8_LIMIT
            self.that(fine, f"FP8 activations on {ranks} ranks: logits within {error:.2g}")
        alone = generate(self.args.emulated, model, prompts, 1, [*greedy, *device])
        for what, extra in (("4 prompts at once", ["--batch", 4]), ("chunks of 3 tokens", ["--chunk", 3])):
            lines = generate(self.args.emulated, model, prompts, 1, [*greedy, *device, *extra])
            self.that(lines == alone, f"FP8 activations, {what}: {'the same bits' if lines == alone else 'other bits'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generate", required=True)
    parser.add_argument("--emulated", required=True)
    parser.add_argument("--ranks", default="1,2,3")
    parser.add_argument("--models", default="0,1,2,3,4,5,6,7,8,9,10", help="numbers in MODELS")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=8)
    parser.add_argument("--no-variants", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        check = Check(args, pathlib.Path(folder))
        first = None
        for number in map(int, args.models.split(",")):
            made = check.model(*MODELS[number])
            first = first or made
            if MODELS[number][1] == "fp8":
                check.fp8_activations(*made[:4], made[6])
        if not args.no_variants:
            check.variants(*first)
    print(f"{check.passed} passed, {check.failed} failed")
    return int(check.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
