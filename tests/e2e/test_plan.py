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


def test_stages_beside_one_wide_group():
    """Two nodes: every stage reads half the layers, one after the other, and only rows cross; sums stay on NVLink."""
    args = ("--model", "llama-3.1-405b", "--gpus", 16)
    wide, staged = plan(*args).stdout, plan(*args, "--stages", 2).stdout
    assert "each row of a step is in 252 sums of 32.8 kB" in wide and "--stages 2" in wide
    assert "63 layers on 8 cards, 63 layers on 8 cards" in staged
    assert "handed over 1 time, 65.5 kB to each card" in staged
    read, sums, step = (rows(staged)[1024, 1][i] for i in (0, 2, 3))
    assert read == pytest.approx(30.15, abs=0.05) and sums == pytest.approx(1.66, abs=0.01)   # worked out by hand for TP8 x PP2
    assert step == pytest.approx(read + sums + 0.015, abs=0.02)
    assert rows(wide)[1024, 1][0] == pytest.approx(read / 2, abs=0.2)


def test_mixtral_reads_the_experts_that_are_used():
    ended = plan("--model", "mixtral-8x22b", "--gpus", 8)
    assert ended.returncode == 0 and ended.stderr == ""
    table = rows(ended.stdout)
    # 140.6 billion weights, in BF16 on eight cards; a token meets 39.0 of them, the embedding apart, and 32 meet nearly all.
    assert "a card holds: 35.16 GB of weights" in ended.stdout
    assert table[1024, 1][0] == pytest.approx(2 * 39.0 / 8 / 3.35, abs=0.05)
    assert table[1024, 32][0] > 3.3 * table[1024, 1][0]


def test_what_does_not_fit():
    ended = plan("--model", "llama-3.1-405b", "--gpus", 8)
    assert ended.returncode == 0 and "does not fit" in ended.stdout and "12 such cards" in ended.stdout


def test_a_file_brings_its_own_bits(tiny_model):
    ended = plan("--model", tiny_model, "--card", "a100", "--gpus", 2)
    assert ended.returncode == 0 and "tokens, all sequences together" in ended.stdout, ended.stderr


@pytest.mark.parametrize("args, words", [
    ([], "--model is missing"), (["--model", "gpt-9"], "no file that opens"), (["--model", "llama-3.1-8b", "--card", "v100"], "h100"),
    (["--model", "llama-3.1-8b", "--gpus", 77], "1 to 32 ranks work"),
    (["--model", "llama-3.1-8b", "--gpus", 4, "--stages", 5], "1 to 4 stages work"), (["--model", "llama-3.1-8b", "--weights", "fp3"], "bf16"),
])
def test_refusals(args, words):
    ended = plan(*args)
    assert ended.returncode == 2 and words in ended.stderr and len(ended.stderr.splitlines()) == 1 and ended.stdout == ""
