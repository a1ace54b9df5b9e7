// kv_store: see kv_store.h. Memory that the machine does not have is refused here: the kernel would
// promise it now and kill the process at the first long conversation.
#include "worker/kv_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int64_t kv_store_block_bytes(const kernels *k, const kv_shape *s) {
    size_t one = kernels_kv_bytes(k, s->type, 1, s->block_tokens, s->heads, s->head_dim);
    return (int64_t)one * 2 * s->layers;
}

status kv_store_fit(const kernels *k, const kv_shape *shape, int64_t budget, int *blocks) {
    int64_t each = kv_store_block_bytes(k, shape), count = budget / each;
    if (count < 1)
        return status_error(STATUS_RESOURCE_EXHAUSTED,
                            "a KV budget of %" PRId64
                            " KiB holds no block of %d tokens; --kv-memory must be "
                            "at least %" PRId64 " KiB",
                            budget >> 10, shape->block_tokens, (each >> 10) + 1);
    *blocks = (int)(count < INT32_MAX ? count : INT32_MAX);
    return status_ok();
}

// What Linux says can be had without swapping [bytes]; -1 where it does not say.
static int64_t memory_available(void) {
    FILE *f = fopen("/proc/meminfo", "r");
    if (!f) return -1;
    char line[256];
    int64_t kib = -1;
    while (kib < 0 && fgets(line, sizeof line, f)) {
        if (sscanf(line, "MemAvailable: %" SCNd64, &kib) != 1) kib = -1;
    }
    fclose(f);
    return kib < 0 ? -1 : kib << 10;
}

static status check_memory(int64_t bytes, int ranks_here) {
    int64_t available = memory_available();
    if (available < 0 || bytes <= available / ranks_here) return status_ok();
    return status_error(STATUS_RESOURCE_EXHAUSTED,
                        "no memory for the KV budget: %d ranks x %" PRId64
                        " MiB are wanted on this host, %" PRId64
                        " MiB are available; lower --kv-memory",
                        ranks_here, bytes >> 20, available >> 20);
}

status kv_store_open(kernels *k, const kv_shape *shape, int blocks, int ranks_here,
                     kv_store **out) {
    TRY(check_memory(kv_store_block_bytes(k, shape) * blocks, ranks_here));
    kv_store *s = calloc(1, sizeof *s);
    kernels_kv *layers = calloc((size_t)shape->layers, sizeof *layers);
    if (!s || !layers) {
        free(s);
        free(layers);
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the KV store");
    }
    *s = (kv_store){.kernels = k, .layers = layers, .shape = *shape, .blocks = blocks};
    size_t bytes = kernels_kv_bytes(k, shape->type, blocks, shape->block_tokens, shape->heads,
                                    shape->head_dim);
    for (int i = 0; i < shape->layers; i++) {
        layers[i] = (kernels_kv){.type = shape->type,
                                 .blocks = blocks,
                                 .block_tokens = shape->block_tokens,
                                 .heads = shape->heads,
                                 .head_dim = shape->head_dim};
        status st = kernels_alloc(k, bytes, &layers[i].k);
        if (status_is_ok(&st)) st = kernels_alloc(k, bytes, &layers[i].v);
        if (status_is_ok(&st)) continue;
        kv_store_close(s);
        return status_context(st, "KV store of %d blocks", blocks);
    }
    *out = s;
    return status_ok();
}

void kv_store_close(kv_store *s) {
    if (!s) return;
    for (int i = 0; i < s->shape.layers; i++) {
        kernels_free(s->kernels, s->layers[i].k);
        kernels_free(s->kernels, s->layers[i].v);
    }
    free(s->layers);
    free(s);
}
