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
    float *x, *out;
    const float *other, *weight;
    float epsilon;
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

static void embed_task(void *context, int task, int thread) {
    (void)thread;
    const row_job *job = context;
    size_t width = (size_t)job->width;
    for (int t = task * job->rows_per_task; t < last_row(job, task); t++) {
        float *out = job->out + (size_t)t * width;
        int64_t row = (int64_t)job->ids[t] - job->first_row;
        if (row < 0 || row >= job->table->rows)
            memset(out, 0, width * sizeof *out);
        else
            dtype_to_f32(job->table->type,
                         (const uint8_t *)job->table->data + (size_t)row * job->table->row_stride,
                         width, out);
    }
}

void cpu_embed(kernels *k, const kernels_weight *table, int first_row, const int32_t *ids,
               int tokens, float *out) {
    row_job job = {.k = (cpu *)k,
                   .rows = tokens,
                   .width = table->cols,
                   .table = table,
                   .first_row = first_row,
                   .ids = ids,
                   .out = out};
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

void cpu_rmsnorm(kernels *k, float *x, const float *delta, const float *weight, float epsilon,
                 int tokens, int width, float *out) {
    row_job job = {.k = (cpu *)k,
                   .rows = tokens,
                   .width = width,
                   .x = x,
                   .other = delta,
                   .weight = weight,
                   .epsilon = epsilon,
                   .out = out};
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

void cpu_add(kernels *k, float *x, const float *delta, int tokens, int width) {
    row_job job = {.k = (cpu *)k, .rows = tokens, .width = width, .x = x, .other = delta};
    run_rows(&job, add_task);
}

static void swiglu_task(void *context, int task, int thread) {
    (void)thread;
    const row_job *job = context;
    for (int t = task * job->rows_per_task; t < last_row(job, task); t++) {
        size_t at = (size_t)t * (size_t)job->width;
        job->k->isa->swiglu(job->x + at, job->other + at, job->width);
    }
}

void cpu_swiglu(kernels *k, float *gate, const float *up, int tokens, int width) {
    row_job job = {.k = (cpu *)k, .rows = tokens, .width = width, .x = gate, .other = up};
    run_rows(&job, swiglu_task);
}

void cpu_gather_rows(kernels *k, const float *x, const int32_t *rows, int count, int width,
                     float *out) {
    (void)k;
    for (int i = 0; i < count; i++)
        memcpy(out + (size_t)i * (size_t)width, x + (size_t)rows[i] * (size_t)width,
               (size_t)width * sizeof *out);
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
