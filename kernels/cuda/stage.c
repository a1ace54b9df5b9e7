// stage: weights on their way to the device while they are read (kernels/stage.h). Two streams
// beside the backend's own: one copies, one repacks. Rows are copied to one of a few lanes, pieces
// of device memory, and repacked from there; a lane is written again when its repacking is done, a
// slot when its copy is. So the bus is never idle while there is something to copy.
#include "kernels/stage.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

enum { LANES = 3, SCALES_ALIGNMENT = 16 };

typedef struct stage {
    kernels_stage base;
    cudaStream_t copies, packs;
    void *lane[LANES];
    cudaEvent_t packed[LANES]; // the lane may be written again
    int next_lane;
    struct {
        cudaEvent_t begun, copied;
        bool flying; // its copy's time is not yet counted
    } slot[KERNELS_STAGE_SLOTS_MAX];
    cudaEvent_t before, all;
} stage;

static cuda *device_of(kernels_stage *s) {
    cuda *k = (cuda *)s->kernels;
    cuda_enter(k);
    return k;
}

void cuda_stage_close(kernels_stage *base) {
    stage *s = (stage *)base;
    cuda *k = device_of(base);
    int64_t deadline_ns = clock_now_ns() + CUDA_WAIT_NS;
    // Memory that the device may still write to is given back only once it does not.
    status finished = s->all ? cuda_stage_sync(base, deadline_ns) : status_ok();
    (void)finished; // kept in k->failed, or the device hangs: cudaFree waits for what is left
    for (int i = 0; i < LANES; i++) {
        if (s->lane[i]) cuda_note(k, cudaFree(s->lane[i]), "cudaFree");
        if (s->packed[i]) cudaEventDestroy(s->packed[i]);
    }
    for (int i = 0; i < base->slots; i++) {
        if (s->slot[i].begun) cudaEventDestroy(s->slot[i].begun);
        if (s->slot[i].copied) cudaEventDestroy(s->slot[i].copied);
    }
    if (s->before) cudaEventDestroy(s->before);
    if (s->all) cudaEventDestroy(s->all);
    if (s->copies) cudaStreamDestroy(s->copies);
    if (s->packs) cudaStreamDestroy(s->packs);
    if (base->memory) cudaFreeHost(base->memory);
    free(s);
}

static status make_events(stage *s) {
    for (int i = 0; i < LANES; i++)
        TRY(cuda_status(cudaEventCreateWithFlags(&s->packed[i], cudaEventDisableTiming),
                        "cudaEventCreate"));
    for (int i = 0; i < s->base.slots; i++) {
        TRY(cuda_status(cudaEventCreateWithFlags(&s->slot[i].begun, cudaEventDefault),
                        "cudaEventCreate"));
        TRY(cuda_status(cudaEventCreateWithFlags(&s->slot[i].copied, cudaEventDefault),
                        "cudaEventCreate"));
    }
    TRY(cuda_status(cudaEventCreateWithFlags(&s->before, cudaEventDisableTiming),
                    "cudaEventCreate"));
    return cuda_status(cudaEventCreateWithFlags(&s->all, cudaEventDisableTiming),
                       "cudaEventCreate");
}

static status fill(stage *s, cuda *k) {
    TRY(cuda_status(cudaStreamCreateWithFlags(&s->copies, cudaStreamNonBlocking),
                    "cudaStreamCreate"));
    TRY(cuda_status(cudaStreamCreateWithFlags(&s->packs, cudaStreamNonBlocking),
                    "cudaStreamCreate"));
    TRY(make_events(s));
    for (int i = 0; i < LANES; i++) TRY(cuda_device_alloc(k, s->base.bytes, &s->lane[i]));
    void *memory = NULL;
    TRY(cuda_pinned_alloc((size_t)s->base.slots * s->base.bytes, &memory));
    s->base.memory = memory;
    return status_ok();
}

status cuda_stage_open(kernels *base, int slots, size_t bytes, kernels_stage **out) {
    stage *s = calloc(1, sizeof *s);
    if (!s) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a stage");
    s->base = (kernels_stage){.kernels = base, .slots = slots, .bytes = bytes};
    status made = fill(s, device_of(&s->base));
    if (status_is_ok(&made))
        *out = &s->base;
    else
        cuda_stage_close(&s->base);
    return made;
}

// What the backend's own stream was given so far comes first: it zeroes new memory.
static void come_after(stage *s, cuda *k, cudaStream_t stream) {
    cuda_note(k, cudaEventRecord(s->before, k->stream), "cudaEventRecord");
    cuda_note(k, cudaStreamWaitEvent(stream, s->before, 0), "cudaStreamWaitEvent");
}

// Queues one copy out of a slot, between the events that time it.
static void copy(stage *s, cuda *k, int slot, size_t offset, void *device, size_t bytes) {
    const char *from = s->base.memory + (size_t)slot * s->base.bytes + offset;
    come_after(s, k, s->copies);
    cuda_note(k, cudaEventRecord(s->slot[slot].begun, s->copies), "cudaEventRecord");
    cuda_note(k, cudaMemcpyAsync(device, from, bytes, cudaMemcpyHostToDevice, s->copies),
              "the upload of weights");
    cuda_note(k, cudaEventRecord(s->slot[slot].copied, s->copies), "cudaEventRecord");
    s->slot[slot].flying = true;
}

status cuda_stage_copy(kernels_stage *base, int slot, size_t offset, void *device, size_t bytes) {
    cuda *k = device_of(base);
    copy((stage *)base, k, slot, offset, device, bytes);
    return k->failed;
}

// Scales go behind the rows, in the slot as in the lane: one copy.
static size_t append_scales(stage *s, int slot, size_t offset, const kernels_weight *shape,
                            int first_row, int count, size_t *bytes) {
    size_t at = (offset + *bytes + SCALES_ALIGNMENT - 1) / SCALES_ALIGNMENT * SCALES_ALIGNMENT;
    size_t each = dtype_row_scales(shape->type, (size_t)shape->cols) * sizeof *shape->scales;
    size_t size = (size_t)count * each;
    char *to = s->base.memory + (size_t)slot * s->base.bytes + at;
    kernels_weight_copy_scales(shape, first_row, count, (float *)to);
    *bytes = at + size - offset;
    return at;
}

status cuda_stage_rows(kernels_stage *base, int slot, size_t offset, const kernels_weight *shape,
                       int first_row, int count, void *device) {
    stage *s = (stage *)base;
    cuda *k = device_of(base);
    size_t row = dtype_row_bytes(shape->type, (size_t)shape->cols), bytes = (size_t)count * row;
    int lane = s->next_lane;
    s->next_lane = (lane + 1) % LANES;
    // At the same place in the lane as in the slot, so that both are aligned alike.
    char *raw = (char *)s->lane[lane] + offset;
    const float *scales = NULL;
    if (shape->scales) {
        size_t at = append_scales(s, slot, offset, shape, first_row, count, &bytes);
        scales = (const float *)((char *)s->lane[lane] + at);
    }
    cuda_note(k, cudaStreamWaitEvent(s->copies, s->packed[lane], 0), "cudaStreamWaitEvent");
    copy(s, k, slot, offset, raw, bytes);
    cuda_note(k, cudaStreamWaitEvent(s->packs, s->slot[slot].copied, 0), "cudaStreamWaitEvent");
    cuda_note(k, cuda_pack_rows(k, s->packs, shape, raw, row, scales, first_row, count, device),
              "packing weights");
    cuda_note(k, cudaEventRecord(s->packed[lane], s->packs), "cudaEventRecord");
    return k->failed;
}

status cuda_stage_poll(kernels_stage *base, int slot, bool *done) {
    stage *s = (stage *)base;
    cuda *k = device_of(base);
    if (!s->slot[slot].flying) return k->failed;
    cudaError_t e = cudaEventQuery(s->slot[slot].copied);
    *done = e != cudaErrorNotReady;
    if (!*done) return k->failed;
    cuda_note(k, e, "the upload of weights");
    float ms = 0;
    cuda_note(k, cudaEventElapsedTime(&ms, s->slot[slot].begun, s->slot[slot].copied),
              "cudaEventElapsedTime");
    base->copy_seconds += (double)ms / 1000;
    s->slot[slot].flying = false;
    return k->failed;
}

status cuda_stage_sync(kernels_stage *base, int64_t deadline_ns) {
    stage *s = (stage *)base;
    cuda *k = device_of(base);
    cudaStream_t streams[] = {s->packs, s->copies};
    for (int i = 0; i < 2; i++) {
        cuda_note(k, cudaEventRecord(s->all, streams[i]), "cudaEventRecord");
        TRY(k->failed);
        TRY(cuda_wait(k, s->all, deadline_ns, "bringing weights to the device"));
    }
    return k->failed;
}
