// rope: rotates queries and keys and puts keys and values into the cache. cos and sin are made once
// per row and shared by all heads.
//
// The angle is position * inv_freq in float, as transformers and llama.cpp have it: a model was
// trained with that rounding. Its sine and cosine are then taken in double, so what is left of
// error is the last place.
#include <assert.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

enum { TASK_ROWS = 8 };

typedef struct rope_job {
    cpu *k;
    const kernels_rope *rope;
    const kernels_seq *seq;
    int seqs, rows, heads;
    float *q, *key;
    const float *value;
    kernels_kv *kv;
} rope_job;

int cpu_find(const int *starts, int count, int i) {
    int low = 0, high = count; // starts[low] <= i < starts[high]
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (starts[middle] <= i)
            low = middle;
        else
            high = middle;
    }
    return low;
}

// sin and cos of |angle| < 2^31 by reduction to [-pi/4, pi/4] and Taylor series there (error <
// 1e-12); pi/2 in two parts, so that the reduction loses nothing at the largest positions.
static void sine_cosine(double angle, float *sine, float *cosine) {
    const double shift = 0x1.8p52; // adding it rounds to a whole number
    double turns = angle * 0.63661977236758134308 + shift - shift;
    double r = angle - turns * 0x1.921fb54400000p+0 - turns * 0x1.0b4611a626331p-34, z = r * r;
    double s =
        r + r * z *
                (-1.0 / 6 +
                 z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 + z * (-1.0 / 39916800)))));
    double c =
        1 + z * (-0.5 + z * (1.0 / 24 +
                             z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 +
                                                                       z * (1.0 / 479001600))))));
    int quadrant = (int)((int64_t)turns & 3);
    double swapped_s = quadrant & 1 ? c : s, swapped_c = quadrant & 1 ? s : c;
    *sine = (float)(quadrant & 2 ? -swapped_s : swapped_s);
    *cosine = (float)((quadrant + 1) & 2 ? -swapped_c : swapped_c);
}

// cos to table[0 .. pairs), sin to table[pairs .. 2 pairs).
static void fill_angles(const kernels_rope *rope, int position, float *table) {
    int pairs = rope->rope_dims / 2;
    for (int i = 0; i < pairs; i++) {
        float angle = (float)position * rope->inv_freq[i], s, c;
        sine_cosine((double)angle, &s, &c);
        table[i] = c * rope->scale;
        table[pairs + i] = s * rope->scale;
    }
}

static void rotate_half(float *restrict x, int pairs, const float *restrict table) {
    for (int i = 0; i < pairs; i++) {
        float a = x[i], b = x[pairs + i], c = table[i], s = table[pairs + i];
        x[i] = a * c - b * s;
        x[pairs + i] = b * c + a * s;
    }
}

static void rotate_interleaved(float *restrict x, int pairs, const float *restrict table) {
    for (int i = 0; i < pairs; i++) {
        float a = x[2 * i], b = x[2 * i + 1], c = table[i], s = table[pairs + i];
        x[2 * i] = a * c - b * s;
        x[2 * i + 1] = b * c + a * s;
    }
}

static void rotate(const kernels_rope *rope, float *x, int heads, int head_dim,
                   const float *table) {
    for (int h = 0; h < heads; h++) {
        float *head = x + (size_t)h * (size_t)head_dim;
        if (rope->style == KERNELS_ROPE_HALF)
            rotate_half(head, rope->rope_dims / 2, table);
        else
            rotate_interleaved(head, rope->rope_dims / 2, table);
    }
}

static void write_row(const rope_job *job, int block, int offset, const float *key,
                      const float *value) {
    const kernels_kv *kv = job->kv;
    const isa *isa = job->k->isa;
    size_t element = dtype_block_bytes(kv->type), lanes = (size_t)cpu_pad8(kv->block_tokens);
    size_t value_row = (size_t)cpu_pad8(kv->head_dim) * element;
    for (int g = 0; g < kv->heads; g++) {
        size_t at = cpu_kv_offset(kv, block, g), from = (size_t)g * (size_t)kv->head_dim;
        isa->narrow(kv->type, key + from, kv->head_dim,
                    (uint8_t *)kv->k + at + (size_t)offset * element, lanes * element);
        isa->narrow(kv->type, value + from, kv->head_dim,
                    (uint8_t *)kv->v + at + (size_t)offset * value_row, element);
    }
}

static void rope_row(const rope_job *job, int index) {
    int s = cpu_find(job->k->starts, job->seqs, index), C = job->kv->head_dim;
    int ahead = index - job->k->starts[s], position = job->seq[s].position + ahead;
    size_t row = (size_t)(job->seq[s].row + ahead), key_width = (size_t)(job->kv->heads * C);
    float *table = job->k->angles + (size_t)index * (size_t)job->k->base.limits.head_dim;
    float *key = job->key + row * key_width;
    fill_angles(job->rope, position, table);
    rotate(job->rope, job->q + row * (size_t)(job->heads * C), job->heads, C, table);
    rotate(job->rope, key, job->kv->heads, C, table);
    int B = job->kv->block_tokens;
    write_row(job, job->seq[s].blocks[position / B], position % B, key,
              job->value + row * key_width);
}

static void rope_task(void *context, int task, int thread) {
    (void)thread;
    const rope_job *job = context;
    int last = (task + 1) * TASK_ROWS < job->rows ? (task + 1) * TASK_ROWS : job->rows;
    for (int i = task * TASK_ROWS; i < last; i++) rope_row(job, i);
}

void cpu_rope_kv_write(kernels *base, const kernels_rope *rope, int heads, float *q, float *key,
                       const float *value, kernels_kv *kv) {
    cpu *k = (cpu *)base;
    rope_job job = {.k = k,
                    .rope = rope,
                    .seq = base->step.seq,
                    .seqs = base->step.seqs,
                    .heads = heads,
                    .q = q,
                    .key = key,
                    .value = value,
                    .kv = kv};
    for (int s = 0; s < job.seqs; s++) {
        k->starts[s] = job.rows;
        job.rows += job.seq[s].tokens;
    }
    k->starts[job.seqs] = job.rows;
    pool_run(k->pool, (job.rows + TASK_ROWS - 1) / TASK_ROWS, rope_task, &job);
}
