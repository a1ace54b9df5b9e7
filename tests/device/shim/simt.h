// simt: runs the blocks of an emulated grid, every CUDA thread a fiber.
//
// One block at a time, and one grid at a time in a process (a lock); hence `__shared__` can be
// `static`. Warp-wide operations are one mechanism: each lane posts its operands and blocks, the
// last lane of the mask to arrive carries the operation out for all. Lanes that bring different
// operations or masks, barriers that some threads never reach, and addresses that the hardware
// would refuse end the process with one line that names the block and the thread.
//
// Included by the shim's device.h and by the emulator's own sources.
#ifndef OCTANT_TESTS_DEVICE_SIMT_H
#define OCTANT_TESTS_DEVICE_SIMT_H

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>

// Not instrumented by the race flavour.
#define SIMT_UNSEEN __attribute__((no_sanitize("thread")))

namespace simt {

enum { WARP = 32, WARPS_MAX = 32, THREADS_MAX = 1024, BARRIERS = 16, SMEM_MAX = 227 << 10 };

struct thread {
    uint3 index; // threadIdx
    int id;      // linear
};

extern thread *current; // null outside a kernel
extern uint3 block_index;
extern dim3 block_dim, grid_dim;
extern unsigned char *dynamic_smem;

// What one thread of a grid does. Not a std::function: its insides must not be seen by the race
// flavour's hooks.
struct work {
    virtual ~work() {}
    virtual void run() const = 0;
};
template <class F> struct work_of : work {
    F f;
    explicit work_of(F f) : f(f) {}
    SIMT_UNSEEN void run() const override { f(); }
};
template <class F> std::shared_ptr<const work> make_work(F f) {
    return std::make_shared<work_of<F>>(f);
}

// A grid to run. `dependent`: started by programmatic dependent launch.
struct grid {
    dim3 blocks, threads;
    size_t smem;
    bool dependent;
    const void *kernel; // its address, for messages and attributes
    std::shared_ptr<const work> body;
};

// Runs all blocks, then returns. The caller has checked the shape.
void run(const grid &g);

// What launch() of the shim calls; the runtime's: checks the shape, and runs g now or when the
// stream gets there.
cudaError_t enqueue(cudaStream_t stream, grid g);

// Barrier 0 is __syncthreads: all threads that have not ended. Others: `threads` of them. Returns
// how many of those that arrived brought `vote`.
int barrier(int id, int threads, bool vote = false);

// Each lane of `mask` posts `mine`; the last to arrive runs f(posts by lane, mask). `orders`: as
// __syncwarp, memory accesses before it come before those after it.
typedef void (*warp_function)(void **lanes, unsigned mask);
void warp(unsigned mask, void *mine, warp_function f, bool orders = false);
unsigned warp_live(); // lanes that the block has in this warp

// Gives other fibers, and other processes, a turn.
void pause();

// Blocks the running thread until another wakes all that wait for `key`; `what` is for the report
// of a deadlock.
void park(const void *key, const char *what);
void wake(const void *key);

// Copies in the background (cp.async). `from` null: zeros.
void copy_begin(void *to, const void *from, int bytes);
void copy_commit();
void copy_wait(int keep);

void grid_wait();

// Stores to multicast memory that are under way arrive (multimem.cpp): a fence, a release, or the
// block's end.
void multimem_deliver();

// Ends the process: "emulated device: WHAT: block (x,y,z) thread n".
[[noreturn]] void die(const char *what);
void check_aligned(const void *p, size_t bytes, const char *what);

// For the race checker; nothing in other flavours. `atomic` accesses do not race with each other.
enum access_kind { READ, WRITE, ATOMIC_READ, ATOMIC, PENDING };
void note(const void *p, size_t bytes, access_kind kind,
          const void *pc = nullptr);                                               // pc: who did it
void note_multimem(const void *p, size_t bytes, access_kind kind, const void *pc); // by the switch
void note_alias_fence();
void note_fence();                // __threadfence and wider
void note_release(const void *p); // an atomic that publishes what was fenced
void note_acquire(const void *p);

// What the race checker is told of mbarriers and of the asynchronous proxy (async.cpp).
void race_arrive(const void *mbarrier);   // what the thread did before is seen by who waits
void race_complete(const void *mbarrier); // a phase: of the arrivals and landed copies so far
void race_acquire(const void *mbarrier);  // the thread saw the last phase complete
void race_proxy_fence();
void note_bulk_begin(const void *to, size_t bytes, const void *pc);
void note_bulk_landed(const void *to, size_t bytes, const void *mbarrier, const void *pc);
void note_wgmma_read(const void *p, size_t bytes, const void *pc);

// Between the scheduler, the race checker and emulator.cpp.
void race_grid(const grid &g);
void race_synchronized(); // the host waited for the whole device
void race_block();
void race_block_end();
void race_barrier(uint32_t warps);
void race_warp(int warp, unsigned mask);
void race_grid_wait();
void race_launch_dependents();
int race_count();
void async_block();                       // async.cpp: a block begins
void async_thread_end();                  // a thread has ended
void async_block_end();                   // and all have
bool is_own_memory(const void *p);        // of threads and their stacks, not of the device
void set_order(int order, uint64_t seed); // an emulator_order
void set_copies_late(bool late);
bool copies_late();
size_t smem_bytes(); // of the block that runs

} // namespace simt

#endif
