#!/usr/bin/env python3
"""Warm starts of a whole worker on the emulated device: from files, then from warm shards, on 1 and 2 ranks: the same tokens.

    tests/device/warm_start.py --emulated build/tests/generate_emulated

The runs between are killed (SIGKILL) at random moments of their start: what they leave must serve the next run, or be nothing.
Exit status 1 when something differs; 77 when numpy, which makes the model, is not there."""
import argparse
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

try:
    import numpy  # noqa: F401
except ImportError:
    print("skipped: numpy is not installed")
    sys.exit(77)

MAKE = pathlib.Path(__file__).resolve().parents[1] / "golden" / "make_random_llama.py"
KILLS = 3


def command(program, model, folder, ranks):
    words = [program, model, "--tokens", "5 6 7 8", "--max-tokens", "6", "--context", "64", "--device", "cuda", "--warm-shards", folder]
    mpirun = ["mpirun", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "-n", ranks] if ranks > 1 else []
    return [str(word) for word in mpirun + words]


def run(words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=250)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout, done.stderr


def kill_somewhere(words, seconds):
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


def check(program, folder, ranks):
    model, shards = folder / "tiny.gguf", folder / f"shards{ranks}"
    shards.mkdir()
    words = command(program, model, shards, ranks)
    begin = time.monotonic()
    cold, said = run(words)
    took = time.monotonic() - begin
    assert said.count("loaded from files") == ranks and said.count("kept warm in") == ranks, said
    assert len(list(shards.iterdir())) == ranks
    warm, said = run(words)
    assert said.count("loaded from a warm shard") == ranks, said
    assert warm == cold, (warm, cold)
    if ranks == 1:  # mpirun's ranks would outlive it for a moment
        for _ in range(KILLS):
            for shard in shards.iterdir():
                shard.unlink()
            kill_somewhere(words, random.uniform(0, took))
            after, said = run(words)
            assert after == cold and len(list(shards.iterdir())) == 1, (after, said)
    print(f"ok     {ranks} ranks: {cold.strip()[:60]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emulated", type=pathlib.Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="octant-warm-") as name:
        folder = pathlib.Path(name)
        subprocess.run([sys.executable, MAKE, "--preset", "tiny", "--gguf", folder / "tiny.gguf", "--dtype", "q8_0"],
                       check=True, stdout=subprocess.DEVNULL)
        for ranks in (1, 2):
            check(args.emulated, folder, ranks)
    print("2 passed, 0 failed")


if __name__ == "__main__":
    main()
