// ring: the host's side of mail.h: pinned slots that take turns, each with an event that says when
// the device is done with it.
#include <assert.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

status cuda_ring_create(cuda *k, int turns, size_t slot_bytes, cuda_ring *out) {
    assert(turns >= 1 && turns <= CUDA_RING_SLOTS_MAX);
    void *memory = NULL;
    *out = (cuda_ring){.mail = {.turns = (uint32_t)turns}};
    out->mail.slot_bytes = (slot_bytes + MAIL_UNIT - 1) / MAIL_UNIT * MAIL_UNIT;
    size_t bytes = (size_t)turns * out->mail.slot_bytes;
    TRY(cuda_pinned_alloc(bytes, &out->slots));
    memset(out->slots, 0, bytes);
    TRY(cuda_status(cudaHostGetDevicePointer(&memory, out->slots, 0), "cudaHostGetDevicePointer"));
    out->mail.slots = memory;
    TRY(cuda_device_alloc(k, 2 * sizeof *out->mail.place, &memory));
    out->mail.place = memory;
    for (int i = 0; i < turns; i++)
        TRY(cuda_status(cudaEventCreateWithFlags(&out->done[i], cudaEventDisableTiming),
                        "cudaEventCreateWithFlags"));
    return status_ok();
}

void cuda_ring_destroy(cuda_ring *r) {
    for (int i = 0; i < CUDA_RING_SLOTS_MAX; i++)
        if (r->done[i]) (void)cudaEventDestroy(r->done[i]);
    (void)cudaFree(r->mail.place);
    (void)cudaFreeHost(r->slots);
}

static unsigned turn_of(const cuda_ring *r, uint64_t number) {
    return (unsigned)(number % r->mail.turns);
}

status cuda_ring_take(cuda *k, cuda_ring *r, const char *what, void **slot) {
    unsigned turn = turn_of(r, r->next);
    TRY(cuda_wait(k, r->done[turn], clock_now_ns() + CUDA_WAIT_NS, what));
    r->next++;
    *slot = (uint8_t *)r->slots + turn * r->mail.slot_bytes;
    return status_ok();
}

cudaEvent_t cuda_ring_sent(cuda *k, cuda_ring *r) {
    cudaEvent_t done = r->done[turn_of(r, r->next - 1)];
    cuda_note(k, cudaEventRecord(done, k->stream), "cudaEventRecord");
    return done;
}
