// async: what sm_90 does behind the threads' backs, on the emulated device: bulk copies and their
// mbarriers, and warpgroup products (wgmma). Written from the PTX ISA (8.x), "Parallel
// Synchronization and Communication Instructions: mbarrier", "cp.async.bulk" and "Asynchronous
// Warpgroup Level Matrix Instructions"; what each wrapper promises is told in
// kernels/cuda/nvcc/device_sm90a.h.
//
// Copies and products are done as late as the rules allow (where a thread waits for them) or at
// once, by the setting of cp.async (emulator_set_copies_late).
#ifndef OCTANT_TESTS_DEVICE_SHIM_ASYNC_H
#define OCTANT_TESTS_DEVICE_SHIM_ASYNC_H

#include "tests/device/shim/simt.h"

namespace simt {

enum wgmma_type { WGMMA_BF16, WGMMA_E4M3 };

// Of a pointer into the block's dynamic shared memory: its address in the shared window.
uint32_t shared_address(const void *p);

void mbarrier_init(uint64_t *b, uint32_t arrivals, const void *pc);
void mbarrier_arrive(uint64_t *b, uint32_t expected_bytes, const void *pc);
void mbarrier_wait(uint64_t *b, uint32_t parity, const void *pc);
void bulk_copy(void *to, const void *from, uint32_t bytes, uint64_t *b, const void *pc);

void wgmma_fence();
void wgmma_issue(wgmma_type type, int n, float *d, uint64_t a, uint64_t b, bool add,
                 const void *pc);
void wgmma_commit();
void wgmma_wait(int keep);

} // namespace simt

#endif
