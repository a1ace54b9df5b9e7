// weight_pack: the arithmetic of the device's layouts.
#include "kernels/cuda/weight_pack.h"

#include <assert.h>

enum { PLANE_ALIGN = 256 };

// Of the packed types: bytes of a tile's values and of one record, and the tiles that share a
// record.
typedef struct layout {
    int tile_bytes, record_bytes, record_tiles;
} layout;

static layout layout_of(dtype type) {
    switch (type) {
    case DTYPE_BF16:
        return (layout){.tile_bytes = 2048};
    case DTYPE_Q8_0:
        return (layout){1024, 4, 1};
    case DTYPE_Q5_0:
        return (layout){640, 4, 1};
    case DTYPE_Q6_K:
        return (layout){768, 8, 1};
    case DTYPE_Q4_0:
        return (layout){512, 4, 1};
    case DTYPE_Q4_1:
    case DTYPE_I4_32:
    case DTYPE_Q4_K:
        return (layout){512, 8, 1};
    case DTYPE_I4:
        return (layout){512, 4, 2};
    case DTYPE_F8_BLOCK:
        return (layout){1024, 4, 2};
    case DTYPE_F8_E4M3:
    case DTYPE_I8:
        return (layout){.tile_bytes = 1024}; // and a float for each row
    default:
        assert(!"not a packed type");
        return (layout){0};
    }
}

static bool scaled_by_row(dtype type) {
    return type == DTYPE_F8_E4M3 || type == DTYPE_I8;
}

static bool plain(dtype type) {
    return type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16;
}

static size_t aligned(size_t bytes) {
    return (bytes + PLANE_ALIGN - 1) / PLANE_ALIGN * PLANE_ALIGN;
}

static size_t row_tiles(int rows) {
    return (size_t)(rows + WEIGHT_PACK_ROWS - 1) / WEIGHT_PACK_ROWS;
}

static size_t col_tiles(int cols) {
    return (size_t)(cols + WEIGHT_PACK_COLS - 1) / WEIGHT_PACK_COLS;
}

// BF16: a tile may be read from any column on that is a multiple of 8, so past the last row's end.
static size_t values_bytes(dtype type, int rows, int cols) {
    size_t tiles = row_tiles(rows) * col_tiles(cols) * (size_t)layout_of(type).tile_bytes;
    return aligned(tiles + (type == DTYPE_BF16 ? 2 * WEIGHT_PACK_COLS : 0));
}

dtype weight_pack_type(dtype from) {
    return plain(from) ? DTYPE_BF16 : from;
}

bool weight_pack_can(dtype from, dtype as) {
    return as == weight_pack_type(from) || as == DTYPE_BF16 || (scaled_by_row(as) && plain(from));
}

size_t weight_pack_bytes(dtype type, int rows, int cols) {
    layout l = layout_of(type);
    size_t records = 0;
    if (l.record_bytes > 0)
        records = (col_tiles(cols) + (size_t)l.record_tiles - 1) / (size_t)l.record_tiles *
                  (size_t)l.record_bytes;
    if (scaled_by_row(type)) records = sizeof(float);
    return values_bytes(type, rows, cols) + aligned(row_tiles(rows) * WEIGHT_PACK_ROWS * records);
}

weight_pack weight_pack_at(dtype type, int rows, int cols, const void *memory) {
    const uint8_t *bytes = memory;
    return (weight_pack){
        .values = bytes,
        .scales = type == DTYPE_BF16 ? NULL : bytes + values_bytes(type, rows, cols),
        .rows = rows,
        .cols = cols,
        .stride = (int)col_tiles(cols) * WEIGHT_PACK_COLS,
        .type = type,
    };
}
