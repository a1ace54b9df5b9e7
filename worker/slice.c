#include "worker/slice.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"

typedef struct job {
    const slice *slice;
    tensor_read *read;
    void *context;
    void *out;
    status result;
} job;

static status no_memory(void) {
    return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a slice of weights");
}

// The part with columns from block to block.
static tensor_part whole_blocks(const slice *s) {
    int64_t unit = tensor_column_unit(&s->whole), end = s->part.first_col + s->part.cols;
    tensor_part p = s->part;
    p.first_col -= p.first_col % unit;
    end = (end + unit - 1) / unit * unit;
    p.cols = (end < s->whole.cols ? end : s->whole.cols) - p.first_col;
    return p;
}

// The stored rows of a part that was cut at blocks.
static status stored_rows(const tensor *t, tensor_part p, const job *j, void **out) {
    if (t->packing != TENSOR_ROWS) return tensor_part_rows(t, p, j->read, j->context, out);
    size_t stride = dtype_row_bytes(t->type, (size_t)t->cols);
    size_t bytes = dtype_row_bytes(t->type, (size_t)p.cols);
    const char *from = (const char *)t->data + (size_t)p.first_row * stride +
                       dtype_row_bytes(t->type, (size_t)p.first_col);
    char *rows = malloc((size_t)p.rows * bytes + 1);
    status s = rows ? status_ok() : no_memory();
    for (int64_t r = 0; status_is_ok(&s) && r < p.rows; r++)
        s = j->read(j->context, from + (size_t)r * stride, bytes, rows + (size_t)r * bytes);
    *out = rows;
    if (!status_is_ok(&s)) free(rows);
    return s;
}

// Unpacks rows of `p`, and keeps the slice's columns.
static status widen(const slice *s, tensor_part p, const char *rows, const float *scales,
                    int scale_rows, float **out) {
    dtype type = s->whole.type;
    size_t bytes = dtype_row_bytes(type, (size_t)p.cols),
           each = dtype_row_scales(type, (size_t)p.cols);
    size_t width = (size_t)s->part.cols, skip = (size_t)(s->part.first_col - p.first_col);
    float *row = malloc((size_t)p.cols * sizeof *row);
    *out = malloc((size_t)p.rows * width * sizeof **out);
    if (!row || !*out) {
        free(row);
        free(*out);
        return no_memory();
    }
    for (size_t r = 0; r < (size_t)p.rows; r++) {
        dtype_to_f32(type, rows + r * bytes, (size_t)p.cols, row);
        const float *scale = scales ? scales + r / (size_t)scale_rows * each : NULL;
        for (size_t c = 0; scale && c < (size_t)p.cols; c++)
            row[c] *= scale[each > 1 ? c / DTYPE_SCALE_COLS : 0];
        memcpy(*out + r * width, row + skip, width * sizeof *row);
    }
    free(row);
    return status_ok();
}

static status make_floats(const job *j, void **out) {
    const slice *s = j->slice;
    tensor_part p = whole_blocks(s);
    float *scales = NULL, *floats = NULL;
    void *rows = NULL;
    int scale_rows = 1;
    bool scaled = dtype_row_scales(s->whole.type, 1) > 0;
    status result = stored_rows(&s->whole, p, j, &rows);
    if (!status_is_ok(&result)) return result;
    if (scaled)
        result = tensor_part_scales(&s->whole, p, j->read, j->context, &scales, &scale_rows);
    if (status_is_ok(&result)) result = widen(s, p, rows, scales, scale_rows, &floats);
    free(scales);
    free(rows);
    *out = floats;
    return result;
}

static void *run(void *context) {
    job *j = context;
    const slice *s = j->slice;
    j->result = s->type == s->whole.type
                    ? tensor_part_rows(&s->whole, s->part, j->read, j->context, &j->out)
                    : make_floats(j, &j->out);
    return NULL;
}

status slices_make(const slice *slices, int count, tensor_read *read, void *context, void **outs,
                   int *failed) {
    job jobs[SLICE_THREADS];
    pthread_t threads[SLICE_THREADS];
    bool started[SLICE_THREADS];
    assert(count >= 0 && count <= SLICE_THREADS);
    for (int i = 0; i < count; i++) {
        jobs[i] = (job){.slice = &slices[i], .read = read, .context = context};
        started[i] = pthread_create(&threads[i], NULL, run, &jobs[i]) == 0;
        if (!started[i]) run(&jobs[i]);
    }
    status first = status_ok();
    for (int i = 0; i < count; i++) {
        if (started[i]) pthread_join(threads[i], NULL);
        outs[i] = jobs[i].out;
        if (!status_is_ok(&first)) continue;
        first = jobs[i].result;
        *failed = i;
    }
    for (int i = 0; i < count && !status_is_ok(&first); i++)
        if (status_is_ok(&jobs[i].result)) free(outs[i]);
    return first;
}
