// stage: the door of stage.h. It checks calls against the contract and goes through the backend's
// table. A backend on plain memory has no entries there: its copies are made here, at once.
#include "kernels/stage.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"

enum { ALIGNMENT = 4096, SCALES_ALIGNMENT = 16 };

static status open_plain(kernels *k, int slots, size_t bytes, kernels_stage **out) {
    kernels_stage *s = calloc(1, sizeof *s);
    char *memory = aligned_alloc(ALIGNMENT, (size_t)slots * bytes);
    if (!s || !memory) {
        free(s);
        free(memory);
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %d buffers of %zu bytes",
                            slots, bytes);
    }
    *s = (kernels_stage){.kernels = k, .slots = slots, .bytes = bytes, .memory = memory};
    *out = s;
    return status_ok();
}

status kernels_stage_open(kernels *k, int slots, size_t bytes, kernels_stage **out) {
    assert(slots >= 1 && slots <= KERNELS_STAGE_SLOTS_MAX);
    assert(bytes >= ALIGNMENT && bytes % ALIGNMENT == 0);
    assert(k->ops->stage_open || !k->ops->sync); // copies made at once would overtake queued work
    *out = NULL;
    return k->ops->stage_open ? k->ops->stage_open(k, slots, bytes, out)
                              : open_plain(k, slots, bytes, out);
}

void kernels_stage_close(kernels_stage *s) {
    if (!s) return;
    if (s->kernels->ops->stage_open) {
        s->kernels->ops->stage_close(s);
        return;
    }
    free(s->memory);
    free(s);
}

void *kernels_stage_memory(kernels_stage *s, int slot) {
    assert(slot >= 0 && slot < s->slots);
    return s->memory + (size_t)slot * s->bytes;
}

size_t kernels_stage_room(const kernels_weight *shape, int count) {
    size_t rows = (size_t)count * dtype_row_bytes(shape->type, (size_t)shape->cols);
    size_t scales = (size_t)count * dtype_row_scales(shape->type, (size_t)shape->cols);
    return shape->scales ? rows + SCALES_ALIGNMENT + scales * sizeof *shape->scales : rows;
}

// On plain memory a matrix's rows lie one after another, each made from its own.
static status place_plain(kernels *k, const char *rows, const kernels_weight *shape, int first_row,
                          int count, char *device) {
    size_t row = dtype_row_bytes(shape->type, (size_t)shape->cols);
    size_t placed = kernels_weight_bytes(k, shape) / (size_t)shape->rows;
    if (placed == 0) {
        memcpy(device + (size_t)first_row * row, rows, (size_t)count * row);
        return status_ok();
    }
    kernels_weight ignored, part = *shape;
    part.row_stride = row;
    for (int done = 0; done < count; done += part.rows) {
        int first = first_row + done, left = count - done;
        part.data = rows + (size_t)done * row;
        part.rows = left;
        if (shape->scales) part.scales = kernels_weight_scales(shape, first);
        int shared = shape->scale_rows > 1 ? first % shape->scale_rows : 0;
        if (shared > 0 && left > shape->scale_rows - shared) part.rows = shape->scale_rows - shared;
        TRY(kernels_weight_place(k, &part, device + (size_t)first * placed, &ignored));
    }
    return status_ok();
}

status kernels_stage_rows(kernels_stage *s, int slot, size_t offset, const kernels_weight *shape,
                          int first_row, int count, void *device) {
    assert(first_row >= 0 && count >= 1 && first_row + count <= shape->rows);
    assert(first_row % KERNELS_STAGE_ROWS == 0);
    assert(count % KERNELS_STAGE_ROWS == 0 || first_row + count == shape->rows);
    assert(offset <= s->bytes && kernels_stage_room(shape, count) <= s->bytes - offset);
    if (s->kernels->ops->stage_rows)
        return s->kernels->ops->stage_rows(s, slot, offset, shape, first_row, count, device);
    return place_plain(s->kernels, (char *)kernels_stage_memory(s, slot) + offset, shape, first_row,
                       count, device);
}

status kernels_stage_copy(kernels_stage *s, int slot, size_t offset, void *device, size_t bytes) {
    assert(offset <= s->bytes && bytes <= s->bytes - offset);
    if (s->kernels->ops->stage_copy)
        return s->kernels->ops->stage_copy(s, slot, offset, device, bytes);
    memcpy(device, (char *)kernels_stage_memory(s, slot) + offset, bytes);
    return status_ok();
}

status kernels_stage_poll(kernels_stage *s, int slot, bool *done) {
    assert(slot >= 0 && slot < s->slots);
    *done = true;
    return s->kernels->ops->stage_poll ? s->kernels->ops->stage_poll(s, slot, done) : status_ok();
}

status kernels_stage_sync(kernels_stage *s, int64_t deadline_ns) {
    return s->kernels->ops->stage_sync ? s->kernels->ops->stage_sync(s, deadline_ns) : status_ok();
}

double kernels_stage_copy_seconds(const kernels_stage *s) {
    return s->copy_seconds;
}

// Placing none of its rows tells how the backend describes it.
status kernels_stage_weight(kernels *k, const kernels_weight *shape, void *device,
                            kernels_weight *out) {
    kernels_weight none = *shape;
    none.rows = 0;
    TRY(kernels_weight_place(k, &none, device, out));
    out->rows = shape->rows;
    return status_ok();
}
