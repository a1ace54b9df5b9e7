// gpu_copy: the copy bandwidth of this card: bytes read plus bytes written, of a copy far larger
// than any cache. What every floor of the other groups rests on.
#include "bench/gpu.h"
#include "bench/gpu_sequences.h"

static const size_t real_bytes = (size_t)2 << 30, tiny_bytes = 1 << 20;

typedef struct copy {
    void *from, *to;
    size_t bytes;
} copy;

static void run_copy(gpu *g, void *context, int set) {
    const copy *c = context;
    kernels_copy(g->k, set ? c->from : c->to, set ? c->to : c->from, c->bytes);
}

void gpu_run_copy(gpu *g) {
    gpu_open(g,
             (kernels_limits){.tokens = 1, .cols = 64, .context = 64, .heads = 1, .head_dim = 64});
    copy c = {.bytes = g->tiny ? tiny_bytes : real_bytes};
    c.from = gpu_take(g, c.bytes);
    c.to = gpu_take(g, c.bytes);
    gpu_fill_kv(g, c.from, c.bytes);
    double bytes = 2 * (double)c.bytes;
    double seconds = gpu_time(g, run_copy, &c, 2, bytes / g->ceilings.bandwidth);
    double datasheet = bytes / g->ceilings.bandwidth;
    const char *name = g->tiny ? "copy of 1 MiB" : "copy of 2 GiB";
    gpu_report(g, "copy", name, seconds, bytes, 0, datasheet, "share of the datasheet's");
    g->ceilings.bandwidth = bytes / seconds;
    gpu_release(g);
    gpu_close(g);
}
