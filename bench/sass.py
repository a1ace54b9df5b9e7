#!/usr/bin/env python3
"""What the compiler made of the CUDA kernels: registers, local memory, 16-byte loads, tensor-core instructions, read from the compiled objects.

    bench/sass.py [--markdown FILE] [--cuobjdump PATH] OBJECT...      objects or a static library, as nvcc left them

Prints a line per kernel and architecture, then each breach of kernels/cuda/sass.txt, which says what every kernel must show. Needs no GPU; needs cuobjdump and nvdisasm
(`pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`, or the CUDA toolkit). Exit status: 0, 1 (breaches), 77 (no cuobjdump: skipped)."""
import argparse
import collections
import glob
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
SKIPPED = 77

DEMANDS = ROOT / "kernels/cuda/sass.txt"
KNOWN = {"fast", "tensor", "warpgroup", "wide", "switch", "any"}

# SASS mnemonics, counted. A predicate or a reuse flag stands beside them, never inside.
COUNTED = {
    "ldl": re.compile(r"LDL\b"),
    "stl": re.compile(r"STL\b"),
    "wide": re.compile(r"(LDG|LDGSTS)[.\w]*\.128|UBLKCP|UTMALDG"),
    "load": re.compile(r"(LDG|LDGSTS)\b|UBLKCP|UTMALDG"),
    "tensor": re.compile(r"(HMMA|IMMA|QMMA|HGMMA|IGMMA|QGMMA|BGMMA)\b"),
    "warpgroup": re.compile(r"(HGMMA|IGMMA|QGMMA|BGMMA)\b"),
    "switch": re.compile(r"LDGMC\b"),
}
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)")


class Kernel:
    def __init__(self, symbol, arch):
        self.symbol, self.arch = symbol, arch
        self.registers = self.stack = self.shared = 0
        self.counts = collections.Counter()
        self.kinds = collections.Counter()  # tensor-core instructions by their first word
        self.name = symbol


def find_cuobjdump(named):
    """The program and the PATH on which it finds nvdisasm; None when there is none."""
    places = [named] if named else [shutil.which("cuobjdump")]
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    places.append(str(pathlib.Path(nvcc).resolve().parent / "cuobjdump"))
    for folder in [*sys.path, *glob.glob(str(ROOT / ".venv/lib/python3*/site-packages"))]:
        places += glob.glob(f"{folder}/nvidia/cu*/bin/cuobjdump") + glob.glob(f"{folder}/triton/backends/nvidia/bin/cuobjdump")
    for place in places:
        if place and os.access(place, os.X_OK):
            path = f"{pathlib.Path(place).parent}{os.pathsep}{os.environ.get('PATH', '')}"
            if shutil.which("nvdisasm", path=path):
                return place, path
    return None


def dump(tool, option, objects):
    program, path = tool
    for name in objects:
        ended = subprocess.run([program, option, name], capture_output=True, text=True, env={**os.environ, "PATH": path})
        if ended.returncode != 0:
            sys.exit(f"sass.py: cuobjdump {option} {name}: {ended.stderr.strip() or ended.stdout.strip()}")
        yield from ended.stdout.splitlines()


def read_resources(lines, kernels):
    arch = symbol = None
    for line in lines:
        if match := re.match(r"arch = (sm_\w+)", line):
            arch = match.group(1)
        elif match := re.match(r"\s*Function (\S+):", line):
            symbol = match.group(1)
        elif symbol and (match := re.match(r"\s*REG:(\d+) STACK:(\d+) SHARED:(\d+)", line)):
            kernel = kernels.setdefault((symbol, arch), Kernel(symbol, arch))
            kernel.registers, kernel.stack, kernel.shared = map(int, match.groups())
            symbol = None


def read_instructions(lines, kernels):
    arch = kernel = None
    for line in lines:
        if match := re.match(r"arch = (sm_\w+)", line):
            arch, kernel = match.group(1), None
        elif match := re.match(r"\s*Function : (\S+)", line):
            kernel = kernels.setdefault((match.group(1), arch), Kernel(match.group(1), arch))
        elif kernel and (match := INSTRUCTION.match(line)):
            word = match.group(1)
            for what, pattern in COUNTED.items():
                if pattern.match(word):
                    kernel.counts[what] += 1
            if COUNTED["tensor"].match(word):
                kernel.kinds[word.split(".")[0]] += 1


def demangle(kernels):
    """Symbols to `name<template arguments>`: what a pattern is matched with."""
    symbols = sorted({kernel.symbol for kernel in kernels})
    names = symbols
    if shutil.which("c++filt"):
        names = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True).stdout.splitlines()
    short = {symbol: shorten(name) for symbol, name in zip(symbols, names)}
    for kernel in kernels:
        kernel.name = short[kernel.symbol]


def shorten(name):
    """Without return type, arguments, namespaces and casts: 'void (anonymous namespace)::f<(int)8, x::q4>(int)' is 'f<8, q4>'."""
    name = name.replace("(anonymous namespace)::", "").removeprefix("void ")
    name = re.sub(r"\((?:int|bool|unsigned int|\w*::?\w+|\w+)\)(?=[\d-])", "", name)  # casts of template arguments
    depth = 0
    for at, letter in enumerate(name):  # the arguments begin at the first parenthesis outside <>
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            name = name[:at]
            break
    return re.sub(r"\b\w+::", "", name).replace(" ", "")


def read_demands(path):
    demands = []
    for line in path.read_text().splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) < 2 or not KNOWN.issuperset(words[1:]):
            sys.exit(f"sass.py: {path}: '{line}': after the pattern come words of {', '.join(sorted(KNOWN))}")
        demands.append((words[0], set(words[1:])))
    return demands


def breaches(kernels, all_demands):
    used = set()
    for kernel in kernels:
        found = next((d for d in all_demands if re.fullmatch(d[0], kernel.name)), None)
        if not found:
            yield f"{kernel.name} {kernel.arch}: no line of kernels/cuda/sass.txt fits it; say there what it must show"
            continue
        used.add(found[0])
        counts, demands = kernel.counts, found[1]
        if "fast" in demands and (counts["ldl"] or counts["stl"]):
            yield f"{kernel.name} {kernel.arch}: {counts['ldl']} loads from and {counts['stl']} stores to local memory"
        if "tensor" in demands and not counts["tensor"]:
            yield f"{kernel.name} {kernel.arch}: no tensor-core instruction"
        if "warpgroup" in demands and not counts["warpgroup"]:
            yield f"{kernel.name} {kernel.arch}: no tensor-core instruction of a warpgroup"
        if "switch" in demands and not counts["switch"]:
            yield f"{kernel.name} {kernel.arch}: no load that the switch adds up"
        if "wide" in demands and not counts["wide"]:
            yield f"{kernel.name} {kernel.arch}: none of its {counts['load']} global loads is of 16 bytes"
    for pattern, _ in all_demands:
        if pattern not in used:
            yield f"{pattern}: this line of kernels/cuda/sass.txt fits no kernel; take it out, or mend it"


COLUMNS = ["kernel", "arch", "registers", "stack", "LDL", "STL", "shared", "16-byte loads", "loads", "tensor"]


def row(kernel):
    c = kernel.counts
    tensor = " ".join(f"{n} {word}" for word, n in sorted(kernel.kinds.items())) or "-"
    return [kernel.name, kernel.arch, kernel.registers, kernel.stack, c["ldl"], c["stl"], kernel.shared, c["wide"], c["load"], tensor]


def show(kernels):
    rows = [COLUMNS] + [[str(cell) for cell in row(kernel)] for kernel in kernels]
    widths = [max(len(r[i]) for r in rows) for i in range(len(COLUMNS))]
    for r in rows:
        print("  ".join(cell.ljust(w) if i in (0, 1, 9) else cell.rjust(w) for i, (cell, w) in enumerate(zip(r, widths))).rstrip())


def write_markdown(path, kernels, version):
    lines = ["# What the compiler made of the CUDA kernels", "",
             f"`bench/sass.py --markdown`, {version}. Nothing here was run: registers and instructions as compiled. `stack`, `LDL` and `STL` above",
             "zero mean local memory; `shared` is the static part; `tensor` counts instructions in the code, not executions.", "",
             "| " + " | ".join(COLUMNS) + " |", "| --- | --- |" + " ---: |" * 7 + " --- |"]
    lines += ["| `" + "` | ".join(map(str, row(k)[:1])) + "` | " + " | ".join(map(str, row(k)[1:])) + " |" for k in kernels]
    pathlib.Path(path).write_text("\n".join(lines) + "\n")


def compiler_version():
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not os.access(nvcc, os.X_OK):
        return "compiler unknown"
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"V([\d.]+)", text)
    return f"nvcc {match.group(1)}" if match else "compiler unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", nargs="+", metavar="OBJECT")
    parser.add_argument("--markdown", metavar="FILE", help="write the table there too")
    parser.add_argument("--cuobjdump", metavar="PATH")
    args = parser.parse_args()
    tool = find_cuobjdump(args.cuobjdump)
    if not tool:
        print("sass.py: skipped: no cuobjdump with nvdisasm beside it; pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")
        return SKIPPED
    found = {}
    read_resources(dump(tool, "-res-usage", args.objects), found)
    read_instructions(dump(tool, "-sass", args.objects), found)
    if not found:
        print("sass.py: no CUDA kernels in these objects")
        return 1
    demangle(found.values())
    kernels = sorted(found.values(), key=lambda k: (k.name, k.arch))
    show(kernels)
    if args.markdown:
        write_markdown(args.markdown, kernels, compiler_version())
    wrong = list(breaches(kernels, read_demands(DEMANDS)))
    print("\n".join(f"BREACH {line}" for line in wrong))
    print(f"{len(kernels) - len({w.split(': ')[0] for w in wrong})} passed, {len(wrong)} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
