#!/usr/bin/env python3
"""Holds the tree to its own rules: includes point downwards, third parties stay behind their wrapper, files stay small.

    tests/structure/check.py        prints each breach; the last line is 'N passed, M failed'"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ["common", "proto", "kernels", "worker", "coordinator", "client", "bench", "tests"]

# What a folder may include beside itself. coordinator and worker never include each other.
MAY_INCLUDE = {
    "common/base": set(),
    "common/model": {"common/base"},
    # The books: the coordinator writes them, `octant cost` and `octant audit` read them, also when no coordinator runs.
    "common/ledger": {"common/base"},
    "proto": {"common/base", "common/model"},
    "kernels": {"common/base"},
    "worker": {"common/base", "common/model", "proto", "kernels"},
    "coordinator/policy": {"common/base"},
    "coordinator/core": {"common/base", "common/model", "proto", "coordinator/policy"},
    "coordinator/route": {"common/base", "coordinator/policy"},
    "coordinator": {"common/base", "common/model", "common/ledger", "proto", "coordinator/policy", "coordinator/core", "coordinator/route"},
    # `octant route` explains decisions with the router itself, which is pure and stands alone.
    "client": {"common/base", "common/model", "common/ledger", "proto", "coordinator/policy", "coordinator/route"},
    "bench": {"common/base", "common/model", "kernels", "worker", "client", "coordinator/policy", "coordinator/core"},
    "tests": set(FOLDERS) | {"common/base", "common/model", "common/ledger"},
}
# Which files may name a third party's header.
ONLY_IN = {
    r"mpi\.h": r"worker/comm\w*\.[ch]",
    r"grpc/.*": r"proto/rpc_\w+\.[ch]",
    r"protobuf-c/.*|.*\.pb-c\.h": r"proto/.*",
    r"microhttpd\.h": r"coordinator/ingress/.*",
    r"curl/.*": r"coordinator/upstream/.*|bench/serve\.c",
    r"sqlite3\.h": r"coordinator/(ledger|batch)/.*|common/ledger/.*",
    r"pcre2\.h": r"common/model/pretokenize\.c|coordinator/route/detectors\.c",
    r"utf8proc\.h": r"common/model/(unicode_class|jinja_unicode)\.c|coordinator/route/fold\.c",
    r"yaml\.h": r"common/base/config\w*\.[ch]|common/base/yaml\w*\.[ch]",
    r"cuda\w*\.h|cublas\w*\.h": r"kernels/cuda/.*|worker/reduce_(nccl|peer)\.[ch]|bench/.*",
    r"nccl\.h": r"worker/(reduce_nccl|nccl_library)\.[ch]",
    r"jansson\.h": r"common/.*|coordinator/(?!core/).*|client/(command_)?route\w*\.[ch]|tests/.*|bench/.*",
}
LINES_MAX = 800


def folder_of(path):
    if path == "coordinator/answer.h":  # the words in which the core answers: part of its contract
        return "coordinator/core"
    if path in ("coordinator/core/policy.h", "coordinator/core/policy.c", "coordinator/core/route.h"):
        return "coordinator/policy"  # what the router and the core share: plain data
    for prefix in ("common/base", "common/model", "common/ledger", "coordinator/core", "coordinator/route"):
        if path.startswith(prefix + "/"):
            return prefix
    return path.split("/")[0]


def allowed(source, target):
    if source == target:
        return True
    # The core is pure: it sees only itself, common and the messages.
    return target in MAY_INCLUDE[source] or source == "tests"


def breaches(path):
    text = path.read_text(errors="replace")
    name = str(path.relative_to(ROOT))
    own = folder_of(name)
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if not match:
            continue
        quoted, header = match.group(1) == '"', match.group(2)
        if quoted and header.split("/")[0] in FOLDERS and not header.endswith(".pb-c.h"):
            if not allowed(own, folder_of(header)):
                yield f"{name}:{number}: {own} may not include {header}"
        if own == "tests":
            continue
        for pattern, where in ONLY_IN.items():
            if re.fullmatch(pattern, header) and not re.fullmatch(where, name):
                yield f"{name}:{number}: <{header}> is only for {where}"
    lines = text.count("\n")
    if lines > LINES_MAX:
        yield f"{name}: {lines} lines; past {LINES_MAX} a file is split by meaning"


def main():
    files = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*")) if p.suffix in (".c", ".h", ".cu")]
    found = [breach for path in files for breach in breaches(path)]
    print("\n".join(found))
    bad = {breach.split(":")[0] for breach in found}
    print(f"{len(files) - len(bad)} passed, {len(bad)} failed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
