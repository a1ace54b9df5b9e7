// weights: see weights.h. Loading has two passes: the first makes the views, the second touches
// their pages.
#include "worker/weights.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/base/log.h"

enum {
    PAGE = 4096,
    LAYER_VECTORS = 7,      // two norms, three biases, and o and down unpacked
    LAYER_MATRICES = 7,     // on a device each has its own memory
    ADVISE_BYTES = 4 << 20, // read-ahead is asked for in pieces, ahead of the touching
};

typedef struct loader {
    const model *model;
    const model_config *config;
    const shard *shard;
    kernels *kernels;
    progress *progress;
    weights *w;
    int64_t expected; // bytes of this rank's slices, roughly: for the progress
    int64_t touched;  // bytes
    bool placed;      // on a device: there is nothing to touch
    uint8_t sink;     // keeps the reads
} loader;

static size_t slice_bytes(const kernels_weight *w) {
    return (size_t)w->rows * dtype_row_bytes(w->type, (size_t)w->cols);
}

static int length(shard_range r) {
    return r.end - r.begin;
}

// Device memory that the weights own.
static status own(weights *w, size_t bytes, void **out) {
    assert(w->owned_count < w->owned_room);
    TRY(kernels_alloc(w->kernels, bytes, out));
    w->owned[w->owned_count++] = *out;
    return status_ok();
}

static status find(const loader *l, tensor_role role, int layer, const char *what, tensor *t) {
    if (model_tensor(l->model, role, layer, t)) return status_ok();
    return status_error(STATUS_NOT_FOUND, "the model has no %s in layer %d", what, layer);
}

// Uploads host floats and frees them.
static status upload(loader *l, float *host, size_t count, float **out) {
    void *device = NULL;
    status s = own(l->w, count * sizeof(float), &device);
    if (status_is_ok(&s)) s = kernels_upload(l->kernels, device, host, count * sizeof(float));
    free(host);
    *out = device;
    return s;
}

// Elements [begin, end) of a vector, as floats.
static status load_vector(loader *l, const tensor *t, int begin, int end, float **out) {
    assert(t->rows == 1 && begin >= 0 && end <= t->cols);
    assert(dtype_block_values(t->type) == 1); // model_open takes no quantised vectors
    size_t count = (size_t)(end - begin);
    float *host = malloc((count + 1) * sizeof *host);
    if (!host)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a vector of %zu weights",
                            count);
    dtype_to_f32(t->type, (const char *)t->data + dtype_row_bytes(t->type, (size_t)begin), count,
                 host);
    return upload(l, host, count, out);
}

// *out = the matrix where this device multiplies it from: the view itself, or a copy of its own.
static status place(loader *l, const kernels_weight *view, kernels_weight *out) {
    size_t bytes = kernels_weight_bytes(l->kernels, view);
    void *device = NULL;
    if (bytes > 0) TRY(own(l->w, bytes, &device));
    TRY(kernels_weight_place(l->kernels, view, device, out));
    if (bytes == 0) return status_ok();
    l->placed = true;
    l->touched += (int64_t)slice_bytes(view);
    double part = (double)l->touched / (double)l->expected;
    progress_load(l->progress, part < 1 ? part : 1);
    return status_ok();
}

static kernels_weight row_slice(const tensor *t, shard_range rows, int unit) {
    size_t stride = dtype_row_bytes(t->type, (size_t)t->cols);
    return (kernels_weight){
        .data = (const char *)t->data + (size_t)rows.begin * (size_t)unit * stride,
        .row_stride = stride,
        .rows = length(rows) * unit,
        .cols = (int)t->cols,
        .type = t->type,
    };
}

static status place_rows(loader *l, const tensor *t, shard_range rows, int unit,
                         kernels_weight *out) {
    kernels_weight view = row_slice(t, rows, unit);
    return place(l, &view, out);
}

// Columns [begin, end) unpacked to float: for cuts that fall inside a block.
static status unpack_columns(loader *l, const tensor *t, size_t begin, size_t end,
                             kernels_weight *out) {
    size_t rows = (size_t)t->rows, cols = (size_t)t->cols, width = end - begin;
    size_t stride = dtype_row_bytes(t->type, cols);
    float *row = malloc(cols * sizeof *row), *host = malloc(rows * width * sizeof *host);
    if (!row || !host) {
        free(row);
        free(host);
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory to unpack a matrix of %zu x %zu",
                            rows, width);
    }
    for (size_t r = 0; r < rows; r++) {
        dtype_to_f32(t->type, (const char *)t->data + r * stride, cols, row);
        memcpy(host + r * width, row + begin, width * sizeof *row);
    }
    free(row);
    kernels_weight view = {host, width * sizeof(float), (int)rows, (int)width, DTYPE_F32};
    if (kernels_weight_bytes(l->kernels, &view) > 0) {
        status s = place(l, &view, out);
        free(host);
        return s;
    }
    float *device = NULL; // multiplied from plain memory, which must stay
    TRY(upload(l, host, rows * width, &device));
    view.data = device;
    *out = view;
    return status_ok();
}

static status column_slice(loader *l, const tensor *t, shard_range cols, int unit,
                           kernels_weight *out) {
    size_t begin = (size_t)cols.begin * (size_t)unit, end = (size_t)cols.end * (size_t)unit;
    size_t block = dtype_block_values(t->type);
    if (begin % block != 0 || end % block != 0) return unpack_columns(l, t, begin, end, out);
    kernels_weight view = {
        .data = (const char *)t->data + dtype_row_bytes(t->type, begin),
        .row_stride = dtype_row_bytes(t->type, (size_t)t->cols),
        .rows = (int)t->rows,
        .cols = (int)(end - begin),
        .type = t->type,
    };
    return place(l, &view, out);
}

static status load_biases(loader *l, int layer, layer_weights *out) {
    if (!l->config->qkv_bias) return status_ok();
    const shard *s = l->shard;
    int c = l->config->head_dim;
    tensor q, k, v;
    TRY(find(l, TENSOR_Q_BIAS, layer, "q bias", &q));
    TRY(find(l, TENSOR_K_BIAS, layer, "k bias", &k));
    TRY(find(l, TENSOR_V_BIAS, layer, "v bias", &v));
    TRY(load_vector(l, &q, s->heads.begin * c, s->heads.end * c, &out->q_bias));
    TRY(load_vector(l, &k, s->kv_heads.begin * c, s->kv_heads.end * c, &out->k_bias));
    return load_vector(l, &v, s->kv_heads.begin * c, s->kv_heads.end * c, &out->v_bias);
}

static status load_layer(loader *l, int layer, layer_weights *out) {
    const shard *s = l->shard;
    int c = l->config->head_dim, d = l->config->width;
    tensor q, k, v, o, gate, up, down, attn_norm, ffn_norm;
    TRY(find(l, TENSOR_Q, layer, "q matrix", &q));
    TRY(find(l, TENSOR_K, layer, "k matrix", &k));
    TRY(find(l, TENSOR_V, layer, "v matrix", &v));
    TRY(find(l, TENSOR_O, layer, "o matrix", &o));
    TRY(find(l, TENSOR_GATE, layer, "gate matrix", &gate));
    TRY(find(l, TENSOR_UP, layer, "up matrix", &up));
    TRY(find(l, TENSOR_DOWN, layer, "down matrix", &down));
    TRY(find(l, TENSOR_ATTN_NORM, layer, "attention norm", &attn_norm));
    TRY(find(l, TENSOR_FFN_NORM, layer, "feed-forward norm", &ffn_norm));
    TRY(place_rows(l, &q, s->heads, c, &out->q));
    TRY(place_rows(l, &k, s->kv_heads, c, &out->k));
    TRY(place_rows(l, &v, s->kv_heads, c, &out->v));
    TRY(place_rows(l, &gate, s->ffn, 1, &out->gate));
    TRY(place_rows(l, &up, s->ffn, 1, &out->up));
    TRY(column_slice(l, &o, s->heads, c, &out->o));
    TRY(column_slice(l, &down, s->ffn, 1, &out->down));
    TRY(load_vector(l, &attn_norm, 0, d, &out->attn_norm));
    TRY(load_vector(l, &ffn_norm, 0, d, &out->ffn_norm));
    return load_biases(l, layer, out);
}

static status load_ends(loader *l) {
    tensor embedding, output, norm;
    TRY(find(l, TENSOR_EMBEDDING, 0, "embedding", &embedding));
    TRY(find(l, TENSOR_OUTPUT_NORM, 0, "output norm", &norm));
    TRY(place_rows(l, &embedding, l->shard->vocab, 1, &l->w->embedding));
    l->w->output = l->w->embedding;
    if (!l->config->tied_embeddings) {
        TRY(find(l, TENSOR_OUTPUT, 0, "output matrix", &output));
        TRY(place_rows(l, &output, l->shard->vocab, 1, &l->w->output));
    }
    TRY(load_vector(l, &norm, 0, l->config->width, &l->w->output_norm));
    size_t pairs = (size_t)l->config->rope_dims / 2;
    float *host = malloc((pairs + 1) * sizeof *host);
    if (!host) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the rotation angles");
    model_config_inv_freq(l->config, host);
    return upload(l, host, pairs, &l->w->inv_freq);
}

// Reads one byte of each page in [begin, begin + size), after telling the kernel to read ahead.
static void touch_range(loader *l, const char *begin, size_t size) {
    for (size_t at = 0; at < size; at += ADVISE_BYTES) {
        size_t n = size - at < ADVISE_BYTES ? size - at : ADVISE_BYTES;
        uintptr_t page = (uintptr_t)(begin + at) & ~(uintptr_t)(PAGE - 1);
        // Advice: where it is refused, the touching below reads all the same.
        if (n > PAGE) (void)madvise((void *)page, n, MADV_WILLNEED);
        for (size_t i = 0; i < n; i += PAGE) l->sink ^= (uint8_t)begin[at + i];
    }
    if (size > 0) l->sink ^= (uint8_t)begin[size - 1];
}

static void touch(loader *l, const kernels_weight *w) {
    if (w->rows == 0 || w->cols == 0) return;
    size_t row = dtype_row_bytes(w->type, (size_t)w->cols);
    if (row == w->row_stride) {
        touch_range(l, w->data, row * (size_t)w->rows);
    } else {
        for (int r = 0; r < w->rows; r++)
            touch_range(l, (const char *)w->data + (size_t)r * w->row_stride, row);
    }
    l->touched += (int64_t)slice_bytes(w);
    progress_load(l->progress, (double)l->touched / (double)l->w->bytes);
}

// Calls visit(loader, matrix) for every matrix of this rank.
static void each_matrix(loader *l, void (*visit)(loader *, const kernels_weight *)) {
    weights *w = l->w;
    visit(l, &w->embedding);
    if (w->output.data != w->embedding.data) visit(l, &w->output);
    for (int i = 0; i < w->layer_count; i++) {
        const layer_weights *y = &w->layers[i];
        const kernels_weight *all[] = {&y->q, &y->k, &y->v, &y->o, &y->gate, &y->up, &y->down};
        for (size_t j = 0; j < sizeof all / sizeof all[0]; j++) visit(l, all[j]);
    }
}

static void add_bytes(loader *l, const kernels_weight *w) {
    l->w->bytes += (int64_t)slice_bytes(w);
}

status weights_load(const model *m, const shard *s, kernels *k, progress *p, weights **out) {
    const model_config *config = model_get_config(m);
    weights *w = calloc(1, sizeof *w);
    if (!w) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the table of weights");
    w->kernels = k;
    w->layer_count = config->layers;
    w->owned_room = 4 + config->layers * (LAYER_VECTORS + LAYER_MATRICES);
    w->layers = calloc((size_t)config->layers, sizeof *w->layers);
    w->owned = calloc((size_t)w->owned_room, sizeof *w->owned);
    loader l = {.expected =
                    (int64_t)((double)model_weight_bytes(m) * length(s->ffn) / config->ffn_width) +
                    1,
                .model = m,
                .config = config,
                .shard = s,
                .kernels = k,
                .progress = p,
                .w = w};
    status st = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the table of weights");
    if (!w->layers || !w->owned) goto fail;
    st = load_ends(&l);
    for (int i = 0; i < config->layers && status_is_ok(&st); i++)
        st = load_layer(&l, i, &w->layers[i]);
    if (!status_is_ok(&st)) goto fail;
    each_matrix(&l, add_bytes);
    if (!l.placed) each_matrix(&l, touch);
    progress_load(p, 1);
    log_debug("weights", "%" PRId64 " MiB in this rank's slices", w->bytes >> 20);
    *out = w;
    return st;
fail:
    weights_close(w);
    return st;
}

void weights_close(weights *w) {
    if (!w) return;
    for (int i = 0; i < w->owned_count; i++) kernels_free(w->kernels, w->owned[i]);
    free(w->owned);
    free(w->layers);
    free(w);
}
