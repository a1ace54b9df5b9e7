#!/usr/bin/env python3
"""Measures the router's complexity scorer on labelled prompts, and suggests thresholds.

    bench/complexity.py --octant build/bin/octant [--data bench/data/complexity.jsonl] [--config octant.yaml] [--least 0.7]

Each line of the data is the body of a chat request with two more fields: "label" (simple, medium, hard) and "split"
("tune": what thresholds and words were chosen on; "held": kept apart). Prints the confusion on both halves, the accuracy
against two baselines (always the commonest label; thresholds on the length alone), how often a hard prompt is taken for a
simple one, and the thresholds that fit the tune half best. With --least, exits 1 below that accuracy on the held half.

The data that comes with Octant was written for this purpose, in English: measure on your own traffic before you rely on it."""
import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tempfile

LABELS = ["simple", "medium", "hard"]
ROOT = pathlib.Path(__file__).resolve().parents[1]


def scores(octant, config, data):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as empty:
        command = [octant, "route", "explain", "--json", "--config", config or empty.name, data]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.strip())
    return [json.loads(line)["complexity"] for line in done.stdout.splitlines()]


def level(score, medium, hard):
    return LABELS[(score >= medium) + (score >= hard)]


def accuracy(pairs):
    return sum(label == guess for label, guess in pairs) / len(pairs)


def best_thresholds(pairs):
    """The two cuts of the scores that get most labels right."""
    cuts = sorted({score for _, score in pairs})
    best = (0.0, 0, 0)
    for i, medium in enumerate(cuts):
        for hard in cuts[i:]:
            right = accuracy([(label, level(score, medium, hard)) for label, score in pairs])
            best = max(best, (right, medium, hard))
    return best


def show(name, pairs):
    print(f"{name}: {len(pairs)} prompts, accuracy {accuracy(pairs):.3f}")
    table = collections.Counter(pairs)
    print(f"  {'is':<8}" + "".join(f"{'as ' + guess:>12}" for guess in LABELS))
    for label in LABELS:
        print(f"  {label:<8}" + "".join(f"{table[label, guess]:>12}" for guess in LABELS))
    hard = [guess for label, guess in pairs if label == "hard"]
    print(f"  hard taken for simple: {hard.count('simple')} of {len(hard)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--octant", default=str(ROOT / "build/bin/octant"))
    parser.add_argument("--data", default=str(ROOT / "bench/data/complexity.jsonl"))
    parser.add_argument("--config", help="octant.yaml with a section complexity; none: the defaults")
    parser.add_argument("--least", type=float, default=0)
    parser.add_argument("--wrong", action="store_true", help="print what was taken for something else")
    options = parser.parse_args()
    rows = [json.loads(line) for line in open(options.data, encoding="utf-8")]
    found = scores(options.octant, options.config, options.data)
    halves = {split: [(r, f) for r, f in zip(rows, found) if r.get("split", "held") == split] for split in ("tune", "held")}
    for split, half in halves.items():
        if half:
            show(split, [(r["label"], f["level"]) for r, f in half])
    if options.wrong:
        for row, f in zip(rows, found):
            if row["label"] != f["level"] and row["split"] == "tune":
                print(row["label"], f["level"], round(f["score"], 2), {k: v for k, v in f["features"].items() if v},
                      row["messages"][-1]["content"][:90])
    held = halves["held"]
    if halves["tune"]:
        right, medium, hard = best_thresholds([(r["label"], f["score"]) for r, f in halves["tune"]])
        print(f"thresholds that fit the tune half best: medium {medium:.2f}, hard {hard:.2f} (accuracy {right:.3f} there)")
        lengths = [(r["label"], len(r["messages"][-1]["content"])) for r, _ in halves["tune"]]
        _, medium, hard = best_thresholds(lengths)
        guess = [(r["label"], level(len(r["messages"][-1]["content"]), medium, hard)) for r, _ in held]
        print(f"baseline on the held half, length alone: {accuracy(guess):.3f}")
    commonest = collections.Counter(r["label"] for r, _ in held).most_common(1)[0][1] / len(held)
    print(f"baseline on the held half, always the commonest: {commonest:.3f}")
    return 1 if accuracy([(r["label"], f["level"]) for r, f in held]) < options.least else 0


if __name__ == "__main__":
    sys.exit(main())
