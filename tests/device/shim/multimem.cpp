// Accesses to multicast memory, from the PTX ISA ("multimem.ld_reduce, multimem.st"): as one
// relaxed access to each device's copy. The ISA promises no order of a sum's additions: here it
// begins with another device from one 16 bytes to the next.
//
// A store reaches the other devices' copies when a fence or a release by the block, or its end,
// makes it; with copies=early at once. Both are legal, and the first shows a release that is
// missing.
#include "tests/device/shim/device_multimem.h"

#include "tests/device/shim/driver.h"

#include <cstring>
#include <vector>

namespace simt {

namespace {

struct late_store {
    uint32_t *to;
    uint4 value;
};
std::vector<late_store> late; // of the block that runs

void store(uint32_t *to, uint4 v) {
    __atomic_store_n(to, v.x, __ATOMIC_RELAXED);
    __atomic_store_n(to + 1, v.y, __ATOMIC_RELAXED);
    __atomic_store_n(to + 2, v.z, __ATOMIC_RELAXED);
    __atomic_store_n(to + 3, v.w, __ATOMIC_RELAXED);
}

int first_of(const void *p, int count) {
    return (int)((uintptr_t)p / 16 % (uintptr_t)count);
}

uint32_t rounded(float x) { // bits of the nearest BF16, ties to even
    return __bfloat16_as_ushort(__float2bfloat16(x));
}

} // namespace

void multimem_deliver() {
    for (const late_store &s : late) store(s.to, s.value);
    late.clear();
}

uint4 multimem_sum_bf16x8(const void *p, const void *pc) {
    runtime::multimem_places places = runtime::driver_copies(p, 16);
    note_multimem(places.at[places.own], 16, ATOMIC_READ, pc);
    float sums[8] = {};
    for (int i = 0; i < places.count; i++) {
        int from = (i + first_of(p, places.count)) % places.count;
        const uint32_t *words = (const uint32_t *)places.at[from];
        for (int w = 0; w < 4; w++) {
            uint32_t word = __atomic_load_n(words + w, __ATOMIC_RELAXED);
            uint32_t halves[2] = {word << 16, word & 0xffff0000u};
            for (int h = 0; h < 2; h++) {
                float x;
                memcpy(&x, &halves[h], sizeof x);
                sums[2 * w + h] = i == 0 ? x : sums[2 * w + h] + x;
            }
        }
    }
    uint32_t words[4];
    for (int w = 0; w < 4; w++) words[w] = rounded(sums[2 * w]) | rounded(sums[2 * w + 1]) << 16;
    return make_uint4(words[0], words[1], words[2], words[3]);
}

double multimem_sum_f64(const void *p, const void *pc) {
    runtime::multimem_places places = runtime::driver_copies(p, 8);
    note_multimem(places.at[places.own], 8, ATOMIC_READ, pc);
    double sum = 0;
    for (int i = 0; i < places.count; i++) {
        int from = (i + first_of(p, places.count)) % places.count;
        uint64_t bits = __atomic_load_n((const uint64_t *)places.at[from], __ATOMIC_RELAXED);
        double x;
        memcpy(&x, &bits, sizeof x);
        sum = i == 0 ? x : sum + x;
    }
    return sum;
}

void multimem_store16(void *p, uint4 v, const void *pc) {
    runtime::multimem_places places = runtime::driver_copies(p, 16);
    note_multimem(places.at[places.own], 16, ATOMIC, pc);
    for (int i = 0; i < places.count; i++) {
        uint32_t *to = (uint32_t *)places.at[i];
        if (i == places.own || !copies_late())
            store(to, v);
        else
            late.push_back({to, v});
    }
}

} // namespace simt
