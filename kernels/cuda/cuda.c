// cuda: makes the backend, and owns what its operators share: memory, copies, waiting, and the
// first error. One backend is one device and one stream; calls only queue work. Nothing here waits
// without a deadline: a device that hangs is an error that the rank reports, not a process that
// stands still.
#include "kernels/cuda/cuda.h"

#include <assert.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/cublas.h"

void cuda_enter(cuda *k) {
    cuda_note(k, cudaSetDevice(k->device), "cudaSetDevice");
}

status cuda_status(cudaError_t e, const char *what) {
    if (e == cudaSuccess) return status_ok();
    (void)cudaGetLastError(); // the runtime keeps it for the next call otherwise
    status_code code = STATUS_INTERNAL;
    if (e == cudaErrorMemoryAllocation) code = STATUS_RESOURCE_EXHAUSTED;
    if (e == cudaErrorNoDevice || e == cudaErrorDevicesUnavailable) code = STATUS_UNAVAILABLE;
    if (e == cudaErrorInsufficientDriver || e == cudaErrorNoKernelImageForDevice)
        code = STATUS_FAILED_PRECONDITION;
    return status_error(code, "%s: %s: %s", what, cudaGetErrorName(e), cudaGetErrorString(e));
}

void cuda_note_status(cuda *k, status s) {
    if (status_is_ok(&k->failed)) k->failed = s;
}

void cuda_note(cuda *k, cudaError_t e, const char *what) {
    if (e != cudaSuccess) cuda_note_status(k, cuda_status(e, what));
}

// Steps are short and their results are waited for, so the wait spins first and sleeps only when it
// lasts.
status cuda_wait(cuda *k, cudaEvent_t event, int64_t deadline_ns, const char *what) {
    const int64_t spin_until = clock_now_ns() + 2 * CLOCK_MS;
    for (;;) {
        cudaError_t e = cudaEventQuery(event);
        if (e != cudaErrorNotReady) {
            cuda_note(k, e, what);
            return k->failed;
        }
        int64_t now = clock_now_ns();
        if (now >= deadline_ns)
            return status_error(STATUS_DEADLINE_EXCEEDED,
                                "%s: CUDA device %d has not finished by its deadline", what,
                                k->device);
        if (now < spin_until)
            sched_yield();
        else
            clock_sleep_until(now + CLOCK_MS / 20);
    }
}

// Waits for all that was queued.
static status wait_for_stream(cuda *k, int64_t deadline_ns, const char *what) {
    cuda_enter(k);
    cuda_note(k, cudaEventRecord(k->done, k->stream), "cudaEventRecord");
    if (!status_is_ok(&k->failed)) return k->failed;
    return cuda_wait(k, k->done, deadline_ns, what);
}

status cuda_sync(kernels *base, int64_t deadline_ns) {
    return wait_for_stream((cuda *)base, deadline_ns, "kernels_sync");
}

status cuda_poll(kernels *base, bool *done) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cudaError_t e = cudaStreamQuery(k->stream);
    *done = e != cudaErrorNotReady;
    if (*done) cuda_note(k, e, "kernels_poll");
    return k->failed;
}

status cuda_host_alloc(kernels *base, size_t bytes, void **out) {
    cuda_enter((cuda *)base);
    TRY(cuda_pinned_alloc(bytes > 0 ? bytes : 1, out));
    memset(*out, 0, bytes);
    return status_ok();
}

void cuda_host_free(kernels *base, void *host) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    if (host) cuda_note(k, cudaFreeHost(host), "cudaFreeHost");
}

void cuda_send(kernels *base, void *host, const void *device, size_t bytes) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_note(k, cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, k->stream),
              "what is sent to the host");
}

void cuda_send_in_turn(kernels *base, void *host, size_t stride, const void *device, size_t bytes) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    mail_ring ring = {.slot_bytes = stride, .place = (uint32_t *)k->turn};
    void *slots = NULL;
    cuda_note(k, cudaHostGetDevicePointer(&slots, host, 0), "cudaHostGetDevicePointer");
    ring.slots = slots;
    cuda_note(k, mail_down_in_turn(k->stream, &ring, device, bytes), "what is sent to the host");
}

void cuda_mark(kernels *base, int mark) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_note(k, cudaEventRecord(k->marks[mark], k->stream), "cudaEventRecord");
}

status cuda_mark_poll(kernels *base, int mark, bool *done) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cudaError_t e = cudaEventQuery(k->marks[mark]);
    *done = e != cudaErrorNotReady;
    if (*done) cuda_note(k, e, "kernels_mark_poll");
    return k->failed;
}

void *cuda_stream(const kernels *base) {
    return ((const cuda *)base)->stream;
}

status cuda_device_alloc(cuda *k, size_t bytes, void **out) {
    cuda_enter(k);
    *out = NULL;
    void *memory = NULL;
    cudaError_t e = cudaMalloc(&memory, bytes > 0 ? bytes : 1);
    if (e == cudaErrorMemoryAllocation) {
        size_t free_bytes = 0, total = 0;
        (void)cudaGetLastError();
        (void)cudaMemGetInfo(&free_bytes, &total);
        return status_error(STATUS_RESOURCE_EXHAUSTED,
                            "no memory for %.1f MiB on CUDA device %d: %.1f of %.1f MiB are free; "
                            "lower the KV budget, use more ranks, or end what else runs there",
                            (double)bytes / 1048576, k->device, (double)free_bytes / 1048576,
                            (double)total / 1048576);
    }
    TRY(cuda_status(e, "cudaMalloc"));
    e = cudaMemsetAsync(memory, 0, bytes, k->stream);
    if (e != cudaSuccess) {
        (void)cudaFree(memory);
        return cuda_status(e, "cudaMemsetAsync");
    }
    *out = memory;
    return status_ok();
}

status cuda_pinned_alloc(size_t bytes, void **out) {
    *out = NULL;
    cudaError_t e = cudaHostAlloc(out, bytes, cudaHostAllocDefault);
    if (e != cudaErrorMemoryAllocation) return cuda_status(e, "cudaHostAlloc");
    (void)cudaGetLastError();
    return status_error(STATUS_RESOURCE_EXHAUSTED,
                        "no %.1f MiB of pinned memory; free host memory, or raise the limit on "
                        "locked memory (ulimit -l)",
                        (double)bytes / 1048576);
}

status cuda_alloc(kernels *base, size_t bytes, void **out) {
    return cuda_device_alloc((cuda *)base, bytes, out);
}

void cuda_release(kernels *base, void *memory) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    if (memory) cuda_note(k, cudaFree(memory), "cudaFree");
}

enum { STAGING_ALIGN = 64 };
static_assert(CUDA_STAGING_BYTES % STAGING_ALIGN == 0, "a piece ends where a copy may");

status cuda_staging(cuda *k, size_t bytes, int *slot, uint8_t **out) {
    if (k->staging_used + bytes > CUDA_STAGING_BYTES) {
        k->staging_now = 1 - k->staging_now;
        k->staging_used = 0;
        TRY(cuda_wait(k, k->staged[k->staging_now], clock_now_ns() + CUDA_WAIT_NS, "a copy"));
    }
    *slot = k->staging_now;
    *out = k->staging[*slot] + k->staging_used;
    k->staging_used += (bytes + STAGING_ALIGN - 1) / STAGING_ALIGN * STAGING_ALIGN;
    return status_ok();
}

void cuda_staging_sent(cuda *k, int slot) {
    cuda_note(k, cudaEventRecord(k->staged[slot], k->stream), "cudaEventRecord");
}

static size_t piece_of(size_t bytes, size_t at) {
    return bytes - at < CUDA_STAGING_BYTES ? bytes - at : CUDA_STAGING_BYTES;
}

// Through pinned memory: the caller's may be a mapped file, or gone when the copy begins.
status cuda_upload(kernels *base, void *device, const void *host, size_t bytes) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    for (size_t at = 0; at < bytes; at += CUDA_STAGING_BYTES) {
        int slot = 0;
        uint8_t *piece = NULL;
        size_t n = piece_of(bytes, at);
        TRY(cuda_staging(k, n, &slot, &piece));
        memcpy(piece, (const uint8_t *)host + at, n);
        cuda_note(
            k, cudaMemcpyAsync((uint8_t *)device + at, piece, n, cudaMemcpyHostToDevice, k->stream),
            "an upload");
        cuda_staging_sent(k, slot);
    }
    return k->failed;
}

status cuda_download(kernels *base, void *host, const void *device, size_t bytes) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    for (size_t at = 0; at < bytes; at += CUDA_STAGING_BYTES) {
        int slot = 0;
        uint8_t *piece = NULL;
        size_t n = piece_of(bytes, at);
        TRY(cuda_staging(k, n, &slot, &piece));
        cuda_note(k,
                  cudaMemcpyAsync(piece, (const uint8_t *)device + at, n, cudaMemcpyDeviceToHost,
                                  k->stream),
                  "a download");
        cuda_staging_sent(k, slot);
        TRY(cuda_wait(k, k->staged[slot], clock_now_ns() + CUDA_WAIT_NS, "a download"));
        memcpy((uint8_t *)host + at, piece, n);
    }
    return k->failed;
}

void cuda_copy(kernels *base, void *to, const void *from, size_t bytes) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    cuda_note(k, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, k->stream), "a copy");
}

status cuda_reserve(kernels *base, kernels_limits limits) {
    cuda *k = (cuda *)base;
    cuda_enter(k);
    TRY(cuda_plan_create(k, limits));
    return cuda_scratch_create(k, limits);
}

void cuda_destroy(kernels *base) {
    cuda *k = (cuda *)base;
    (void)cudaSetDevice(k->device);
    // Nothing may run on memory that goes. A device that hangs keeps it: freeing would hang too.
    if (k->stream && k->done) {
        status s = wait_for_stream(k, clock_now_ns() + CUDA_WAIT_NS, "kernels_destroy");
        if (s.code == STATUS_DEADLINE_EXCEEDED) return;
    }
    cuda_graphs_destroy(k);
    cuda_scratch_destroy(k);
    cuda_plan_destroy(k);
    cublas_destroy(k->blas);
    for (int i = 0; i < 2; i++) {
        if (k->staged[i]) (void)cudaEventDestroy(k->staged[i]);
        (void)cudaFreeHost(k->staging[i]);
    }
    for (int i = 0; i < KERNELS_MARKS; i++)
        if (k->marks[i]) (void)cudaEventDestroy(k->marks[i]);
    if (k->done) (void)cudaEventDestroy(k->done);
    (void)cudaFree(k->place_raw);
    if (k->stream) (void)cudaStreamDestroy(k->stream);
    free(k);
}

static status open_device(cuda *k, kernels_cuda_options options) {
    TRY(cuda_describe(options.device, &k->card));
    TRY(cuda_status(cudaSetDevice(options.device), "cudaSetDevice"));
    TRY(cuda_status(cudaStreamCreateWithFlags(&k->stream, cudaStreamNonBlocking),
                    "cudaStreamCreateWithFlags"));
    TRY(cuda_status(cudaEventCreateWithFlags(&k->done, cudaEventDisableTiming),
                    "cudaEventCreateWithFlags"));
    for (int i = 0; i < KERNELS_MARKS; i++)
        TRY(cuda_status(cudaEventCreateWithFlags(&k->marks[i], cudaEventDisableTiming),
                        "cudaEventCreateWithFlags"));
    for (int i = 0; i < 2; i++) {
        void *piece = NULL;
        TRY(cuda_pinned_alloc(CUDA_STAGING_BYTES, &piece));
        k->staging[i] = piece;
        TRY(cuda_status(cudaEventCreateWithFlags(&k->staged[i], cudaEventDisableTiming),
                        "cudaEventCreateWithFlags"));
    }
    // Both change numbers: cuBLASLt with the batch, FP8 activations by their rounding.
    k->wgmma = options.fast && options.sums == KERNELS_SUMS_BF16 && k->card.major == 9;
    return options.fast ? cublas_create(&k->blas) : status_ok();
}

status kernels_create_cuda(kernels_cuda_options options, kernels **out) {
    cuda *k = calloc(1, sizeof *k);
    if (!k) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the cuda backend");
    k->base.ops = &cuda_ops;
    k->base.sums_type = options.sums;
    k->base.act_bytes = sizeof(uint16_t);
    k->device = options.device;
    status s = open_device(k, options);
    if (!status_is_ok(&s)) {
        cuda_destroy(&k->base);
        return s;
    }
    snprintf(k->base.name, sizeof k->base.name, "cuda-sm_%d%d%s%s", k->card.major, k->card.minor,
             k->blas ? "+cublaslt" : "", k->wgmma ? "+wgmma" : "");
    *out = &k->base;
    return s;
}
