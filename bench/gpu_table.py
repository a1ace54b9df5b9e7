#!/usr/bin/env python3
"""The short table of a run of bench/gpu.sh, from its CSV files.

    gpu_table.py FILE...       columns: group,case,us,bytes,flops,floor_us,note; lines with # are comments

A case that PyTorch has too (group torch, the same name) gets its time and the ratio: above 1, Octant is faster."""
import csv
import sys

ORDER = ["copy", "ops", "peer", "prefill", "decode"]


def read(paths):
    for path in paths:
        with open(path, newline="") as file:
            for row in csv.reader(line for line in file if not line.startswith("#")):
                if len(row) == 7 and row[0] != "group":
                    yield row[0], row[1], *map(float, row[2:6]), row[6]


def main():
    rows = list(read(sys.argv[1:]))
    if not rows:
        print("no results")
        return 1
    torch = {name: us for group, name, us, *_ in rows if group == "torch"}
    print(f"{'':8}{'case':46}{'us':>11}{'GB/s':>8}{'TFLOP/s':>8}{'of floor':>9}{'torch us':>10}{'ratio':>7}")
    seen = set()
    for group in ORDER:
        for own, name, us, bytes_, flops, floor, note in rows:
            if own != group or (group, name) in seen:
                continue
            seen.add((group, name))
            beside = f"{torch[name]:10.1f}{torch[name] / us:7.2f}" if name in torch and group == "ops" else ""
            share = f"{100 * floor / us:7.0f} %" if floor else ""
            rates = f"{bytes_ / us * 1e-3:8.0f}{flops / us * 1e-6:8.1f}"
            print(f"{group:8}{name:46}{us:11.1f}{rates}{share:>9}{beside}{'  ' + note if note else ''}".rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
