#include "worker/slice.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/log.h"
#include "common/base/ring.h"
#include "kernels/kernels.h"

enum { JOIN_S = 5 };

// A slice on its way to the caller.
typedef struct made {
    int index;
    void *rows;
    status result;
} made;

struct slice_maker {
    slice *slices; // (count)
    int count;
    tensor_read *read;
    void *context;
    ring *ready; // of made
    pthread_t threads[SLICE_THREADS];
    int thread_count;
    atomic_int next;
};

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
static status stored_rows(const tensor *t, tensor_part p, const slice_maker *m, void **out) {
    if (t->packing != TENSOR_ROWS) return tensor_part_rows(t, p, m->read, m->context, out);
    size_t stride = dtype_row_bytes(t->type, (size_t)t->cols);
    size_t bytes = dtype_row_bytes(t->type, (size_t)p.cols);
    const char *from = (const char *)t->data + (size_t)p.first_row * stride +
                       dtype_row_bytes(t->type, (size_t)p.first_col);
    char *rows = malloc((size_t)p.rows * bytes + 1);
    status s = rows ? status_ok() : no_memory();
    for (int64_t r = 0; status_is_ok(&s) && r < p.rows; r++)
        s = m->read(m->context, from + (size_t)r * stride, bytes, rows + (size_t)r * bytes);
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

static status make_floats(const slice_maker *m, const slice *s, void **out) {
    tensor_part p = whole_blocks(s);
    float *scales = NULL, *floats = NULL;
    void *rows = NULL;
    int scale_rows = 1;
    bool scaled = dtype_row_scales(s->whole.type, 1) > 0;
    status result = stored_rows(&s->whole, p, m, &rows);
    if (!status_is_ok(&result)) return result;
    if (scaled)
        result = tensor_part_scales(&s->whole, p, m->read, m->context, &scales, &scale_rows);
    if (status_is_ok(&result)) result = widen(s, p, rows, scales, scale_rows, &floats);
    free(scales);
    free(rows);
    *out = floats;
    return result;
}

static void *run(void *context) {
    slice_maker *m = context;
    for (int i; (i = atomic_fetch_add(&m->next, 1)) < m->count;) {
        const slice *s = &m->slices[i];
        made one = {.index = i};
        one.result = s->type == s->whole.type
                         ? tensor_part_rows(&s->whole, s->part, m->read, m->context, &one.rows)
                         : make_floats(m, s, &one.rows);
        bool failed = !status_is_ok(&one.result);
        if (failed) one.rows = NULL;
        if (!ring_push(m->ready, &one, INT64_MAX)) { // closed
            free(one.rows);
            break;
        }
        if (failed) break;
    }
    return NULL;
}

status slice_maker_open(const slice *slices, int count, tensor_read *read, void *context,
                        slice_maker **out) {
    *out = NULL;
    slice_maker *m = calloc(1, sizeof *m);
    if (!m) return no_memory();
    *m = (slice_maker){.count = count, .read = read, .context = context};
    m->slices = malloc(((size_t)count + 1) * sizeof *slices);
    m->ready = m->slices ? ring_create(sizeof(made), SLICE_AHEAD) : NULL;
    if (m->slices) memcpy(m->slices, slices, (size_t)count * sizeof *slices);
    int wanted = !m->ready ? 0 : count < SLICE_THREADS ? count : SLICE_THREADS;
    for (; m->thread_count < wanted; m->thread_count++)
        if (pthread_create(&m->threads[m->thread_count], NULL, run, m) != 0) break;
    if (!m->ready || (count > 0 && m->thread_count == 0)) {
        slice_maker_close(m);
        return no_memory();
    }
    *out = m;
    return status_ok();
}

void slice_maker_close(slice_maker *m) {
    if (!m) return;
    atomic_store(&m->next, m->count);
    if (m->ready) ring_close(m->ready);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += JOIN_S;
    for (int i = 0; i < m->thread_count; i++)
        if (pthread_timedjoin_np(m->threads[i], NULL, &until) != 0) {
            // What it works on must stay; this rank is about to end.
            log_warn("weights", "a thread hangs in a read; its buffers are left to it");
            return;
        }
    made left;
    while (m->ready && ring_pop(m->ready, &left, 0)) free(left.rows);
    ring_destroy(m->ready);
    free(m->slices);
    free(m);
}

status slice_maker_next(slice_maker *m, int64_t deadline_ns, int *index, void **rows) {
    made one;
    *index = -1;
    *rows = NULL;
    if (!ring_pop(m->ready, &one, deadline_ns))
        return status_error(STATUS_DEADLINE_EXCEEDED,
                            "no slice of packed weights was made in time: look at the disk or the "
                            "network that the model is on");
    *index = one.index;
    *rows = one.rows;
    return one.result;
}
