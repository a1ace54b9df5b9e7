#!/usr/bin/env python3
"""PyTorch beside bench-gpu: the same operators at the same sizes on the same card, by the libraries that others use (cuBLAS, SDPA).

    gpu_torch.py ceilings               the card's matrix rates, "bf16 TFLOP/s" and "fp8 TFLOP/s" a line: what bench-gpu takes as ceilings
    gpu_torch.py ops [--csv FILE]       a line per case, under the names that bench-gpu gives its own
    gpu_torch.py names                  those names alone
    --tiny                              small sizes, on the CPU where there is no GPU: to see that this program runs

Times as in bench-gpu: medians of replayed graphs between events, operands rotating among copies larger than the L2 cache."""
import argparse
import statistics
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None

# name: width, heads, kv_heads, head_dim, ffn, vocab, type of the linear matrices
SHAPES = {"8B": (4096, 32, 8, 128, 14336, 128256, "BF16"), "405B/8": (16384, 16, 1, 128, 6656, 16032, "F8_E4M3")}
TOKENS = (1, 8, 32, 256, 2048)
ATTENTION = [(seqs, 1, context) for context in (1024, 8192) for seqs in (1, 32, 256)] + [(1, 2048, 2048), (1, 2048, 8192)]
SETS_MAX, REPLAYS, GRAPH_SECONDS = 32, 15, 1e-3
SKIPPED = 77


def product_cases():
    """(name, rows, cols, tokens, type, what follows the product)"""
    for shape, (width, heads, kv_heads, head_dim, ffn, vocab, linear) in SHAPES.items():
        q, kv = heads * head_dim, kv_heads * head_dim
        kinds = [("qkv", q + 2 * kv, width, linear), ("o", width, q, linear), ("gate_up", 2 * ffn, width, linear),
                 ("down", width, ffn, linear), ("head", vocab, width, "BF16")]
        for tokens in TOKENS:
            for kind, rows, cols, type_ in kinds:
                if kind != "head" or tokens <= 256:
                    yield f"{shape} {kind} {rows}x{cols} {type_} T={tokens}", rows, cols, tokens, type_, kind


def attention_cases():
    for shape, (_, heads, kv_heads, head_dim, _, _, _) in SHAPES.items():
        for seqs, tokens, context in ATTENTION:
            yield f"{shape} attention S={seqs} T={tokens} context={context} BF16", heads, kv_heads, head_dim, seqs, tokens, context


class Bench:
    def __init__(self, tiny):
        self.cuda, self.tiny = torch.cuda.is_available(), tiny
        self.device = "cuda" if self.cuda else "cpu"
        self.l2 = torch.cuda.get_device_properties(0).L2_cache_size if self.cuda else 1 << 20

    def sets(self, bytes_):
        return 2 if self.tiny else max(2, min(SETS_MAX, int(3 * self.l2 / bytes_) + 1))

    def random(self, *shape):
        return torch.rand(*shape, device=self.device, dtype=torch.bfloat16) - 0.5

    def fp8(self, *shape):
        return self.random(*shape).to(torch.float8_e4m3fn)

    def time(self, call, sets):
        """Median seconds of call(set)."""
        call(0)
        if not self.cuda:
            begin = time.perf_counter()
            call(1)
            return time.perf_counter() - begin
        torch.cuda.synchronize()
        once = self.events(lambda: call(0), 3)
        calls = max(sets, min(256, int(GRAPH_SECONDS / once)))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for i in range(calls):
                call(i % sets)
        graph.replay()
        return self.events(graph.replay, REPLAYS) / calls

    def events(self, call, count):
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        marks[0].record()
        for mark in marks[1:]:
            call()
            mark.record()
        torch.cuda.synchronize()
        return statistics.median(a.elapsed_time(b) for a, b in zip(marks, marks[1:])) * 1e-3


def product(bench, rows, cols, tokens, type_, kind):
    if bench.tiny:
        rows, cols, tokens = rows // 64 // 16 * 16 or 16, cols // 64, min(tokens, 32)
    if type_ == "BF16":
        x = bench.random(tokens, cols)
        count = bench.sets(2 * rows * cols)
        weights = [bench.random(rows, cols) for _ in range(count)]
        multiply = lambda i: F.linear(x, weights[i])  # noqa: E731
    else:  # W8A8 with a scale for each operand, as cuBLAS has it: 16 rows at least
        if tokens % 16 or not bench.cuda:
            return None
        x, one = bench.fp8(tokens, cols), torch.ones((), device=bench.device)
        count = bench.sets(rows * cols)
        weights = [bench.fp8(rows, cols) for _ in range(count)]
        multiply = lambda i: torch._scaled_mm(x, weights[i].t(), one, one, out_dtype=torch.bfloat16, use_fast_accum=True)  # noqa: E731

    def gated(i):
        gate, up = multiply(i).chunk(2, -1)
        return F.silu(gate) * up
    return bench.time(gated if kind == "gate_up" else multiply, count)


def attention(bench, heads, kv_heads, head_dim, seqs, tokens, context):
    if bench.tiny:
        seqs, tokens, context = min(seqs, 2), min(tokens, 8), 64
    bytes_ = 4 * seqs * kv_heads * context * head_dim
    if bench.cuda and 2 * bytes_ > torch.cuda.mem_get_info()[0]:
        return None
    q, count = bench.random(seqs, heads, tokens, head_dim), bench.sets(bytes_)
    caches = [(bench.random(seqs, kv_heads, context, head_dim), bench.random(seqs, kv_heads, context, head_dim)) for _ in range(count)]
    mask = None
    if tokens > 1 and tokens < context:  # the chunk's last row sees everything
        mask = torch.ones(tokens, context, dtype=torch.bool, device=bench.device).tril(context - tokens)
    causal = tokens > 1 and tokens == context
    return bench.time(lambda i: F.scaled_dot_product_attention(q, *caches[i], attn_mask=mask, is_causal=causal, enable_gqa=True), count)


def ceilings(bench):
    size = 256 if bench.tiny else 8192
    a, b = bench.random(size, size), bench.random(size, size)
    print(f"bf16 {2e-12 * size**3 / bench.time(lambda i: a @ b, 2):.1f}")
    try:
        x, w, one = bench.fp8(size, size), bench.fp8(size, size), torch.ones((), device=bench.device)
        seconds = bench.time(lambda i: torch._scaled_mm(x, w.t(), one, one, out_dtype=torch.bfloat16, use_fast_accum=True), 2)
        print(f"fp8 {2e-12 * size**3 / seconds:.1f}")
    except (RuntimeError, ValueError) as error:  # a card without FP8 products
        print(f"gpu_torch.py: no FP8 rate: {str(error).splitlines()[0]}", file=sys.stderr)


def report(file, name, seconds):
    print(f"{'torch':8} {name:44} {seconds * 1e6:10.2f} us", flush=True)
    if file:
        file.write(f"torch,{name},{seconds * 1e6:.3f},0,0,0,\n")
        file.flush()


def ops(bench, file, only):
    for run, cases in (product, product_cases()), (attention, attention_cases()):
        for name, *case in cases:
            if only and only not in name:
                continue
            try:
                seconds = run(bench, *case)
            except RuntimeError as error:  # one operator that this version lacks does not lose the others
                print(f"gpu_torch.py: {name}: {str(error).splitlines()[0]}", file=sys.stderr)
                continue
            if seconds:
                report(file, name, seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ceilings", "ops", "names"])
    parser.add_argument("--csv")
    parser.add_argument("--only")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if args.what == "names":
        print("\n".join(name for name, *_ in [*product_cases(), *attention_cases()]))
        return 0
    if torch is None or not (args.tiny or torch.cuda.is_available()):
        print("gpu_torch.py: skipped: no PyTorch that sees a GPU", file=sys.stderr)
        return SKIPPED
    torch.manual_seed(1)
    bench = Bench(args.tiny)
    if args.what == "ceilings":
        ceilings(bench)
        return 0
    with torch.inference_mode():
        if args.csv:
            with open(args.csv, "w") as file:
                ops(bench, file, args.only)
        else:
            ops(bench, None, args.only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
