"""`octant plan`: the figures that were worked out by hand for Llama 3.1 405B, a model from a file, and what cannot be planned."""
import subprocess

import pytest

from cluster import BIN


def plan(*args):
    return subprocess.run([BIN / "octant", "plan", *map(str, args)], capture_output=True, text=True, timeout=60)


def rows(text):
    """{(context, seqs): the other columns}"""
    split = (line.split() for line in text.splitlines())
    return {(int(f[0]), int(f[1])): [float(x) for x in f[2:]] for f in split if len(f) == 8 and f[0].isdigit()}


def test_llama_405b_on_eight_h100():
    ended = plan("--model", "llama-3.1-405b", "--gpus", 8, "--weights", "fp8", "--kv", "fp8")
    assert ended.returncode == 0 and ended.stderr == ""
    table = rows(ended.stdout)
    assert table[1024, 1][0] == pytest.approx(15.15, abs=0.01)   # ms to read weights and KV
    assert table[1024, 256][4] == pytest.approx(8749, abs=10)    # tokens/s with the best published sums
    assert table[1024, 32][5] == pytest.approx(1488, abs=3)      # with NCCL
    assert "its KV does not fit" in ended.stdout                 # 256 sequences of 8K
    assert "floors, not measurements" in ended.stdout


def test_what_does_not_fit():
    ended = plan("--model", "llama-3.1-405b", "--gpus", 8)
    assert ended.returncode == 0 and "does not fit" in ended.stdout and "12 such cards" in ended.stdout


def test_a_file_brings_its_own_bits(tiny_model):
    ended = plan("--model", tiny_model, "--card", "a100", "--gpus", 2)
    assert ended.returncode == 0 and "tokens, all sequences together" in ended.stdout, ended.stderr


@pytest.mark.parametrize("args, words", [
    ([], "--model is missing"), (["--model", "gpt-9"], "no file that opens"), (["--model", "llama-3.1-8b", "--card", "v100"], "h100"),
    (["--model", "llama-3.1-8b", "--gpus", 77], "1 to 32 ranks work"), (["--model", "llama-3.1-8b", "--weights", "fp3"], "bf16"),
])
def test_refusals(args, words):
    ended = plan(*args)
    assert ended.returncode == 2 and words in ended.stderr and len(ended.stderr.splitlines()) == 1 and ended.stdout == ""
