#include "tests/device/shim/simt.h"

#include "tests/device/shim/emulator.h"
#include "tests/device/shim/fiber.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <sched.h>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

namespace simt {

thread *current;
uint3 block_index;
dim3 block_dim, grid_dim;
unsigned char *dynamic_smem;

namespace {

struct copy {
    void *to;
    const void *from;
    int bytes;
    unsigned group;
};

struct lane : thread {
    fiber context;
    const char *waits; // for the report of a deadlock; null while ready or done
    bool done;
    void *post;
    warp_function operation;
    unsigned mask;
    std::vector<copy> copies; // under way, oldest first
    unsigned group;           // of the next copy
    int votes;
};

struct named_barrier {
    std::vector<lane *> waiting;
    int votes;
};

// A small generator of its own, so that a seed means the same everywhere.
struct generator {
    uint64_t state = 1;
    unsigned next() {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        return (unsigned)(state >> 32);
    }
};

// The fibers that may run, in the order that the test asked for.
class run_queue {
  public:
    void configure(emulator_order order, uint64_t seed) {
        order_ = order;
        random_.state = seed * 0x9e3779b97f4a7c15u + 1;
    }
    emulator_order order() const { return order_; }

    void begin_block() {
        ready_.clear();
        head_ = 0;
        paused_.clear();
        shuffle_warps();
    }

    void push(lane *l) {
        l->waits = nullptr;
        if (order_ != EMULATOR_ORDER_WARP) {
            ready_.push_back(l);
            return;
        }
        by_warp_[l->id / WARP].push_back(l);
        warps_ |= 1u << l->id / WARP;
    }

    void push_paused(lane *l) { paused_.push_back(l); }

    lane *pop() {
        lane *l = pop_ready();
        if (l || paused_.empty()) return l;
        sched_yield(); // all wait for another process
        std::vector<lane *> again;
        again.swap(paused_);
        for (lane *p : again) push(p);
        return pop_ready();
    }

    // At a barrier all warps stand level: a good place to draw anew.
    void at_barrier() {
        if (order_ == EMULATOR_ORDER_WARP && random_.next() % 4 == 0) shuffle_warps();
    }

  private:
    lane *pop_ready() {
        if (order_ == EMULATOR_ORDER_WARP) return pop_warp();
        if (head_ == ready_.size()) return nullptr;
        lane *l;
        if (order_ == EMULATOR_ORDER_REVERSE) {
            l = ready_.back();
            ready_.pop_back();
        } else {
            l = ready_[head_++];
        }
        if (head_ == ready_.size()) {
            ready_.clear();
            head_ = 0;
        }
        return l;
    }

    lane *pop_warp() {
        int best = -1;
        for (unsigned left = warps_; left; left &= left - 1) {
            int w = __builtin_ctz(left);
            if (best < 0 || priority_[w] > priority_[best]) best = w;
        }
        if (best < 0) return nullptr;
        std::vector<lane *> &from = by_warp_[best];
        size_t k = random_.next() % from.size();
        lane *l = from[k];
        from[k] = from.back();
        from.pop_back();
        if (from.empty()) warps_ &= ~(1u << best);
        return l;
    }

    void shuffle_warps() {
        for (unsigned &p : priority_) p = random_.next();
    }

    emulator_order order_ = EMULATOR_ORDER_FIFO;
    generator random_;
    std::vector<lane *> ready_, paused_, by_warp_[WARPS_MAX];
    size_t head_ = 0;
    unsigned warps_ = 0, priority_[WARPS_MAX] = {};
};

// Everything about the block that runs. One at a time: guarded by `running`.
struct {
    std::mutex running;
    std::vector<lane> lanes;
    run_queue queue;
    named_barrier barriers[BARRIERS];
    unsigned arrived[WARPS_MAX]; // lanes that stand at a warp operation
    int threads, done;
    const grid *work;
    fiber launcher;
    bool copies_late = true;
    std::vector<std::pair<const void *, lane *>> parked;
} block;

lane *self() {
    return static_cast<lane *>(current);
}

void deadlock() {
    fprintf(stderr,
            "emulated device: no thread of block (%u,%u,%u) can run, %d of %d have ended:\n",
            block_index.x, block_index.y, block_index.z, block.done, block.threads);
    const char *last = nullptr;
    for (int i = 0; i < block.threads; i++) {
        const char *now = block.lanes[i].done ? "ended" : block.lanes[i].waits;
        if (now && (!last || strcmp(now, last)))
            fprintf(stderr, "emulated device:   from thread %d: %s\n", i, now);
        last = now;
    }
    die("threads wait for others that never come");
}

// Leaves the running fiber (its wait is noted already) for the next.
void yield(bool last) {
    lane *from = self(), *to = block.queue.pop();
    if (to == from) return;
    if (!to && block.done < block.threads) deadlock();
    current = to;
    fiber_switch(&from->context, to ? &to->context : &block.launcher, last);
}

void release(named_barrier *b, int id) {
    std::vector<lane *> free;
    free.swap(b->waiting);
    uint32_t warps = id == 0 ? ~0u : 0; // threads that have ended count as come to barrier 0
    for (const lane *l : free) warps |= 1u << l->id / WARP;
    race_barrier(warps);
    int votes = b->votes;
    b->votes = 0;
    block.queue.at_barrier();
    bool backwards = block.queue.order() == EMULATOR_ORDER_REVERSE;
    for (size_t i = 0; i < free.size(); i++) {
        lane *l = free[backwards ? free.size() - 1 - i : i];
        l->votes = votes;
        block.queue.push(l);
    }
}

void release_if_all_here() { // barrier 0 does not wait for threads that have ended
    named_barrier *b = &block.barriers[0];
    if (!b->waiting.empty() && (int)b->waiting.size() + block.done == block.threads) release(b, 0);
}

void thread_main() {
    fiber_entered(&block.launcher);
    block.work->body->run();
    copy_wait(0);
    async_thread_end();
    self()->done = true;
    block.done++;
    release_if_all_here();
    yield(true);
    abort();
}

void prepare_thread(int i) {
    lane *l = &block.lanes[i];
    unsigned x = block_dim.x, y = block_dim.y, u = (unsigned)i;
    l->id = i;
    l->index = {u % x, u / x % y, u / (x * y)};
    l->done = false;
    l->copies.clear();
    l->group = 0;
    fiber_prepare(&l->context, thread_main);
    block.queue.push(l);
}

void run_block() {
    block.done = 0;
    block.queue.begin_block();
    memset(block.arrived, 0, sizeof block.arrived);
    memset(dynamic_smem, 0xff,
           block.work->smem); // NaN in every float type: what was never written shows
    race_block();
    async_block();
    for (int i = 0; i < block.threads; i++) prepare_thread(i);
    current = block.queue.pop();
    fiber_switch(&block.launcher, &self()->context, false);
    current = nullptr;
    async_block_end();
    multimem_deliver();
    race_block_end();
    for (const named_barrier &b : block.barriers)
        if (!b.waiting.empty()) die("a block ended while threads wait at a named barrier");
}

void prepare_grid(const grid &g) {
    if (block.lanes.empty()) {
        block.lanes.resize(THREADS_MAX);
        fiber_stacks(&block.lanes[0].context, sizeof(lane), THREADS_MAX);
        dynamic_smem = (unsigned char *)aligned_alloc(1024, SMEM_MAX);
    }
    block.launcher = fiber{};
    block.work = &g;
    block_dim = g.threads;
    grid_dim = g.blocks;
    block.threads = (int)(g.threads.x * g.threads.y * g.threads.z);
    ASAN_UNPOISON_MEMORY_REGION(dynamic_smem, SMEM_MAX);
    ASAN_POISON_MEMORY_REGION(dynamic_smem + g.smem, SMEM_MAX - g.smem);
}

} // namespace

void run(const grid &g) {
    std::lock_guard<std::mutex> lock(block.running);
    prepare_grid(g);
    race_grid(g);
    for (unsigned z = 0; z < g.blocks.z; z++)
        for (unsigned y = 0; y < g.blocks.y; y++)
            for (unsigned x = 0; x < g.blocks.x; x++) {
                block_index = {x, y, z};
                run_block();
            }
}

int barrier(int id, int threads, bool vote) {
    if (id < 0 || id >= BARRIERS) die("barrier: id is not 0 to 15");
    if (id > 0 && (threads < WARP || threads % WARP || threads > block.threads))
        die("barrier: thread count is not a number of whole warps of the block");
    static const char *const names[BARRIERS] = {
        "at __syncthreads", "at barrier 1",  "at barrier 2",  "at barrier 3",
        "at barrier 4",     "at barrier 5",  "at barrier 6",  "at barrier 7",
        "at barrier 8",     "at barrier 9",  "at barrier 10", "at barrier 11",
        "at barrier 12",    "at barrier 13", "at barrier 14", "at barrier 15"};
    named_barrier *b = &block.barriers[id];
    self()->waits = names[id];
    b->waiting.push_back(self());
    b->votes += vote;
    if (id == 0)
        release_if_all_here();
    else if ((int)b->waiting.size() == threads)
        release(b, id);
    yield(false);
    return self()->votes;
}

unsigned warp_live() {
    int left = block.threads - self()->id / WARP * WARP;
    return left >= WARP ? ~0u : (1u << left) - 1;
}

void warp(unsigned mask, void *mine, warp_function f, bool orders) {
    lane *me = self();
    int w = me->id / WARP, base = w * WARP;
    mask &= warp_live();
    if (!(mask >> me->id % WARP & 1)) die("warp operation: the lane is not in its own mask");
    me->post = mine;
    me->operation = f;
    me->mask = mask;
    me->waits = "at a warp operation";
    block.arrived[w] |= 1u << me->id % WARP;
    if ((block.arrived[w] & mask) == mask) {
        void *posts[WARP] = {};
        for (int i = 0; i < WARP; i++) {
            if (!(mask >> i & 1)) continue;
            const lane &l = block.lanes[base + i];
            if (l.operation != f || l.mask != mask)
                die("warp operation: lanes disagree on the operation or the mask");
            posts[i] = l.post;
        }
        f(posts, mask);
        block.arrived[w] &= ~mask;
        if (orders) race_warp(w, mask);
        for (int i = 0; i < WARP; i++)
            if (mask >> i & 1) block.queue.push(&block.lanes[base + i]);
    }
    yield(false);
}

void pause() {
    block.queue.push_paused(self());
    yield(false);
}

void park(const void *key, const char *what) {
    self()->waits = what;
    block.parked.push_back({key, self()});
    yield(false);
}

void wake(const void *key) {
    std::vector<std::pair<const void *, lane *>> left;
    for (const auto &p : block.parked)
        if (p.first == key)
            block.queue.push(p.second);
        else
            left.push_back(p);
    block.parked.swap(left);
}

static void carry_out(const copy &c) {
    if (c.from)
        memcpy(c.to, c.from, c.bytes);
    else
        memset(c.to, 0, c.bytes);
}

void copy_begin(void *to, const void *from, int bytes) {
    check_aligned(to, bytes, "cp.async: misaligned shared address");
    check_aligned(from, bytes, "cp.async: misaligned global address");
    const void *pc = __builtin_return_address(0);
    if (from) note(from, bytes, READ, pc);
    note(to, bytes, PENDING, pc);
    self()->copies.push_back({to, from, bytes, self()->group});
    if (!block.copies_late) carry_out(self()->copies.back());
}

void copy_commit() {
    self()->group++;
}

void copy_wait(int keep) {
    lane *me = self();
    size_t n = 0;
    for (; n < me->copies.size() && (int)(me->group - me->copies[n].group) > keep; n++) {
        if (block.copies_late) carry_out(me->copies[n]);
        note(me->copies[n].to, me->copies[n].bytes, WRITE, __builtin_return_address(0));
    }
    me->copies.erase(me->copies.begin(), me->copies.begin() + n);
}

void grid_wait() {
    race_grid_wait();
}

void die(const char *what) {
    fprintf(stderr, "emulated device: %s: block (%u,%u,%u) thread %d\n", what, block_index.x,
            block_index.y, block_index.z, current ? current->id : -1);
    abort();
}

void check_aligned(const void *p, size_t bytes, const char *what) {
    if ((uintptr_t)p % bytes) die(what);
}

bool is_own_memory(const void *p) {
    const lane *first = block.lanes.data();
    return fiber_on_stack(p) || (p >= first && p < first + block.lanes.size()) ||
           (p >= &current && p < &current + 1) || (p >= &block_index && p < &block_index + 1) ||
           (p >= &block_dim && p < &block_dim + 1) || (p >= &grid_dim && p < &grid_dim + 1) ||
           (p >= &dynamic_smem && p < &dynamic_smem + 1);
}

void set_order(int order, uint64_t seed) {
    block.queue.configure((emulator_order)order, seed);
}

void set_copies_late(bool late) {
    block.copies_late = late;
}

bool copies_late() {
    return block.copies_late;
}

size_t smem_bytes() {
    return block.work->smem;
}

} // namespace simt
