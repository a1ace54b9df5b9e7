// engine: see engine.h. Opening is a ladder; after each rung that can fail on one rank alone the
// ranks agree, so that no rank goes on to wait for one that has given up.
#include "worker/engine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "worker/decoder.h"
#include "worker/kv_store.h"
#include "worker/weights.h"

enum { LOAD_TIMEOUT_S = 3600 }; // a slow disk may take this long on one rank while the others wait

struct engine {
    engine_options o;
    shard *shards;
    kernels *kernels;
    weights *weights;
    kv_store *kv;
    comm *part;  // NULL with one stage
    comm *stage; // of this one's: the part, or all
    relay *relay;
    reduce *reduce;
    decoder *decoder;
    step *step;
};

static int64_t load_deadline(void) {
    return clock_now_ns() + LOAD_TIMEOUT_S * CLOCK_SECOND;
}

static status agree(engine *e, status mine) {
    return comm_agree(e->o.comm, mine, load_deadline());
}

static int logit_rows(const engine *e) {
    return decoder_logit_rows(e->kernels, e->o.limits.max_seqs, e->o.limits.vocab);
}

static status open_kernels(engine *e) {
    const engine_options *o = &e->o;
    TRY(device_open(&o->device, o->comm, &e->kernels));
    const model_config *c = model_get_config(o->model);
    const shard *s = &e->shards[comm_rank(o->comm)];
    int heads = s->heads.end - s->heads.begin, ffn = s->ffn.end - s->ffn.begin;
    int cols = c->width, rows = o->limits.max_step_tokens;
    if (heads * c->head_dim > cols) cols = heads * c->head_dim;
    if (ffn > cols) cols = ffn;
    int logits = logit_rows(e);
    if (rows < logits) rows = logits;
    return kernels_reserve(e->kernels, (kernels_limits){.tokens = rows,
                                                        .cols = cols,
                                                        .context = o->limits.max_context,
                                                        .heads = heads,
                                                        .head_dim = c->head_dim,
                                                        .experts = c->experts,
                                                        .top = c->experts_used});
}

static dtype kv_type(const engine_options *o) {
    if (!strcmp(o->kv_type, "f8")) return DTYPE_F8_E4M3;
    if (!strcmp(o->kv_type, "i8")) return DTYPE_I8;
    if (!strcmp(o->kv_type, "f32")) return DTYPE_F32;
    if (!strcmp(o->kv_type, "f16")) return DTYPE_F16;
    if (!strcmp(o->kv_type, "bf16")) return DTYPE_BF16;
    tensor t;
    bool full = model_tensor(o->model, TENSOR_Q, 0, &t) && t.type == DTYPE_F32;
    return full ? DTYPE_F32 : DTYPE_F16;
}

// The least of all ranks.
static status least(comm *c, int *value) {
    int all[SHARD_RANKS_MAX];
    TRY(comm_gather(c, value, sizeof *value, all, load_deadline()));
    for (int i = 0; comm_rank(c) == 0 && i < comm_size(c); i++)
        *value = all[i] < *value ? all[i] : *value;
    return comm_broadcast(c, value, sizeof *value, load_deadline());
}

static void tell_kv(const engine *e, const kv_shape *shape, int blocks) {
    if (comm_rank(e->o.comm) != 0) return;
    int64_t tokens = (int64_t)blocks * shape->block_tokens,
            each = kv_store_block_bytes(e->kernels, shape);
    log_info("engine", "KV store: %d blocks of %d tokens (%s), %" PRId64 " MiB on this rank",
             blocks, shape->block_tokens, dtype_name(shape->type), blocks * each >> 20);
    if (tokens >= e->o.limits.max_context) return;
    int64_t needed =
        ((int64_t)e->o.limits.max_context + shape->block_tokens - 1) / shape->block_tokens * each;
    log_warn("engine",
             "the KV store holds %" PRId64
             " tokens, less than one sequence of max_context %d: longer requests will be "
             "refused; --kv-memory of %" PRId64 "MiB would hold one",
             tokens, e->o.limits.max_context, (needed >> 20) + 1);
}

static status check_kv_type(const engine *e) {
    bool device = kernels_stream(e->kernels) != NULL;
    if (device || kv_type(&e->o) < DTYPE_COUNT) return status_ok();
    return status_error(STATUS_FAILED_PRECONDITION,
                        "--kv-type %s is for cards; the processor takes f32, f16 and bf16",
                        e->o.kv_type);
}

static kv_shape shape_of_kv(const engine *e) {
    const shard *s = &e->shards[comm_rank(e->o.comm)];
    return (kv_shape){.type = kv_type(&e->o),
                      .layers = s->layers.end - s->layers.begin,
                      .block_tokens = e->o.limits.block_tokens,
                      .heads = s->kv_heads.end - s->kv_heads.begin,
                      .head_dim = model_get_config(e->o.model)->head_dim};
}

// How many blocks the budget holds, on the rank where it holds least.
static status fit_kv(engine *e) {
    TRY(agree(e, check_kv_type(e)));
    kv_shape shape = shape_of_kv(e);
    int blocks = 0;
    TRY(agree(e, kv_store_fit(e->kernels, &shape, e->o.kv_memory, &blocks)));
    TRY(least(e->o.comm, &blocks));
    e->o.limits.kv_blocks = blocks;
    return status_ok();
}

// Behind all else that takes memory, so that what is short is the KV budget, and the line that says
// so knows what is left for it.
static status open_kv(engine *e) {
    kv_shape shape = shape_of_kv(e);
    int blocks = e->o.limits.kv_blocks;
    TRY(agree(e, kv_store_open(e->kernels, &shape, blocks, comm_local_size(e->o.comm), &e->kv)));
    decoder_set_kv(e->decoder, e->kv);
    tell_kv(e, &shape, blocks);
    return status_ok();
}

// Even, as reduce_gather wants its parts.
static int largest_vocab(const engine *e) {
    int most = 0;
    for (int i = 0; i < comm_size(e->o.comm); i++) {
        int rows = e->shards[i].vocab.end - e->shards[i].vocab.begin;
        most = rows > most ? rows : most;
    }
    return (most + 1) / 2 * 2;
}

static status open_reduce(engine *e) {
    const engine_options *o = &e->o;
    int rows = kernels_rows_max(e->kernels, o->limits.max_step_tokens);
    reduce_options options = {.comm = e->stage,
                              .kernels = e->kernels,
                              .progress = o->progress,
                              .relay = e->relay,
                              .kind = o->reduce,
                              .fast = o->device.fast,
                              .one_shot_bytes = o->one_shot_bytes,
                              .multicast = o->multicast,
                              .nccl_path = o->nccl_path,
                              .max_count = (size_t)rows * (size_t)model_get_config(o->model)->width,
                              .timeout_ns = o->step_timeout_ns};
    return reduce_open(&options, load_deadline(), &e->reduce);
}

static status open_relay(engine *e) {
    const engine_options *o = &e->o;
    shard_place p = shard_find_place(e->shards, comm_size(o->comm), comm_rank(o->comm));
    e->stage = o->comm;
    if (p.stages > 1) {
        TRY(comm_open_part(o->comm, p.first, p.ranks, load_deadline(), &e->part));
        e->stage = e->part;
        TRY(comm_open_lines(o->comm, load_deadline())); // words and reports go there
        if (comm_rank(e->part) == 0 && comm_local_size(e->part) < comm_size(e->part))
            log_warn("engine",
                     "the ranks of stage %d are on several hosts, so its sums cross the network; "
                     "let the launcher fill host by host (mpirun --map-by ppr:N:node)",
                     p.stage);
    }
    int rows = kernels_rows_max(e->kernels, o->limits.max_step_tokens);
    return relay_open(
        &(relay_options){.comm = o->comm,
                         .kernels = e->kernels,
                         .progress = o->progress,
                         .shards = e->shards,
                         .by_host = o->reduce == REDUCE_HOST,
                         .by_nccl = o->reduce == REDUCE_NCCL,
                         .nccl_path = o->nccl_path,
                         .max_count = (size_t)rows * (size_t)model_get_config(o->model)->width},
        load_deadline(), &e->relay);
}

static status open_decoder(engine *e) {
    const engine_options *o = &e->o;
    decoder_parts parts = {.config = model_get_config(o->model),
                           .shard = &e->shards[comm_rank(o->comm)],
                           .weights = e->weights,
                           .kernels = e->kernels,
                           .reduce = e->reduce,
                           .relay = e->relay,
                           .max_tokens = o->limits.max_step_tokens,
                           .kept_rows = o->limits.max_seqs,
                           .logit_rows = logit_rows(e),
                           .max_vocab = largest_vocab(e)};
    TRY(decoder_create(&parts, &e->decoder));
    return step_create(&(step_parts){.limits = o->limits,
                                     .shards = e->shards,
                                     .comm = o->comm,
                                     .stage = e->stage,
                                     .decoder = e->decoder,
                                     .reduce = e->reduce,
                                     .relay = e->relay,
                                     .max_vocab = largest_vocab(e),
                                     .kernels = e->kernels,
                                     .progress = o->progress,
                                     .tokenizer = model_get_tokenizer(o->model),
                                     .timeout_ns = o->step_timeout_ns},
                       &e->step);
}

static status open_all(engine *e) {
    const engine_options *o = &e->o;
    progress_enter(o->progress, CLUSTER_LOADING);
    TRY(agree(e, open_kernels(e)));
    if (o->watch && kernels_stream(e->kernels)) device_watch_start(o->watch, device_card(o->comm));
    TRY(device_agree(o->comm, e->kernels, load_deadline()));
    const shard *mine = &e->shards[comm_rank(o->comm)];
    weights_options weights = {.model = o->model,
                               .shard = mine,
                               .rank = comm_rank(o->comm),
                               .ranks = comm_size(o->comm),
                               .context = o->limits.max_context,
                               .kernels = e->kernels,
                               .progress = o->progress,
                               .warm_folder = o->warm_shards,
                               .warm_bytes = o->warm_memory,
                               .deadline_ns = load_deadline()};
    TRY(agree(e, weights_load(&weights, &e->weights)));
    TRY(fit_kv(e));
    TRY(open_relay(e)); // agreed by itself
    TRY(agree(e, open_reduce(e)));
    TRY(agree(e, open_decoder(e)));
    TRY(open_kv(e));
    progress_enter(o->progress, CLUSTER_IDLE);
    return status_ok();
}

status engine_open(const engine_options *options, engine **out) {
    size_t ranks = (size_t)comm_size(options->comm);
    engine *e = calloc(1, sizeof *e);
    shard *shards = calloc(ranks, sizeof *shards);
    if (!e || !shards) {
        free(e);
        free(shards);
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the engine");
    }
    memcpy(shards, options->shards, ranks * sizeof *shards);
    e->o = *options;
    e->shards = shards;
    e->o.limits.vocab = model_get_config(options->model)->vocab;
    status s = open_all(e);
    if (status_is_ok(&s))
        *out = e;
    else
        engine_close(e);
    return s;
}

static void tell_runs(const engine *e) {
    if (!e->kernels || !kernels_stream(e->kernels)) return;
    kernels_run_counts n = kernels_count_runs(e->kernels);
    log_debug("engine",
              "graphs: %" PRIu64 " steps and %" PRIu64 " pieces replayed, %" PRIu64
              " steps and %" PRIu64 " pieces launched call by call, %" PRIu64 " recorded",
              n.steps, n.pieces, n.plain_steps, n.plain_pieces, n.recorded);
}

void engine_close(engine *e) {
    if (!e) return;
    tell_runs(e);
    step_destroy(e->step);
    decoder_destroy(e->decoder);
    reduce_close(e->reduce);
    relay_close(e->relay);
    comm_close(e->part);
    kv_store_close(e->kv);
    weights_close(e->weights);
    kernels_destroy(e->kernels);
    free(e->shards);
    free(e);
}

step *engine_step(engine *e) {
    return e->step;
}

decoder *engine_decoder(engine *e) {
    return e->decoder;
}

kernels *engine_kernels(engine *e) {
    return e->kernels;
}

const cluster_limits *engine_limits(const engine *e) {
    return &e->o.limits;
}

const char *engine_backend(const engine *e) {
    return kernels_name(e->kernels);
}

status engine_probe_backend(const engine_options *options, char *name, int size) {
    kernels *k = NULL;
    TRY(device_open(&options->device, options->comm, &k));
    snprintf(name, (size_t)size, "%s", kernels_name(k));
    kernels_destroy(k);
    return status_ok();
}
