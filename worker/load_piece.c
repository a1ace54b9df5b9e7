#include "worker/load_piece.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/stage.h"

const char *load_item_name(const load_item *item, char *text, size_t size) {
    if (item->layer < 0)
        snprintf(text, size, "the %s", item->what);
    else
        snprintf(text, size, "the %s of layer %d", item->what, item->layer);
    return text;
}

static int file_of(const file_map *files, int file_count, const kernels_weight *w) {
    uintptr_t begin = (uintptr_t)w->data;
    uintptr_t end =
        begin + (size_t)(w->rows - 1) * w->row_stride + dtype_row_bytes(w->type, (size_t)w->cols);
    for (int i = 0; i < file_count; i++) {
        uintptr_t map = (uintptr_t)files[i].bytes;
        if (begin >= map && end <= map + files[i].size) return i;
    }
    return -1;
}

// Rows of one piece: all, or as many groups as fit. 0: not one group fits.
static int rows_of_piece(const kernels_weight *w, size_t row, size_t bytes) {
    size_t fit = bytes / row;
    if (fit >= (size_t)w->rows) return w->rows;
    return (int)(fit / KERNELS_STAGE_ROWS * KERNELS_STAGE_ROWS);
}

static int compare(const void *a, const void *b) {
    const load_piece *x = a, *y = b;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->item - y->item;
}

typedef struct cut {
    const file_map *files;
    int file_count;
    size_t bytes;
    load_piece *pieces; // NULL in the first walk, which only counts
    int count;
} cut;

static status cut_item(cut *c, const load_item *item, int index) {
    const kernels_weight *w = &item->view;
    if (w->rows == 0 || !w->data) return status_ok();
    char name[80];
    load_item_name(item, name, sizeof name);
    size_t row = dtype_row_bytes(w->type, (size_t)w->cols);
    int file = file_of(c->files, c->file_count, w), step = rows_of_piece(w, row, c->bytes);
    if (file < 0)
        return status_error(STATUS_INTERNAL, "%s lies outside of the model's files", name);
    if (step == 0)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "%s has rows of %zu bytes; %d of them exceed a buffer of %zu", name,
                            row, KERNELS_STAGE_ROWS, c->bytes);
    int64_t begin = (const char *)w->data - (const char *)c->files[file].bytes;
    for (int r = 0; r < w->rows; r += step, c->count++) {
        if (!c->pieces) continue;
        c->pieces[c->count] = (load_piece){
            .file = file,
            .offset = begin + (int64_t)((size_t)r * w->row_stride),
            .row_bytes = row,
            .row_stride = w->row_stride,
            .item = index,
            .first_row = r,
            .rows = w->rows - r < step ? w->rows - r : step,
        };
    }
    return status_ok();
}

status load_pieces_cut(const file_map *files, int file_count, const load_item *items,
                       int item_count, size_t bytes, load_piece **out, int *count) {
    cut c = {.files = files, .file_count = file_count, .bytes = bytes};
    *out = NULL;
    *count = 0;
    for (int i = 0; i < item_count; i++) TRY(cut_item(&c, &items[i], i));
    c.pieces = calloc((size_t)c.count + 1, sizeof *c.pieces);
    if (!c.pieces)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a list of %d pieces",
                            c.count);
    c.count = 0;
    for (int i = 0; i < item_count; i++) {
        status s = cut_item(&c, &items[i], i);
        assert(status_is_ok(&s)); // as in the first walk
    }
    qsort(c.pieces, (size_t)c.count, sizeof *c.pieces, compare);
    *out = c.pieces;
    *count = c.count;
    return status_ok();
}
