// place: weights from a mapped file into the device's own layout. Rows go in pieces: gathered into
// pinned memory by the host (which is when the file is read), copied up as they are, and repacked
// there by a kernel. Two pinned pieces, so that the host gathers one while the other is copied and
// packed. The device's one piece is safe: its copies and kernels are in one stream.
#include <assert.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/weight_pack.h"
#include "kernels/cuda/wgmma.h"

bool cuda_takes_wgmma(const cuda *k, const kernels_weight *w) {
    return k->wgmma && !w->expert && (w->type == DTYPE_F8_E4M3 || w->type == DTYPE_F8_BLOCK);
}

size_t cuda_weight_bytes(const kernels *base, const kernels_weight *host) {
    if (cuda_takes_wgmma((const cuda *)base, host))
        return wgmma_pack_bytes(host->type, host->rows, host->cols);
    return weight_pack_bytes(weight_pack_type(host->type), host->rows, host->cols);
}

cudaError_t cuda_pack_rows(const cuda *k, cudaStream_t stream, const kernels_weight *shape,
                           const void *raw, size_t raw_stride, const float *scales, int first,
                           int count, void *device) {
    if (cuda_takes_wgmma(k, shape)) {
        wgmma_pack tiles = wgmma_pack_at(shape->type, shape->rows, shape->cols, device);
        return wgmma_pack_rows(stream, raw, raw_stride, scales, first, count, &tiles);
    }
    weight_pack pack =
        weight_pack_at(weight_pack_type(shape->type), shape->rows, shape->cols, device);
    return weight_pack_rows(stream, raw, raw_stride, shape->type, scales, first, count, &pack);
}

// Rows are laid one behind another; each starts where the kernels may read 16 bytes at a time.
static size_t packed_stride(const kernels_weight *w) {
    return (dtype_row_bytes(w->type, (size_t)w->cols) + 15) / 16 * 16;
}

static size_t scale_bytes(const kernels_weight *w) { // of a row
    return dtype_row_scales(w->type, (size_t)w->cols) * sizeof *w->scales;
}

static void gather(const kernels_weight *w, int first, int count, size_t stride, uint8_t *to) {
    const uint8_t *from = (const uint8_t *)w->data + (size_t)first * w->row_stride;
    size_t bytes = dtype_row_bytes(w->type, (size_t)w->cols);
    for (int r = 0; r < count; r++)
        memcpy(to + (size_t)r * stride, from + (size_t)r * w->row_stride, bytes);
}

static status place_rows(cuda *k, const kernels_weight *host, int first, int count, void *device) {
    size_t stride = packed_stride(host);
    int slot = 0;
    uint8_t *piece = NULL;
    TRY(cuda_staging(k, CUDA_STAGING_BYTES, &slot, &piece));
    gather(host, first, count, stride, piece);
    size_t bytes = (size_t)count * stride;
    if (host->scales) { // behind the rows, which end on 16 bytes
        kernels_weight_copy_scales(host, first, count, (float *)(void *)(piece + bytes));
        bytes += (size_t)count * scale_bytes(host);
    }
    const float *scales =
        host->scales ? (const float *)((char *)k->place_raw + (size_t)count * stride) : NULL;
    cuda_note(k, cudaMemcpyAsync(k->place_raw, piece, bytes, cudaMemcpyHostToDevice, k->stream),
              "the upload of weights");
    cuda_staging_sent(k, slot);
    cuda_note(
        k, cuda_pack_rows(k, k->stream, host, k->place_raw, stride, scales, first, count, device),
        "packing weights");
    return k->failed;
}

status cuda_weight_place(kernels *base, const kernels_weight *host, void *device,
                         kernels_weight *out) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    size_t stride = packed_stride(host);
    int rows = (int)(CUDA_STAGING_BYTES / (stride + scale_bytes(host))) / WEIGHT_PACK_ROWS *
               WEIGHT_PACK_ROWS;
    if (rows == 0)
        return status_error(STATUS_UNIMPLEMENTED,
                            "a weight has rows of %d columns; the device takes %zu bytes per row",
                            host->cols, CUDA_STAGING_BYTES / WEIGHT_PACK_ROWS);
    if (!k->place_raw) {
        void *memory = NULL;
        TRY(cuda_device_alloc(k, CUDA_STAGING_BYTES, &memory));
        k->place_raw = memory;
    }
    dtype type = weight_pack_type(host->type);
    for (int first = 0; first < host->rows; first += rows) {
        int left = host->rows - first;
        TRY(place_rows(k, host, first, left < rows ? left : rows, device));
    }
    // Products read weights before they wait for the work that was queued before them.
    TRY(cuda_sync(base, clock_now_ns() + CUDA_WAIT_NS));
    *out = (kernels_weight){.data = device,
                            .row_stride = dtype_row_bytes(type, (size_t)host->cols),
                            .rows = host->rows,
                            .cols = host->cols,
                            .type = type,
                            .expert = host->expert};
    return status_ok();
}
