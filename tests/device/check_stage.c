// check_stage: weights that come piece by piece, in any order, from slots that are filled again as
// soon as they may be, lie as those that were placed whole: the same bytes, for every type.
#include <string.h>

#include "common/base/clock.h"
#include "kernels/stage.h"
#include "tests/device/check.h"

enum { SLOTS = 3, SLOT_BYTES = 96 << 10, PIECES_MAX = 64 };

typedef struct shape {
    dtype type;
    int rows, cols;
} shape;

static const shape shapes[] = {
    {DTYPE_BF16, 100, 96},   {DTYPE_F32, 130, 64},     {DTYPE_F16, 33, 160},
    {DTYPE_Q8_0, 150, 96},   {DTYPE_Q4_0, 48, 64},     {DTYPE_Q4_1, 47, 128},
    {DTYPE_Q5_0, 16, 32},    {DTYPE_Q4_K, 70, 256},    {DTYPE_Q6_K, 35, 512},
    {DTYPE_F8_E4M3, 99, 80}, {DTYPE_F8_E4M3, 257, 64}, {DTYPE_F8_BLOCK, 99, 200},
    {DTYPE_I4, 33, 256},     {DTYPE_I4_32, 50, 96},
};

// Bytes below 60 make finite numbers of every type.
static uint8_t *random_bytes(check *c, size_t size) {
    uint8_t *bytes = check_host(c, size);
    for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)rng_below(&c->random, 60);
    return bytes;
}

typedef struct piece {
    int first, count;
} piece;

// Cuts the rows at random multiples of the stage's groups and shuffles the pieces.
static int cut(check *c, int rows, piece *out) {
    int count = 0;
    for (int first = 0; first < rows; count++) {
        int step = KERNELS_STAGE_ROWS * (1 + (int)rng_below(&c->random, 2));
        out[count] = (piece){first, rows - first < step ? rows - first : step};
        first += out[count].count;
    }
    for (int i = count - 1; i > 0; i--) {
        int j = (int)rng_below(&c->random, (uint64_t)i + 1);
        piece p = out[i];
        out[i] = out[j];
        out[j] = p;
    }
    return count;
}

// A slot that may be filled; what it held before is wiped first, so that a copy that was still
// under way shows.
static uint8_t *free_slot(check *c, kernels_stage *s, int slot) {
    int64_t deadline_ns = clock_now_ns() + 60 * CLOCK_SECOND;
    bool done = false;
    while (!done && clock_now_ns() < deadline_ns) {
        status st = kernels_stage_poll(s, slot, &done);
        if (!check_that(c, status_is_ok(&st), "%s", st.message)) break;
    }
    check_that(c, done, "slot %d is not free", slot);
    memset(kernels_stage_memory(s, slot), 0x77, SLOT_BYTES);
    return kernels_stage_memory(s, slot);
}

static void bring(check *c, kernels_stage *s, const kernels_weight *w, void *device) {
    piece pieces[PIECES_MAX];
    size_t row = dtype_row_bytes(w->type, (size_t)w->cols);
    int count = cut(c, w->rows, pieces);
    for (int i = 0; i < count; i++) {
        const piece *p = &pieces[i];
        int slot = i % SLOTS;
        uint8_t *memory = free_slot(c, s, slot);
        size_t room = SLOT_BYTES - kernels_stage_room(w, p->count);
        size_t offset = rng_below(&c->random, room < 4096 ? room : 4096);
        memcpy(memory + offset, (const uint8_t *)w->data + (size_t)p->first * row,
               (size_t)p->count * row);
        status st = kernels_stage_rows(s, slot, offset, w, p->first, p->count, device);
        check_that(c, status_is_ok(&st), "%s", st.message);
    }
    status st = kernels_stage_sync(s, clock_now_ns() + 60 * CLOCK_SECOND);
    check_that(c, status_is_ok(&st), "%s", st.message);
    for (int i = 0; i < SLOTS; i++) free_slot(c, s, i);
}

static void check_shape(check *c, kernels_stage *s, const shape *of) {
    check_case(c, "stage %s %d x %d", dtype_name(of->type), of->rows, of->cols);
    size_t row = dtype_row_bytes(of->type, (size_t)of->cols);
    size_t scales = (size_t)of->rows * dtype_row_scales(of->type, (size_t)of->cols);
    kernels_weight whole = {0}, staged = {0},
                   w = {.data = random_bytes(c, (size_t)of->rows * row),
                        .row_stride = row,
                        .rows = of->rows,
                        .cols = of->cols,
                        .type = of->type,
                        .scales = scales ? check_random(c, scales, 1) : NULL,
                        .scale_rows = of->type == DTYPE_F8_BLOCK ? 24 : 0};
    size_t bytes = kernels_weight_bytes(c->device, &w);
    void *a = check_poisoned(c, c->device, bytes), *b = check_poisoned(c, c->device, bytes);
    status st = kernels_weight_place(c->device, &w, a, &whole);
    check_that(c, status_is_ok(&st), "%s", st.message);
    bring(c, s, &w, b);
    st = kernels_stage_weight(c->device, &w, b, &staged);
    check_that(c, status_is_ok(&st), "%s", st.message);
    check_same(c, "device memory", check_get(c, c->device, b, bytes),
               check_get(c, c->device, a, bytes), bytes);
    check_that(c,
               staged.data == b && staged.rows == whole.rows && staged.cols == whole.cols &&
                   staged.type == whole.type && staged.row_stride == whole.row_stride,
               "a staged matrix is described otherwise than a placed one");
    check_release(c);
}

// Bytes as they are, as a warm shard's.
static void check_copies(check *c, kernels_stage *s) {
    check_case(c, "stage copies");
    enum { SIZE = 200001, PART = 30011 };
    uint8_t *bytes = random_bytes(c, SIZE);
    char *device = check_poisoned(c, c->device, SIZE);
    int turn = 0;
    for (size_t at = 0; at < SIZE; at += PART, turn++) {
        size_t n = SIZE - at < PART ? SIZE - at : PART;
        uint8_t *memory = free_slot(c, s, turn % SLOTS);
        memcpy(memory + 100, bytes + at, n);
        status st = kernels_stage_copy(s, turn % SLOTS, 100, device + at, n);
        check_that(c, status_is_ok(&st), "%s", st.message);
    }
    status st = kernels_stage_sync(s, clock_now_ns() + 60 * CLOCK_SECOND);
    check_that(c, status_is_ok(&st), "%s", st.message);
    check_same(c, "bytes", check_get(c, c->device, device, SIZE), bytes, SIZE);
    check_release(c);
}

int check_stage(check *c) {
    check_open(
        c, (kernels_limits){.tokens = 16, .cols = 512, .context = 64, .heads = 1, .head_dim = 64},
        (kernels_cuda_options){0});
    kernels_stage *s = NULL;
    status st = kernels_stage_open(c->device, SLOTS, SLOT_BYTES, &s);
    if (!check_that(c, status_is_ok(&st), "%s", st.message)) return c->failed;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) check_shape(c, s, &shapes[i]);
    check_copies(c, s);
    kernels_stage_close(s);
    return c->failed;
}
