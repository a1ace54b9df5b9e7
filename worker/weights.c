// weights: see weights.h. Loading has three passes: the first finds every slice and takes device
// memory for it, the second fills that memory (or reads the mapped pages in), the third replaces
// the views into the files by what lies on the device.
#include "worker/weights.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "kernels/stage.h"
#include "worker/layer_order.h"
#include "worker/load_file.h"
#include "worker/load_meter.h"
#include "worker/loader.h"
#include "worker/slice.h"
#include "worker/warm_shard.h"

enum {
    LAYER_VECTORS = 9,   // four norms, three biases, two orders
    LAYER_MATRICES = 5,  // q, k, v, o, router; each may have memory of its own
    EXPERT_MATRICES = 3, // gate, up, down, of each expert
    NAME_BYTES = 80,
    SLICE_WAIT_NS = 1000 * 1000 * 1000,
};

// What a layer's matrices are called.
static const char *const matrix_names[TENSOR_ROLE_COUNT] = {
    [TENSOR_Q] = "q matrix",       [TENSOR_K] = "k matrix",       [TENSOR_V] = "v matrix",
    [TENSOR_O] = "o matrix",       [TENSOR_GATE] = "gate matrix", [TENSOR_UP] = "up matrix",
    [TENSOR_DOWN] = "down matrix", [TENSOR_ROUTER] = "router",
};

// A matrix that the first pass has found: what is loaded for it (items[i]), where its slice goes,
// and, where no file has it as it is, what it is made from.
typedef struct place {
    kernels_weight *out;
    bool made;
    slice from;
} place;

typedef struct gathering {
    const weights_options *o;
    const model_config *config;
    weights *w;
    load_file *files; // for what is read by itself: vectors, unpacked matrices
    int file_count;
    load_item *items;
    place *places;
    float **scales; // of items whose type has some; freed after loading
    int count, room;
    load_meter meter;    // of what slices are made from
    bool direct;         // these are read by direct I/O, where they are long runs
    layer_order *orders; // (layers of the stage), which slices are made in
    int experts;         // feed-forward networks of a layer: 1 without a mixture
    // Device memory for one matrix of each expert still to come: these lie one after another.
    char *ahead;
    int ahead_count;
} gathering;

static int length(shard_range r) {
    return r.end - r.begin;
}

static status no_memory(const char *what) {
    return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %s", what);
}

// Device memory that the weights own.
static status own(weights *w, size_t bytes, void **out) {
    assert(w->owned_count < w->owned_room);
    TRY(kernels_alloc(w->kernels, bytes, out));
    w->owned[w->owned_count++] = *out;
    return status_ok();
}

static status find(const gathering *g, tensor_role role, int layer, const char *what, tensor *t) {
    if (model_tensor(g->o->model, role, layer, t)) return status_ok();
    return status_error(STATUS_NOT_FOUND, "the model has no %s in layer %d", what, layer);
}

// ---- what is read by itself, past the mapping: a file that shrinks must not kill the rank

// The file that a part of the mapping is of, and where; NULL: none.
static load_file *file_at(const gathering *g, const void *mapped, int64_t *at) {
    for (int i = 0; i < g->file_count; i++) {
        const file_map *map = &g->files[i].map;
        uintptr_t offset = (uintptr_t)mapped - (uintptr_t)map->bytes;
        if ((uintptr_t)mapped < (uintptr_t)map->bytes || offset >= map->size) continue;
        *at = (int64_t)offset;
        return &g->files[i];
    }
    return NULL;
}

static status outside(void) {
    return status_error(STATUS_INTERNAL, "a tensor lies outside of the model's files");
}

// A tensor_read.
static status read_range(void *context, const void *mapped, size_t size, void *out) {
    int64_t at;
    load_file *f = file_at(context, mapped, &at);
    return f ? load_file_bytes(f, at, out, size) : outside();
}

// Uploads host memory and frees it.
static status upload_bytes(gathering *g, void *host, size_t bytes, void **out) {
    status s = own(g->w, bytes, out);
    if (status_is_ok(&s)) s = kernels_upload(g->w->kernels, *out, host, bytes);
    free(host);
    return s;
}

static status upload(gathering *g, float *host, size_t count, float **out) {
    void *device = NULL;
    status s = upload_bytes(g, host, count * sizeof(float), &device);
    *out = device;
    return s;
}

// Elements [begin, end) of a vector, as floats, with `offset` added.
static status load_vector(gathering *g, const tensor *t, int begin, int end, float offset,
                          float **out) {
    assert(t->rows == 1 && begin >= 0 && end <= t->cols);
    assert(dtype_block_values(t->type) == 1); // model_open takes no quantised vectors
    size_t count = (size_t)(end - begin), bytes = dtype_row_bytes(t->type, count);
    float *host = malloc((count + 1) * sizeof *host);
    char *raw = malloc(bytes + 1);
    status s = !host || !raw
                   ? no_memory("a vector of weights")
                   : read_range(g, (const char *)t->data + dtype_row_bytes(t->type, (size_t)begin),
                                bytes, raw);
    if (status_is_ok(&s)) dtype_to_f32(t->type, raw, count, host);
    for (size_t i = 0; status_is_ok(&s) && i < count; i++) host[i] += offset;
    free(raw);
    if (status_is_ok(&s)) return upload(g, host, count, out);
    free(host);
    return s;
}

static status load_norm(gathering *g, tensor_role role, int layer, const char *what, float **out) {
    tensor t;
    TRY(find(g, role, layer, what, &t));
    return load_vector(g, &t, 0, g->config->width, g->config->norm_offset, out);
}

// ---- first pass

// Device memory of an item; an expert's is a part of what its matrix's first took for all.
static status take(gathering *g, const kernels_weight *view, size_t bytes, void **out) {
    if (!view->expert) return own(g->w, bytes, out);
    if (g->ahead_count == 0) {
        void *all = NULL;
        TRY(own(g->w, bytes * (size_t)g->experts, &all));
        g->ahead = all;
        g->ahead_count = g->experts;
    }
    *out = g->ahead;
    g->ahead += bytes;
    g->ahead_count--;
    return status_ok();
}

// *out = the view, until the third pass; an item for it. `part` is what it is of the tensor;
// without data the view is made.
static status add(gathering *g, const tensor *t, tensor_part part, const kernels_weight *view,
                  kernels_weight *out, const char *what, int layer) {
    *out = *view;
    if (view->rows == 0 || view->cols == 0) return status_ok(); // an empty share
    assert(g->count < g->room);
    int at = g->count++;
    load_item *item = &g->items[at];
    *item = (load_item){.view = *view, .what = what, .layer = layer};
    g->places[at] = (place){
        .out = out, .made = !view->data, .from = {.whole = *t, .part = part, .type = view->type}};
    if (dtype_row_scales(view->type, 1) > 0) {
        TRY(tensor_part_scales(t, part, read_range, g, &g->scales[at], &item->view.scale_rows));
        item->view.scales = g->scales[at];
    }
    size_t bytes = kernels_weight_bytes(g->w->kernels, &item->view);
    g->w->bytes += (int64_t)((size_t)view->rows * dtype_row_bytes(view->type, (size_t)view->cols));
    return bytes > 0 ? take(g, &item->view, bytes, &item->device) : status_ok();
}

// A part of a tensor, as the file has it, or to be made from packed integers or as floats.
static status add_part(gathering *g, const tensor *t, tensor_part p, kernels_weight *out,
                       const char *what, int layer) {
    int64_t unit = tensor_column_unit(t), end = p.first_col + p.cols;
    bool whole = p.first_col % unit == 0 && (end % unit == 0 || end == t->cols);
    kernels_weight view = {.rows = (int)p.rows,
                           .cols = (int)p.cols,
                           .type = whole ? t->type : DTYPE_F32,
                           .expert = out->expert};
    if (whole && t->packing == TENSOR_ROWS) {
        view.row_stride = dtype_row_bytes(t->type, (size_t)t->cols);
        view.data = (const char *)t->data + (size_t)p.first_row * view.row_stride +
                    dtype_row_bytes(t->type, (size_t)p.first_col);
    } else {
        view.row_stride = dtype_row_bytes(view.type, (size_t)p.cols);
    }
    return add(g, t, p, &view, out, what, layer);
}

static status add_rows(gathering *g, const tensor *t, shard_range rows, int unit,
                       kernels_weight *out, const char *what, int layer) {
    tensor_part part = {.first_row = t->first_row + (int64_t)rows.begin * unit,
                        .rows = (int64_t)length(rows) * unit,
                        .cols = t->cols};
    return add_part(g, t, part, out, what, layer);
}

static status add_columns(gathering *g, const tensor *t, shard_range cols, int unit,
                          kernels_weight *out, const char *what, int layer) {
    tensor_part part = {.rows = t->rows,
                        .first_col = (int64_t)cols.begin * unit,
                        .cols = (int64_t)length(cols) * unit};
    return add_part(g, t, part, out, what, layer);
}

static status add_biases(gathering *g, int layer, layer_weights *out) {
    if (!g->config->qkv_bias) return status_ok();
    const shard *s = g->o->shard;
    int c = g->config->head_dim;
    tensor q, k, v;
    TRY(find(g, TENSOR_Q_BIAS, layer, "q bias", &q));
    TRY(find(g, TENSOR_K_BIAS, layer, "k bias", &k));
    TRY(find(g, TENSOR_V_BIAS, layer, "v bias", &v));
    TRY(load_vector(g, &q, s->heads.begin * c, s->heads.end * c, 0, &out->q_bias));
    TRY(load_vector(g, &k, s->kv_heads.begin * c, s->kv_heads.end * c, 0, &out->k_bias));
    return load_vector(g, &v, s->kv_heads.begin * c, s->kv_heads.end * c, 0, &out->v_bias);
}

// A copy of an order, on the device.
static status upload_order(gathering *g, const int32_t *order, int32_t **out) {
    if (!order) return status_ok();
    size_t bytes = (size_t)g->config->width * sizeof *order;
    void *host = malloc(bytes), *device = NULL;
    if (!host) return no_memory("the order of columns");
    memcpy(host, order, bytes);
    status s = upload_bytes(g, host, bytes, &device);
    *out = device;
    return s;
}

// A device multiplies by all experts' gates and ups in one call.
static status check_experts(const gathering *g, int layer, const layer_weights *y) {
    if (!kernels_stream(g->w->kernels) || y->gate->type == y->up->type) return status_ok();
    return status_error(STATUS_UNIMPLEMENTED,
                        "the experts of layer %d have their gate matrices in %s and their up "
                        "matrices in %s; on a card they must be stored alike: use --device cpu or "
                        "quantise both to one type",
                        layer, dtype_name(y->gate->type), dtype_name(y->up->type));
}

// The feed-forward network, t[role], or a mixture's router and experts.
static status add_ffn(gathering *g, int layer, const tensor t[TENSOR_ROLE_COUNT],
                      layer_weights *y) {
    const struct {
        tensor_role role;
        const char *of_expert;
        bool columns;
        kernels_weight *out;
    } matrices[EXPERT_MATRICES] = {
        {TENSOR_GATE, "gate matrix of an expert", false, y->gate},
        {TENSOR_UP, "up matrix of an expert", false, y->up},
        {TENSOR_DOWN, "down matrix of an expert", true, y->down},
    };
    bool mixture = g->config->experts > 0;
    for (int i = 0; i < EXPERT_MATRICES; i++) {
        tensor_role role = matrices[i].role;
        for (int e = 0; e < g->experts; e++) {
            const char *what = mixture ? matrices[i].of_expert : matrix_names[role];
            tensor one = t[role];
            if (mixture && !model_expert_tensor(g->o->model, role, layer, e, &one))
                return status_error(STATUS_NOT_FOUND, "the model has no %s in layer %d", what,
                                    layer);
            kernels_weight *out = &matrices[i].out[e];
            out->expert = mixture;
            TRY((matrices[i].columns ? add_columns : add_rows)(g, &one, g->o->shard->ffn, 1, out,
                                                               what, layer));
        }
    }
    if (!mixture) return status_ok();
    TRY(add_rows(g, &t[TENSOR_ROUTER], (shard_range){0, g->experts}, 1, &y->router, "router",
                 layer));
    return check_experts(g, layer, y);
}

static status add_matrices(gathering *g, int layer, const tensor t[TENSOR_ROLE_COUNT],
                           layer_weights *y) {
    const shard *s = g->o->shard;
    int c = g->config->head_dim;
    const struct {
        tensor_role role;
        bool columns;
        shard_range range;
        int unit;
        kernels_weight *out;
    } matrices[] = {
        {TENSOR_Q, false, s->heads, c, &y->q},
        {TENSOR_K, false, s->kv_heads, c, &y->k},
        {TENSOR_V, false, s->kv_heads, c, &y->v},
        {TENSOR_O, true, s->heads, c, &y->o},
    };
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
        TRY((matrices[i].columns ? add_columns : add_rows)(
            g, &t[matrices[i].role], matrices[i].range, matrices[i].unit, matrices[i].out,
            matrix_names[matrices[i].role], layer));
    return add_ffn(g, layer, t, y);
}

// Whether a layer has one matrix of that role.
static bool has_matrix(const model_config *c, tensor_role role) {
    bool dense = role >= TENSOR_GATE, mixture = role == TENSOR_ROUTER;
    return matrix_names[role] && !(c->experts > 0 ? dense : mixture);
}

static status add_layer(gathering *g, int layer, layer_weights *y) {
    layer_order *order = &g->orders[layer - g->o->shard->layers.begin];
    tensor t[TENSOR_ROLE_COUNT] = {{0}};
    for (int role = 0; role < TENSOR_ROLE_COUNT; role++)
        if (has_matrix(g->config, (tensor_role)role))
            TRY(find(g, (tensor_role)role, layer, matrix_names[role], &t[role]));
    TRY(layer_order_find(t, read_range, g, order));
    TRY(upload_order(g, order->attention, &y->attn_order));
    TRY(upload_order(g, order->ffn, &y->ffn_order));
    TRY(add_matrices(g, layer, t, y));
    TRY(load_norm(g, TENSOR_ATTN_NORM, layer, "attention norm", &y->attn_norm));
    TRY(load_norm(g, TENSOR_FFN_NORM, layer, "feed-forward norm", &y->ffn_norm));
    if (g->config->post_norms) {
        TRY(load_norm(g, TENSOR_POST_ATTN_NORM, layer, "norm after attention", &y->post_attn_norm));
        TRY(load_norm(g, TENSOR_POST_FFN_NORM, layer, "norm after the FFN", &y->post_ffn_norm));
    }
    return add_biases(g, layer, y);
}

// Whether one matrix serves as both: a tied one, whose uses are in one stage.
static bool shares_ends(const gathering *g) {
    const shard *s = g->o->shard;
    return g->config->tied_embeddings && s->embedding.begin == s->vocab.begin &&
           s->embedding.end == s->vocab.end;
}

static status add_ends(gathering *g) {
    tensor embedding, output;
    const shard *mine = g->o->shard;
    TRY(find(g, TENSOR_EMBEDDING, 0, "embedding", &embedding));
    TRY(add_rows(g, &embedding, mine->embedding, 1, &g->w->embedding, "embedding", -1));
    if (!shares_ends(g)) {
        output = embedding;
        if (!g->config->tied_embeddings) TRY(find(g, TENSOR_OUTPUT, 0, "output matrix", &output));
        TRY(add_rows(g, &output, mine->vocab, 1, &g->w->output, "output matrix", -1));
    }
    TRY(load_norm(g, TENSOR_OUTPUT_NORM, 0, "output norm", &g->w->output_norm));
    size_t pairs = (size_t)g->config->rope_dims / 2;
    float *host = malloc((pairs + 1) * sizeof *host);
    if (!host) return no_memory("the rotation angles");
    model_config_inv_freq(g->config, g->o->context, host);
    return upload(g, host, pairs, &g->w->inv_freq);
}

static status find_all(gathering *g) {
    TRY(add_ends(g));
    shard_range layers = g->o->shard->layers;
    for (int i = layers.begin; i < layers.end; i++)
        TRY(add_layer(g, i, &g->w->layers[i - layers.begin]));
    return status_ok();
}

// ---- second pass

// All of them: none is multiplied where it is mapped.
static bool on_device(const gathering *g) {
    for (int i = 0; i < g->count; i++)
        if (!g->items[i].device) return false;
    return g->count > 0;
}

// Brings what was made to where it is multiplied.
static status place_one(gathering *g, int i, void *host) {
    const load_item *item = &g->items[i];
    kernels_weight view = item->view, ignored;
    size_t bytes = (size_t)view.rows * view.row_stride;
    view.data = host;
    if (item->device) {
        status s = kernels_weight_place(g->w->kernels, &view, item->device, &ignored);
        free(host);
        return s;
    }
    void *kept = NULL; // multiplied from plain memory, which must stay
    TRY(upload_bytes(g, host, bytes, &kept));
    g->places[i].out->data = kept;
    return status_ok();
}

static int count_made(const gathering *g) {
    int count = 0;
    for (int i = 0; i < g->count; i++) count += g->places[i].made;
    return count;
}

// A tensor_read of what becomes slices. Runs that only this rank reads go past the page cache, if a
// device keeps what is made of them.
static status read_for_slice(void *context, const void *mapped, size_t size, void *out) {
    gathering *g = context;
    int64_t at;
    load_file *f = file_at(g, mapped, &at);
    if (!f) return outside();
    load_meter_begin(&g->meter);
    status s = g->direct ? load_file_copy(f, at, out, size) : load_file_bytes(f, at, out, size);
    load_meter_end(&g->meter, (int64_t)size);
    return s;
}

// Ranks of a host share what they read of matrices whose rows or columns were sorted: all of them.
static bool reads_alone(const gathering *g) {
    if (g->o->ranks == 1) return true;
    for (int i = 0; i < g->w->layer_count; i++)
        if (g->orders[i].inner) return false;
    return true;
}

// The next slice, as long as something is read meanwhile.
static status next_slice(gathering *g, slice_maker *m, int *index, void **rows) {
    int64_t moved = clock_now_ns(), bytes = load_meter_bytes(&g->meter);
    for (;;) {
        int64_t now = clock_now_ns();
        status s = slice_maker_next(m, now + SLICE_WAIT_NS, index, rows);
        if (*index >= 0 || s.code != STATUS_DEADLINE_EXCEEDED) return s;
        int64_t read = load_meter_bytes(&g->meter);
        if (read > bytes) moved = now;
        bytes = read;
        if (now > g->o->deadline_ns || now - moved > LOADER_STALL_S * CLOCK_SECOND) return s;
    }
}

// Brings slices to their places while the next are made; `at` says which item each is.
static status place_slices(gathering *g, const slice *slices, const int *at, int count) {
    slice_maker *m;
    TRY(slice_maker_open(slices, count, read_for_slice, g, &m));
    status s = status_ok();
    for (int done = 0; status_is_ok(&s) && done < count; done++) {
        int i;
        void *rows;
        char name[NAME_BYTES];
        s = next_slice(g, m, &i, &rows);
        if (status_is_ok(&s))
            s = place_one(g, at[i], rows);
        else if (i >= 0)
            s = status_context(s, "%s", load_item_name(&g->items[at[i]], name, sizeof name));
        progress_load(g->o->progress, (double)(done + 1) / count);
    }
    slice_maker_close(m);
    return s;
}

// What no file has as it is. *report grows by what was read for it.
static status place_made(gathering *g, load_report *report) {
    int count = count_made(g), n = 0;
    if (count == 0) return status_ok();
    slice *slices = calloc((size_t)count, sizeof *slices);
    int *at = calloc((size_t)count, sizeof *at);
    int64_t begin = clock_now_ns();
    status s = slices && at ? status_ok() : no_memory("a list of slices");
    for (int i = 0; status_is_ok(&s) && i < g->count; i++) {
        if (!g->places[i].made) continue;
        at[n] = i;
        slices[n++] = g->places[i].from;
    }
    g->direct = on_device(g) && reads_alone(g);
    if (status_is_ok(&s)) s = place_slices(g, slices, at, count);
    report->made = count;
    report->bytes += load_meter_bytes(&g->meter);
    report->seconds += (double)(clock_now_ns() - begin) / (double)CLOCK_SECOND;
    report->read_seconds += load_meter_seconds(&g->meter);
    for (int i = 0; i < g->file_count; i++)
        report->direct_bytes += atomic_load(&g->files[i].direct_bytes);
    free(slices);
    free(at);
    return s;
}

static status load_from_files(gathering *g, load_report *report) {
    int count = 0;
    const file_map *files = model_files(g->o->model, &count);
    TRY(loader_run(&(loader_options){.kernels = g->w->kernels,
                                     .files = files,
                                     .file_count = count,
                                     .items = g->items,
                                     .item_count = g->count,
                                     .direct = true,
                                     .progress = count_made(g) > 0 ? NULL : g->o->progress,
                                     .deadline_ns = g->o->deadline_ns},
                   report));
    TRY(place_made(g, report));
    return model_check_files(g->o->model);
}

static void tell(const load_report *report, const char *where) {
    char text[256];
    log_info("weights", "loaded from %s: %s", where, load_report_text(report, text, sizeof text));
}

static void keep_warm(const warm_shard *warm, int64_t deadline_ns) {
    int64_t begin = clock_now_ns();
    status s = warm_shard_save(warm, deadline_ns);
    if (!status_is_ok(&s)) {
        log_warn("weights", "not kept warm: %s", s.message);
        return;
    }
    char path[4096];
    if (!warm_shard_path(warm, path, sizeof path).code)
        log_info("weights", "kept warm in %s (written in %.2f s); remove it to free its memory",
                 path, (double)(clock_now_ns() - begin) / (double)CLOCK_SECOND);
}

static status load_all(gathering *g) {
    const weights_options *o = g->o;
    warm_shard warm = {.folder = o->warm_folder,
                       .limit = o->warm_bytes,
                       .model = o->model,
                       .shard = o->shard,
                       .rank = o->rank,
                       .ranks = o->ranks,
                       .kernels = g->w->kernels,
                       .items = g->items,
                       .item_count = g->count};
    load_report report;
    bool keeps = o->warm_folder && on_device(g);
    if (keeps) {
        status s = warm_shard_load(&warm, o->progress, o->deadline_ns, &report);
        if (status_is_ok(&s)) {
            tell(&report, "a warm shard");
            return s;
        }
        if (s.code != STATUS_NOT_FOUND) log_warn("weights", "no warm start: %s", s.message);
    } else if (o->warm_folder) {
        log_info("weights",
                 "--warm-shards has no effect here: this device computes from the mapped "
                 "files, which the page cache keeps warm");
    }
    TRY(load_from_files(g, &report));
    tell(&report, "files");
    if (keeps) keep_warm(&warm, o->deadline_ns);
    return status_ok();
}

// ---- all

static status open_files(gathering *g) {
    const file_map *files = model_files(g->o->model, &g->file_count);
    g->files = calloc((size_t)g->file_count + 1, sizeof *g->files);
    if (!g->files) return no_memory("a list of files");
    for (int i = 0; i < g->file_count; i++) TRY(load_file_open(&files[i], true, &g->files[i]));
    return status_ok();
}

static status prepare(gathering *g) {
    weights *w = g->w;
    w->kernels = g->o->kernels;
    w->layer_count = length(g->o->shard->layers);
    g->experts = g->config->experts > 0 ? g->config->experts : 1;
    int matrices = LAYER_MATRICES + EXPERT_MATRICES * g->experts;
    w->owned_room = 4 + w->layer_count * (LAYER_VECTORS + matrices);
    w->layers = calloc((size_t)w->layer_count, sizeof *w->layers);
    size_t ffn = (size_t)w->layer_count * EXPERT_MATRICES * (size_t)g->experts;
    w->ffn = calloc(ffn, sizeof *w->ffn);
    w->owned = calloc((size_t)w->owned_room, sizeof *w->owned);
    g->room = 2 + w->layer_count * matrices;
    g->items = calloc((size_t)g->room, sizeof *g->items);
    g->places = calloc((size_t)g->room, sizeof *g->places);
    g->scales = calloc((size_t)g->room, sizeof *g->scales);
    g->orders = calloc((size_t)w->layer_count, sizeof *g->orders);
    if (!w->layers || !w->ffn || !w->owned || !g->items || !g->places || !g->scales || !g->orders)
        return no_memory("the table of weights");
    for (int i = 0; i < w->layer_count; i++) {
        kernels_weight *first = w->ffn + (ptrdiff_t)i * EXPERT_MATRICES * g->experts;
        w->layers[i].gate = first;
        w->layers[i].up = first + g->experts;
        w->layers[i].down = first + (ptrdiff_t)2 * g->experts;
    }
    return open_files(g);
}

static status finish(gathering *g) {
    for (int i = 0; i < g->count; i++)
        if (g->items[i].device)
            TRY(kernels_stage_weight(g->w->kernels, &g->items[i].view, g->items[i].device,
                                     g->places[i].out));
    if (shares_ends(g)) g->w->output = g->w->embedding;
    progress_load(g->o->progress, 1);
    log_debug("weights", "%" PRId64 " MiB in this rank's slices", g->w->bytes >> 20);
    return status_ok();
}

static void put_away(gathering *g) {
    for (int i = 0; g->files && i < g->file_count; i++) load_file_close(&g->files[i]);
    for (int i = 0; i < g->count; i++) free(g->scales[i]);
    for (int i = 0; g->orders && i < g->w->layer_count; i++) layer_order_free(&g->orders[i]);
    free(g->orders);
    load_meter_close(&g->meter);
    free(g->files);
    free(g->items);
    free(g->places);
    free(g->scales);
}

status weights_load(const weights_options *options, weights **out) {
    gathering g = {
        .o = options, .config = model_get_config(options->model), .w = calloc(1, sizeof(weights))};
    if (!g.w) return no_memory("the table of weights");
    load_meter_open(&g.meter);
    status s = prepare(&g);
    if (status_is_ok(&s)) s = find_all(&g);
    if (status_is_ok(&s)) s = load_all(&g);
    if (status_is_ok(&s)) s = finish(&g);
    put_away(&g);
    if (status_is_ok(&s))
        *out = g.w;
    else
        weights_close(g.w);
    return s;
}

void weights_close(weights *w) {
    if (!w) return;
    for (int i = 0; i < w->owned_count; i++) kernels_free(w->kernels, w->owned[i]);
    free(w->owned);
    free(w->ffn);
    free(w->layers);
    free(w);
}
