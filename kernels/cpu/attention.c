// attention: causal attention over the paged cache, with the softmax taken online, tile by tile
// (Milakov and Gimelshein 2018; Dao et al. 2022).
//
// A task is one sequence, one KV head (or one query head, when there are few tasks) and a run of
// the sequence's rows. All query rows of the task go through a KV tile while it lies in L1. Tiles
// begin at multiples of a fixed length from position 0, and a row takes those from the one in which
// its window begins to the one of its own position, so each row takes the same float steps whatever
// goes with it.
#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

enum { TASK_TOKENS = 16, TASKS_PER_THREAD = 4 };

typedef struct attention_job {
    cpu *k;
    int seqs, heads, units; // units: KV heads, or query heads when `by_query_head`
    bool by_query_head;
    const kernels_seq *seq;
    const kernels_head_map *map;
    kernels_attention_options options;
    const float *q;
    const kernels_kv *kv;
    float *out;
    int lanes, tile_blocks; // padded positions of a block; blocks of a tile
} attention_job;

// A batch of query rows that share a sequence and a KV head.
typedef struct query_rows {
    int count;
    const float *q[CPU_ATTENTION_ROWS];
    float *out[CPU_ATTENTION_ROWS];
    float *sums[CPU_ATTENTION_ROWS], *scores[CPU_ATTENTION_ROWS];
    int begin[CPU_ATTENTION_ROWS], end[CPU_ATTENTION_ROWS]; // positions that the row sees
    float maximum[CPU_ATTENTION_ROWS], total[CPU_ATTENTION_ROWS];
} query_rows;

static int least(int a, int b) {
    return a < b ? a : b;
}

// Scores of rows from .. to - 1 with the blocks of one tile.
static void score_tile(const attention_job *job, const kernels_seq *seq, int kv_head,
                       int first_block, int blocks, query_rows *rows, int from, int to) {
    const kernels_kv *kv = job->kv;
    size_t element = dtype_block_bytes(kv->type), stride = (size_t)job->lanes * element;
    const uint8_t *keys[ISA_KEYS_MAX];
    int per_block = job->lanes / ISA_KEY_LANES, vectors = blocks * per_block;
    for (int v = 0; v < vectors; v += ISA_KEYS_MAX) {
        int count = least(ISA_KEYS_MAX, vectors - v);
        for (int i = 0; i < count; i++) {
            int block = seq->blocks[first_block + (v + i) / per_block];
            keys[i] = (const uint8_t *)kv->k + cpu_kv_offset(kv, block, kv_head) +
                      (size_t)((v + i) % per_block) * ISA_KEY_LANES * element;
        }
        for (int r = from; r < to; r += ISA_QUERY_ROWS) {
            int n = least(ISA_QUERY_ROWS, to - r);
            float *scores[ISA_QUERY_ROWS];
            for (int i = 0; i < n; i++) scores[i] = rows->scores[r + i] + v * ISA_KEY_LANES;
            job->k->isa->qk(kv->type, keys, count, stride, kv->head_dim, rows->q + r, n,
                            job->options.scale, scores);
        }
    }
}

// A position, counted from a block's first, as a place in that block or at its ends.
static int within(int position, int block_tokens) {
    return position < 0 ? 0 : least(position, block_tokens);
}

// Hides what a row does not see of a tile: positions before `begin` and from `end` on, and the
// padding inside blocks.
static void mask(const attention_job *job, float *scores, int begin, int end, int blocks) {
    int B = job->kv->block_tokens;
    for (int b = 0; b < blocks; b++, scores += job->lanes) {
        int first = within(begin - b * B, B), last = within(end - b * B, B);
        for (int i = 0; i < first; i++) scores[i] = -INFINITY;
        for (int i = last; i < job->lanes; i++) scores[i] = -INFINITY;
    }
}

// Adds block b of the tile to rows r .. r + n - 1: jointly as far as all of them see, the rest row
// by row. What lies before a row's window has the weight 0 and changes no bit.
static void weigh_block(const attention_job *job, const uint8_t *values, query_rows *rows, int r,
                        int n, int b, int tile_start) {
    const kernels_kv *kv = job->kv;
    int B = kv->block_tokens, width = cpu_pad8(kv->head_dim), common = B;
    size_t stride = (size_t)width * dtype_block_bytes(kv->type);
    const float *p[ISA_QUERY_ROWS];
    int seen[ISA_QUERY_ROWS];
    for (int i = 0; i < n; i++) {
        seen[i] = within(rows->end[r + i] - tile_start - b * B, B);
        common = least(common, seen[i]);
        p[i] = rows->scores[r + i] + b * job->lanes;
    }
    if (common > 0) job->k->isa->pv(kv->type, values, stride, common, width, p, n, rows->sums + r);
    for (int i = 0; i < n; i++) {
        if (seen[i] == common) continue;
        const float *rest = p[i] + common;
        job->k->isa->pv(kv->type, values + (size_t)common * stride, stride, seen[i] - common, width,
                        &rest, 1, rows->sums + r + i);
    }
}

static void weigh_tile(const attention_job *job, const kernels_seq *seq, int kv_head,
                       int first_block, int blocks, query_rows *rows, int from, int to) {
    const kernels_kv *kv = job->kv;
    int tile_start = first_block * kv->block_tokens;
    for (int b = 0; b < blocks; b++) {
        const uint8_t *values =
            (const uint8_t *)kv->v + cpu_kv_offset(kv, seq->blocks[first_block + b], kv_head);
        for (int r = from; r < to; r += ISA_QUERY_ROWS)
            weigh_block(job, values, rows, r, least(ISA_QUERY_ROWS, to - r), b, tile_start);
    }
}

// Takes row r through the scores of a tile that it sees some of.
static void soften(const attention_job *job, query_rows *rows, int r, int start, int blocks) {
    int own =
        least(blocks, (rows->end[r] - start + job->kv->block_tokens - 1) / job->kv->block_tokens);
    const isa *isa = job->k->isa;
    if (job->options.soft_cap > 0)
        isa->soft_cap(rows->scores[r], own * job->lanes, job->options.soft_cap);
    mask(job, rows->scores[r], rows->begin[r] - start, rows->end[r] - start, own);
    isa->softmax(rows->scores[r], own * job->lanes, &rows->maximum[r], &rows->total[r],
                 rows->sums[r], cpu_pad8(job->kv->head_dim));
}

static void attend(const attention_job *job, const kernels_seq *seq, int kv_head,
                   query_rows *rows) {
    int B = job->kv->block_tokens, C = job->kv->head_dim, width = cpu_pad8(C);
    for (int r = 0; r < rows->count; r++) {
        rows->maximum[r] = -INFINITY;
        rows->total[r] = 0;
        memset(rows->sums[r], 0, (size_t)width * sizeof(float));
    }
    // Rows are in the order of their positions, and so are their windows. From and to: those that
    // see some of the tile.
    int end = rows->end[rows->count - 1], tile = job->tile_blocks * B, from = 0, to = 0;
    for (int start = rows->begin[0] / tile * tile; start < end; start += tile) {
        while (rows->end[from] <= start) from++;
        while (to < rows->count && rows->begin[to] < start + tile) to++;
        int blocks = least(job->tile_blocks, (end - start + B - 1) / B), first = start / B;
        score_tile(job, seq, kv_head, first, blocks, rows, from, to);
        for (int r = from; r < to; r++) soften(job, rows, r, start, blocks);
        weigh_tile(job, seq, kv_head, first, blocks, rows, from, to);
    }
    for (int r = 0; r < rows->count; r++) {
        float inverse = 1.0f / rows->total[r];
        for (int c = 0; c < C; c++) rows->out[r][c] = rows->sums[r][c] * inverse;
    }
}

static void add_row(const attention_job *job, const kernels_seq *seq, int token, int head,
                    const cpu_thread *scratch, query_rows *rows) {
    int C = job->kv->head_dim, r = rows->count++;
    size_t at = ((size_t)(seq->row + token) * (size_t)job->heads + (size_t)head) * (size_t)C;
    rows->q[r] = job->q + at;
    rows->out[r] = job->out + at;
    rows->end[r] = seq->position + token + 1;
    rows->begin[r] = job->options.window > 0 ? rows->end[r] - job->options.window : 0;
    if (rows->begin[r] < 0) rows->begin[r] = 0;
    rows->sums[r] = scratch->heads + (size_t)r * (size_t)cpu_pad8(C);
    rows->scores[r] = scratch->scores + (size_t)r * (size_t)(job->tile_blocks * job->lanes);
}

static int kv_head_of(const kernels_head_map *map, int head) {
    int g = 0;
    while (map->first_head[g + 1] <= head) g++;
    return g;
}

static void attention_task(void *context, int task, int thread) {
    const attention_job *job = context;
    int s = cpu_find(job->k->starts, job->seqs, task);
    const kernels_seq *seq = &job->seq[s];
    int index = task - job->k->starts[s], unit = index % job->units;
    int first = index / job->units * TASK_TOKENS, last = least(first + TASK_TOKENS, seq->tokens);
    int kv_head = job->by_query_head ? kv_head_of(job->map, unit) : unit;
    int head = job->by_query_head ? unit : job->map->first_head[unit];
    int end = job->by_query_head ? unit + 1 : job->map->first_head[unit + 1];
    query_rows rows = {.count = 0};
    for (int t = first; t < last; t++) {
        for (int h = head; h < end; h++) {
            add_row(job, seq, t, h, &job->k->thread[thread], &rows);
            if (rows.count < CPU_ATTENTION_ROWS) continue;
            attend(job, seq, kv_head, &rows);
            rows.count = 0;
        }
    }
    if (rows.count > 0) attend(job, seq, kv_head, &rows);
}

static int count_tasks(attention_job *job) {
    int tasks = 0;
    for (int s = 0; s < job->seqs; s++) {
        job->k->starts[s] = tasks;
        tasks += (job->seq[s].tokens + TASK_TOKENS - 1) / TASK_TOKENS * job->units;
    }
    job->k->starts[job->seqs] = tasks;
    return tasks;
}

void cpu_attention(kernels *base, const kernels_head_map *map,
                   const kernels_attention_options *options, const float *q, const kernels_kv *kv,
                   kernels_act *out) {
    cpu *k = (cpu *)base;
    attention_job job = {.k = k,
                         .seqs = base->step.seqs,
                         .heads = map->heads,
                         .units = kv->heads,
                         .seq = base->step.seq,
                         .map = map,
                         .options = *options,
                         .q = q,
                         .kv = kv,
                         .out = (float *)out};
    job.lanes = cpu_pad8(kv->block_tokens);
    job.tile_blocks = (CPU_ATTENTION_TILE + kv->block_tokens - 1) / kv->block_tokens;
    int tasks = count_tasks(&job), threads = pool_threads(k->pool);
    if (threads > 1 && tasks < threads * TASKS_PER_THREAD) {
        job.by_query_head = true;
        job.units = map->heads;
        tasks = count_tasks(&job);
    }
    pool_run(k->pool, tasks, attention_task, &job);
}
