#!/usr/bin/env python3
"""Compares Octant's tokenizer with Hugging Face `tokenizers`, and with the outputs that llama.cpp's vocabularies carry.

    tests/golden/tokenizer_compare.py --tool build/tests/tokenize [--lines 20000] [--seed 1] [--smollm2 MODEL.gguf]

Each vocabulary is opened twice, from GGUF and from the tokenizer.json that the reference writes, and both must give the
reference's ids on every line, with special tokens parsed and, where the line has any, with them as plain text. `tokenizers` takes no text
that is not UTF-8: such lines are compared after each bad byte became U+FFFD, and as they are must decode to themselves
(less bytes for which the vocabulary has no token: SmolLM2 lacks 21).
One line per vocabulary; the last is 'N passed, M failed'."""
import argparse
import pathlib
import struct
import subprocess
import sys
import tempfile
import unicodedata

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import gguf_metadata
import tokenizer_lines
import tokenizer_reference

HERE = pathlib.Path(__file__).resolve().parent
FAMILIES = ["gpt-2", "llama-bpe", "qwen2", "llama-spm", "phi-3", "starcoder", "refact", "mpt", "command-r", "deepseek-coder"]
# Further vocabularies with expected outputs only.
EXPECTED_ONLY = ["falcon", "gemma-4", "qwen35"]


def encode(tool, model, records, lossless=False):
    """(ids of each record, the tool's line of figures); a record is (flag, bytes)."""
    data = b"".join(flag + struct.pack("<I", len(text)) + text for flag, text in records)
    run = subprocess.run([tool, *(["--lossless"] if lossless else []), str(model)], input=data, capture_output=True)
    if run.returncode:
        raise SystemExit(f"{model}: {run.stderr.decode().strip()}")
    ids = [[int(x) for x in line.split()] for line in run.stdout.decode().split("\n")[:-1]]
    return ids, run.stderr.decode().strip()


def show(name, text, ours, theirs):
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    print(f"  {name}: {text[:200]!r}\n    at token {at}: octant {ours[at:at + 8]}, expected {theirs[at:at + 8]}")


def compare(name, ours, theirs, texts):
    wrong = [i for i in range(len(texts)) if ours[i] != theirs[i]]
    for i in wrong[:5]:
        show(name, texts[i], ours[i], theirs[i])
    return len(wrong)


def against_tokenizers(tool, name, path, count, seed):
    meta = gguf_metadata.read(path)
    reference, specials = tokenizer_reference.build(meta)
    lines = list(tokenizer_lines.lines(count, seed, specials))
    records, texts = [], []
    for kind, line in lines:
        texts.append(line.decode(errors="replace"))
        records.append((b"s", texts[-1].encode()))
    plain = [text for (kind, _), text in zip(lines, texts) if kind == "special"]
    theirs = [e.ids for e in reference.encode_batch(texts, add_special_tokens=False)]
    reference.encode_special_tokens = True
    theirs += [e.ids for e in reference.encode_batch(plain, add_special_tokens=False)]
    reference.encode_special_tokens = False
    records += [(b"p", text.encode()) for text in plain]
    ours, figures = encode(tool, path, records)
    failed = compare(f"{name}, GGUF", ours, theirs, texts + plain)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        reference.save(file.name)
        ours, _ = encode(tool, file.name, records)
        failed += compare(f"{name}, tokenizer.json", ours, theirs, texts + plain)
    exact = 0
    if meta["tokenizer.ggml.model"] == b"gpt2" and reference.normalizer is None:
        broken = [(b"p", line) for _, line in lines]
        exact = len(broken)
        encode(tool, path, broken, lossless=True)
    print(f"{name}: {len(records)} lines twice, {failed} differences; {exact} decoded exactly; {figures}", flush=True)
    return failed


def against_variant(tool, name, reference, specials, count, seed):
    texts = [line.decode(errors="replace") for _, line in tokenizer_lines.lines(count, seed, specials)]
    theirs = [e.ids for e in reference.encode_batch(texts, add_special_tokens=False)]
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        reference.save(file.name)
        ours, _ = encode(tool, file.name, [(b"s", text.encode()) for text in texts])
    failed = compare(name, ours, theirs, texts)
    print(f"variant {name}: {count} lines, {failed} differences", flush=True)
    return failed


def against_expected(tool, name, path):
    texts = pathlib.Path(f"{path}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    theirs = [[int(x) for x in line.split()] for line in pathlib.Path(f"{path}.out").read_text().split("\n")]
    pairs = list(zip(texts, theirs))
    if name == "qwen35":  # llama.cpp has no normaliser; the model's own tokenizer has NFC
        pairs = [(text, ids) for text, ids in pairs if unicodedata.is_normalized("NFC", text)]
    ours, _ = encode(tool, path, [(b"p", text.encode()) for text, _ in pairs])
    failed = compare(f"{name}, llama.cpp's .out", ours, [ids for _, ids in pairs], [text for text, _ in pairs])
    print(f"{name}: {len(pairs)} expected outputs, {failed} differences", flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", required=True, help="the program built from tests/tools/tokenize.c")
    parser.add_argument("--lines", type=int, default=20000, help="for SmolLM2; the other vocabularies get a fifth")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--smollm2", help="SmolLM2 GGUF; else deploy/get-model.sh fetches it")
    args = parser.parse_args()
    fetch = subprocess.run([HERE / "fetch_llama_cpp_models.sh"], stdout=subprocess.PIPE, text=True, check=True)
    folder = pathlib.Path(fetch.stdout.strip())
    smollm2 = args.smollm2 or subprocess.run([HERE.parents[1] / "deploy/get-model.sh", "smollm2-135m"],
                                             stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    results = [against_tokenizers(args.tool, "smollm2", smollm2, args.lines, args.seed)]
    for name in FAMILIES:
        path = folder / f"ggml-vocab-{name}.gguf"
        results.append(against_tokenizers(args.tool, name, path, args.lines // 5, args.seed))
    for name in FAMILIES + EXPECTED_ONLY:
        results.append(against_expected(args.tool, name, folder / f"ggml-vocab-{name}.gguf"))
    metas = [gguf_metadata.read(folder / f"ggml-vocab-{name}.gguf") for name in ("gpt-2", "llama-spm")]
    for name, reference, specials in tokenizer_reference.variants(*metas):
        results.append(against_variant(args.tool, name, reference, specials, args.lines // 20, args.seed))
    failed = sum(r != 0 for r in results)
    print(f"{len(results) - failed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
