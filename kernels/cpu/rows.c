// rows: the operators that treat each row for itself. Short steps run on the caller, since waking
// threads costs more than a few rows do; long ones are cut into tasks of whole rows.
#include <string.h>

#include "kernels/cpu/cpu.h"

enum { TASK_FLOATS = 16 * 1024 }; // what a task touches, at least

typedef struct row_job {
    cpu *k;
    int rows, width, rows_per_task;
    const kernels_weight *table;
    int first_row;
    const int32_t *ids;
    double *sums;
    float *x, *out;
    float *other;
    const float *weight, *post;
    float epsilon;
    kernels_activation activation;
    int32_t *best;
} row_job;

static void run_rows(row_job *job, pool_task *task) {
    job->rows_per_task = TASK_FLOATS / job->width + 1;
    int tasks = (job->rows + job->rows_per_task - 1) / job->rows_per_task;
    pool_run(job->k->pool, tasks, task, job);
}

static int last_row(const row_job *job, int task) {
    int last = (task + 1) * job->rows_per_task;
    return last < job->rows ? last : job->rows;
}

void cpu_narrow(kernels *k, const void *sums, size_t count, float scale, float *out) {
    (void)k;
    for (size_t i = 0; i < count; i++) out[i] = (float)((const double *)sums)[i] * scale;
}

static void embed_task(void *context, int task, int thread) {
    (void)thread;
    const row_job *job = context;
    size_t width = (size_t)job->width;
    for (int t = task * job->rows_per_task; t < last_row(job, task); t++) {
        float *row_values = job->out + (size_t)t * width;
        double *sums = job->sums + (size_t)t * width;
        int64_t row = (int64_t)job->ids[t] - job->first_row;
        if (row < 0 || row >= job->table->rows) {
            memset(sums, 0, width * sizeof *sums);
            continue;
        }
        dtype_to_f32(job->table->type,
                     (const uint8_t *)job->table->data + (size_t)row * job->table->row_stride,
                     width, row_values);
        for (size_t i = 0; i < width; i++) sums[i] = (double)row_values[i];
    }
}

void cpu_embed(kernels *base, const kernels_weight *table, int first_row, void *sums) {
    cpu *k = (cpu *)base;
    row_job job = {.k = k,
                   .rows = base->step.tokens,
                   .width = table->cols,
                   .table = table,
                   .first_row = first_row,
                   .ids = base->step.ids,
                   .out = k->wide,
                   .sums = sums};
    run_rows(&job, embed_task);
}

static void rmsnorm_task(void *context, int task, int thread) {
    (void)thread;
    const row_job *job = context;
    for (int t = task * job->rows_per_task; t < last_row(job, task); t++) {
        size_t at = (size_t)t * (size_t)job->width;
        job->k->isa->rmsnorm(job->x + at, job->other ? job->other + at : NULL, job->weight,
                             job->epsilon, job->width, job->out + at);
    }
}

void cpu_rmsnorm(kernels *base, float *x, const void *sums, const float *weight, float epsilon,
                 int tokens, int width, kernels_act *out) {
    cpu *k = (cpu *)base;
    if (sums) cpu_narrow(base, sums, (size_t)tokens * (size_t)width, 1, k->wide);
    row_job job = {.k = k,
                   .rows = tokens,
                   .width = width,
                   .x = x,
                   .other = sums ? k->wide : NULL,
                   .weight = weight,
                   .epsilon = epsilon,
                   .out = (float *)out};
    run_rows(&job, rmsnorm_task);
}

static void add_task(void *context, int task, int thread) {
    (void)thread;
    const row_job *job = context;
    int first = task * job->rows_per_task;
    for (int t = first; t < last_row(job, task); t++) {
        size_t at = (size_t)t * (size_t)job->width;
        job->k->isa->add(job->x + at, job->other + at, job->width);
    }
}

void cpu_add(kernels *base, float *x, const void *sums, int tokens, int width) {
    cpu *k = (cpu *)base;
    cpu_narrow(base, sums, (size_t)tokens * (size_t)width, 1, k->wide);
    row_job job = {.k = k, .rows = tokens, .width = width, .x = x, .other = k->wide};
    run_rows(&job, add_task);
}

// Each row of `other` normed in its place, then what rmsnorm_task and add_task do.
static void add_normed_task(void *context, int task, int thread) {
    (void)thread;
    const row_job *job = context;
    const isa *isa = job->k->isa;
    for (int t = task * job->rows_per_task; t < last_row(job, task); t++) {
        size_t at = (size_t)t * (size_t)job->width;
        float *x = job->x + at, *other = job->other + at;
        isa->rmsnorm(other, NULL, job->post, job->epsilon, job->width, other);
        if (job->weight)
            isa->rmsnorm(x, other, job->weight, job->epsilon, job->width, job->out + at);
        else
            isa->add(x, other, job->width);
    }
}

void cpu_add_normed(kernels *base, float *x, void *sums, const float *post, const float *weight,
                    float epsilon, int tokens, int width, kernels_act *out) {
    cpu *k = (cpu *)base;
    cpu_narrow(base, sums, (size_t)tokens * (size_t)width, 1, k->wide);
    row_job job = {.k = k,
                   .rows = tokens,
                   .width = width,
                   .x = x,
                   .other = k->wide,
                   .weight = weight,
                   .post = post,
                   .epsilon = epsilon,
                   .out = (float *)out};
    run_rows(&job, add_normed_task);
}

// "Rows" of TASK_FLOATS, the last one shorter.
typedef struct cap_job {
    const isa *isa;
    float *x;
    size_t count;
    float cap;
} cap_job;

static void soft_cap_task(void *context, int task, int thread) {
    (void)thread;
    const cap_job *job = context;
    size_t at = (size_t)task * TASK_FLOATS, left = job->count - at;
    job->isa->soft_cap(job->x + at, left < TASK_FLOATS ? (int)left : TASK_FLOATS, job->cap);
}

void cpu_soft_cap(kernels *base, float *x, size_t count, float cap) {
    cpu *k = (cpu *)base;
    cap_job job = {.isa = k->isa, .x = x, .count = count, .cap = cap};
    pool_run(k->pool, (int)((count + TASK_FLOATS - 1) / TASK_FLOATS), soft_cap_task, &job);
}

static void gate_task(void *context, int task, int thread) {
    (void)thread;
    const row_job *job = context;
    const isa *isa = job->k->isa;
    for (int t = task * job->rows_per_task; t < last_row(job, task); t++) {
        size_t at = (size_t)t * (size_t)job->width;
        (job->activation == KERNELS_SILU ? isa->swiglu : isa->geglu)(job->x + at, job->other + at,
                                                                     job->width);
    }
}

void cpu_gate_up(kernels *base, kernels_activation activation, const kernels_weight *gate,
                 const kernels_weight *up, const kernels_act *x, int tokens, kernels_act *out) {
    cpu *k = (cpu *)base;
    float *gated = (float *)out;
    cpu_matmul(base, 2, (const kernels_weight *const[]){gate, up}, NULL, x, tokens,
               (float *const[]){gated, k->wide});
    row_job job = {.k = k,
                   .rows = tokens,
                   .width = gate->rows,
                   .x = gated,
                   .other = k->wide,
                   .activation = activation};
    run_rows(&job, gate_task);
}

void cpu_gather(kernels *k, const float *x, int first, int count, int width, float *out) {
    for (int i = 0; i < count; i++)
        memcpy(out + (size_t)i * (size_t)width, x + (size_t)k->step.rows[first + i] * (size_t)width,
               (size_t)width * sizeof *out);
}

void cpu_reorder(kernels *k, const kernels_act *x, const int32_t *order, int tokens, int width,
                 kernels_act *out) {
    (void)k;
    const float *from = (const float *)x;
    float *to = (float *)out;
    for (int t = 0; t < tokens; t++, from += width, to += width)
        for (int i = 0; i < width; i++) to[i] = from[order[i]];
}

static void argmax_task(void *context, int task, int thread) {
    (void)thread;
    const row_job *job = context;
    for (int t = task * job->rows_per_task; t < last_row(job, task); t++)
        job->best[t] =
            job->k->isa->argmax(job->x + (size_t)t * (size_t)job->width, job->width, job->out + t);
}

void cpu_argmax(kernels *k, const float *logits, int count, int width, int32_t *best,
                float *value) {
    row_job job = {.k = (cpu *)k,
                   .rows = count,
                   .width = width,
                   .x = (float *)logits,
                   .best = best,
                   .out = value};
    run_rows(&job, argmax_task);
}
