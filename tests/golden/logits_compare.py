#!/usr/bin/env python3
"""Logits of small random models against transformers in float32: tests/golden/logits/*.logits.

    tests/golden/logits_compare.py --generate build/tests/generate [--ranks 1,3] [--isa NAME]

Makes each model again (folder and GGUF), checks that its weights are the ones that the vectors belong to, runs
`generate --logits-out` on it and prints the largest error, relative to the largest logit of its row. F32 must stay
below 1e-4, BF16 below 2e-2, and all rank counts must give the same bits."""
import argparse
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy

HERE = pathlib.Path(__file__).resolve().parent
LIMIT = {"f32": 1e-4, "bf16": 2e-2}


def read_vectors(path):
    head, data = path.read_bytes().split(b"\n", 1)
    head = json.loads(head)
    positions, vocab = len(head["positions"]), head["vocab"]
    return head, numpy.frombuffer(data, dtype="<f4").reshape(positions, vocab)


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def logits(args, ranks, model, head, path):
    launch = ["mpirun", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "-n", str(ranks)]
    command = launch if ranks > 1 else []
    command = [*command, args.generate, model, "--tokens", " ".join(map(str, head["tokens"])), "--logits-out", path,
               "--chunk", "7"]
    if "context" in head:
        command += ["--context", str(head["context"])]
    run(command + (["--isa", args.isa] if args.isa else []))
    all_rows = numpy.fromfile(path, dtype="<f4").reshape(len(head["tokens"]), head["vocab"])
    return all_rows[head["positions"]]


def relative_error(got, want):
    assert numpy.isfinite(got).all()
    return float((numpy.abs(got - want).max(axis=1) / numpy.abs(want).max(axis=1)).max())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generate", required=True)
    parser.add_argument("--ranks", default="1,3")
    parser.add_argument("--isa")
    args = parser.parse_args()
    failed, passed = 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        for path in sorted((HERE / "logits").glob("*.logits")):
            head, want = read_vectors(path)
            folder, gguf = temporary / path.stem, temporary / f"{path.stem}.gguf"
            for where in (["--folder", folder], ["--gguf", gguf]):
                run([sys.executable, HERE / "make_random_llama.py", *head["arguments"], *where])
            weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
            assert weights == head["weights_sha256"], f"{path.name} belongs to other weights"
            limit = LIMIT[head["arguments"][head["arguments"].index("--dtype") + 1]]
            for model in (folder, gguf) if head.get("gguf", True) else (folder,):
                first = None
                for ranks in map(int, args.ranks.split(",")):
                    got = logits(args, ranks, model, head, temporary / "logits")
                    error = relative_error(got, want)
                    same = first is None or (got.view("u4") == first.view("u4")).all()
                    first = got if first is None else first
                    ok = error < limit and same
                    failed, passed = failed + (not ok), passed + ok
                    print(f"{path.stem} {'gguf' if model == gguf else 'folder'} ranks={ranks} max_relative_error={error:.2e}"
                          f" limit={limit:g} bits={'same' if same else 'DIFFER'}")
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0 or passed == 0)


if __name__ == "__main__":
    sys.exit(main())
