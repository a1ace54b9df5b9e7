// race: the checker of the race flavour. Kernels are compiled with -fsanitize=thread, whose hooks
// (__tsan_read4 ...) land here instead of in the thread sanitizer's library, which knows nothing of
// barriers between fibers; without those hooks nothing here does anything.
//
// Two accesses of a launch race if they overlap, one writes, not both are atomic, and nothing
// orders them. Order comes from barriers and __syncwarp (vector clocks: of warps in the block, of
// lanes in the warp; a shuffle orders no memory), and between blocks from a release (fence, then
// atomic) that another block's atomic reads. Since order is judged by clocks, not by what happened
// to run first, one order of the fibers finds most races.
//
// Four bytes of memory have four slots for the latest accesses; more are forgotten, as in the
// thread sanitizer. Also told: reads of shared memory that this block never wrote, use of a
// cp.async's target before its wait, use of an earlier grid's memory before grid_wait() in a
// dependent launch, and memory of the host that is not pinned. The program then ends with
// RACE_EXIT.
#include "tests/device/shim/simt.h"

#include "tests/device/shim/runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <unistd.h>
#include <unordered_map>
#include <vector>

extern "C" char __executable_start[], _end[]; // the program's image, by the linker

namespace simt {

namespace {

enum {
    RACE_EXIT = 66,
    SLOTS = 4,
    ENGINE = THREADS_MAX - 1,
    PAGE_BITS = 12,
    WORDS = (1 << PAGE_BITS) / 4,
    REPORTS_MAX = 20
};

struct access {
    uint32_t block;      // serial number over all launches; 0: none
    uint32_t warp_clock; // of the warp, at barriers
    uint32_t lane_clock; // of the lane, at warp synchronisations
    uint32_t place;      // in the program's image
    uint16_t thread;
    uint8_t bytes; // which of the word's four
    uint8_t kind;
    uint32_t alias_fences; // of the block, before it
    bool by_switch;        // by a multicast address
};

struct word {
    access slots[SLOTS];
    uint32_t written_by; // block
    uint8_t written;     // which bytes
    uint8_t victim;
};

enum region { SHARED, STATIC, GLOBAL, HOST };

struct page {
    word words[WORDS];
    region where;
    uint32_t launch; // when `where` was found out
};

// What a block had done when it released: accesses up to these clocks.
struct view {
    uint32_t block, warp_known[WARPS_MAX], lane_known[WARP];
    int thread;
};

// What a thread knows, or a barrier passes on, of all threads of the block: by warp clock what lies
// before a barrier, by lane clock what lies before an arrival.
struct knowledge {
    uint32_t warp[WARPS_MAX], lane[THREADS_MAX];
};

void learn(knowledge *k, const knowledge &from) {
    for (int i = 0; i < WARPS_MAX; i++)
        if (from.warp[i] > k->warp[i]) k->warp[i] = from.warp[i];
    for (int i = 0; i < THREADS_MAX; i++)
        if (from.lane[i] > k->lane[i]) k->lane[i] = from.lane[i];
}

struct mbarrier_knowledge {
    knowledge arrived = {}, completed = {};
};

struct acquired {
    std::shared_ptr<const view> what;
    access when;
};

// Not in `state`: instrumented files set it before that is constructed.
bool on = false;

struct {
    bool synchronized = false;                             // the host waited for all grids so far
    uint32_t block = 0, launch_first = 0, chain_first = 0; // serial numbers of blocks
    uint32_t launch = 0;
    int threads = 0;
    // known[a][b]: up to which clock of b all is before what a does now; known[a][a]: a's own
    // clock.
    uint32_t warps[WARPS_MAX][WARPS_MAX];
    uint32_t lanes[WARPS_MAX][WARP][WARP];
    bool fenced[THREADS_MAX], waited[THREADS_MAX];
    bool dependent = false, orderly = true;
    uint32_t alias_fences = 0; // of this block so far
    // Through mbarriers. The copy engine (cp.async.bulk) counts as thread ENGINE with a clock of
    // its own.
    bool mbarriers = false;
    knowledge told[THREADS_MAX];
    uint32_t proxy_fenced[THREADS_MAX], engine_clock = 0; // lane clock of the last proxy fence
    std::map<const void *, mbarrier_knowledge> passed;
    std::vector<acquired> acquisitions;                                        // of this block
    std::map<const void *, std::vector<std::shared_ptr<const view>>> releases; // of this launch
    std::unordered_map<uintptr_t, std::unique_ptr<page>> pages;
    uintptr_t last_number = 1;
    page *last_page = nullptr;
    std::set<std::pair<uint32_t, uint32_t>> seen;
    int races = 0;
} state;

bool writes(uint8_t kind) {
    return kind == WRITE || kind == ATOMIC || kind == PENDING;
}
bool is_atomic(uint8_t kind) {
    return kind == ATOMIC || kind == ATOMIC_READ;
}

// ---- order

bool before_in_block(const access &a, const access &b) {
    if (a.thread == b.thread) return true;
    int wa = a.thread / WARP, wb = b.thread / WARP;
    bool known = wa == wb ? state.lanes[wb][b.thread % WARP][a.thread % WARP] >= a.lane_clock
                          : state.warps[wb][wa] >= a.warp_clock;
    if (known || !state.mbarriers) return known;
    const knowledge &k = state.told[b.thread];
    return k.warp[wa] >= a.warp_clock || k.lane[a.thread] >= a.lane_clock;
}

bool in_view(const access &a, const view &v) {
    if (a.block != v.block) return false;
    int wa = a.thread / WARP;
    if (a.thread == v.thread) return a.lane_clock <= v.lane_known[v.thread % WARP];
    if (wa == v.thread / WARP) return v.lane_known[a.thread % WARP] >= a.lane_clock;
    return v.warp_known[wa] >= a.warp_clock;
}

bool before(const access &a, const access &b) {
    if (a.block == b.block) return before_in_block(a, b);
    for (const acquired &got : state.acquisitions)
        if (in_view(a, *got.what) && before_in_block(got.when, b)) return true;
    return false;
}

// ---- reports

void print_place(uint32_t place) {
    char command[160], line[400];
    snprintf(command, sizeof command, "addr2line -sCpfie /proc/%d/exe 0x%x 2>/dev/null",
             (int)getpid(), place - 1);
    FILE *tool = popen(command, "r");
    bool told = false;
    while (tool && fgets(line, sizeof line, tool)) {
        fprintf(stderr, "    %s", line);
        told = true;
    }
    if (tool) pclose(tool);
    if (!told) fprintf(stderr, "    program + 0x%x\n", place);
}

void report(const char *what, const access &a, const access &b, const void *p) {
    if (!state.seen.insert({a.place, b.place}).second) return;
    if (++state.races > REPORTS_MAX) return;
    fprintf(stderr, "emulated device: %s, %d bytes at %p in block (%u,%u,%u)\n", what,
            __builtin_popcount(b.bytes), p, block_index.x, block_index.y, block_index.z);
    fprintf(stderr, "  thread %d\n", b.thread);
    print_place(b.place);
    if (!a.block) return;
    fprintf(stderr, "  thread %d of %s\n", a.thread,
            a.block == b.block              ? "the same block"
            : a.block >= state.launch_first ? "another block"
                                            : "an earlier grid");
    print_place(a.place);
}

// ---- memory

region find_region(const void *p) {
    if (p >= dynamic_smem && p < dynamic_smem + SMEM_MAX) return SHARED;
    if (p >= __executable_start && p < _end) return STATIC;
    return runtime::memory_find(p).kind == runtime::PAGEABLE ? HOST : GLOBAL;
}

word *find_word(uintptr_t at) {
    uintptr_t number = at >> PAGE_BITS;
    if (number != state.last_number) {
        std::unique_ptr<page> &p = state.pages[number];
        if (!p) p.reset(new page());
        state.last_number = number;
        state.last_page = p.get();
    }
    page *p = state.last_page;
    if (p->launch != state.launch) {
        p->launch = state.launch;
        p->where = find_region((const void *)at);
    }
    return &p->words[(at & ((1 << PAGE_BITS) - 1)) / 4];
}

// Whether what happened in `a` can still matter to a race.
bool alive(const access &a, region where) {
    if (!a.block) return false;
    return where == GLOBAL || where == HOST ? a.block >= state.chain_first : a.block == state.block;
}

void check_pair(const access &a, const access &me, const void *p) {
    bool conflict =
        (writes(a.kind) || writes(me.kind)) && !(is_atomic(a.kind) && is_atomic(me.kind));
    if (!(a.bytes & me.bytes) || !conflict) return;
    if (a.block < state.launch_first) {
        if (state.dependent && !state.waited[me.thread])
            report("memory of an earlier grid used before grid_wait", a, me, p);
    } else if (a.kind == PENDING && a.block == me.block &&
               !(me.kind == WRITE && a.thread == me.thread)) {
        report("memory used while a cp.async to it is under way", a, me, p);
    } else if (!before(a, me)) {
        report("race", a, me, p);
    } else if (a.by_switch != me.by_switch && a.block == me.block &&
               a.alias_fences == me.alias_fences) {
        report("memory used by two addresses without fence.proxy.alias", a, me, p);
    }
}

void keep(word *w, const access &me, region where) {
    access *into = nullptr;
    for (access &a : w->slots) {
        bool replaced =
            !alive(a, where) ||
            (a.thread == me.thread && a.block == me.block && a.kind == me.kind &&
             (a.bytes | me.bytes) == me.bytes) ||
            ((a.bytes | me.bytes) == me.bytes && a.block >= state.launch_first &&
             (writes(me.kind) || !writes(a.kind)) && !is_atomic(me.kind) && before(a, me));
        if (!replaced) continue;
        if (into)
            a.block = 0;
        else
            into = &a;
    }
    if (!into) into = &w->slots[w->victim++ % SLOTS];
    *into = me;
}

// Who accesses: the running thread, by a multicast address or by another; the copy engine for it,
// as the copy begins (in order after what the thread knows) and as it lands; the tensor cores for
// it.
enum actor { BY_THREAD, BY_COPY, BY_LANDING, BY_TENSOR_CORE, BY_SWITCH };

// What threads wrote is seen by the asynchronous proxy only after their fence.
void check_proxy(const access &a, const access &me, const void *p) {
    if (a.kind != WRITE || a.block != me.block || a.thread == ENGINE || !(a.bytes & me.bytes))
        return;
    if (state.proxy_fenced[a.thread] < a.lane_clock)
        report("shared memory that threads wrote read by wgmma without fence.proxy.async", a, me,
               p);
}

void note_word(uintptr_t at, uint8_t bytes, uint8_t kind, uint32_t place, actor who) {
    word *w = find_word(at);
    region where = state.last_page->where;
    int t = who == BY_LANDING ? (int)ENGINE : current->id;
    access me = {state.block,
                 state.warps[t / WARP][t / WARP],
                 state.lanes[t / WARP][t % WARP][t % WARP],
                 place,
                 (uint16_t)t,
                 bytes,
                 kind,
                 state.alias_fences,
                 who == BY_SWITCH};
    const void *p = (const void *)at;
    if (where == HOST) {
        report("memory of the host that is not pinned", {}, me, p);
        return;
    }
    if (who == BY_LANDING) {
        me.warp_clock = ~0u; // no barrier of the block tells of it
        me.lane_clock = state.engine_clock;
    }
    for (const access &a : w->slots) {
        if (!alive(a, where)) continue;
        check_pair(a, me, p);
        if (who == BY_TENSOR_CORE) check_proxy(a, me, p);
    }
    if (who == BY_COPY) {
        me.thread = ENGINE;
        me.warp_clock = ~0u;
        me.lane_clock = state.engine_clock + 1; // never told: landing takes its place
    }
    bool stale = where == SHARED   ? w->written_by != state.block || (bytes & ~w->written)
                 : where == STATIC ? w->written_by != 0 && w->written_by != state.block
                                   : false;
    if (!writes(kind) && stale) report("shared memory read that this block never wrote", {}, me, p);
    if (writes(kind)) {
        if (w->written_by != state.block) w->written = 0;
        w->written_by = state.block;
        w->written |= bytes;
    }
    keep(w, me, where);
}

void note_at(const void *p, size_t n, uint8_t kind, const void *pc, actor who = BY_THREAD) {
    if (!on || !current || n == 0 || is_own_memory(p)) return;
    uint32_t place = (uint32_t)((const char *)pc - __executable_start);
    for (uintptr_t at = (uintptr_t)p, end = at + n; at < end;) {
        uintptr_t base = at & ~(uintptr_t)3, stop = base + 4 < end ? base + 4 : end;
        note_word(base, (uint8_t)(((1u << (stop - at)) - 1) << (at - base)), kind, place, who);
        at = stop;
    }
}

// All that the members know, each of them knows from here on.
template <int N> void join(uint32_t (*known)[N], uint32_t members) {
    uint32_t all[N] = {};
    for (int i = 0; i < N; i++)
        if (members >> i & 1)
            for (int j = 0; j < N; j++)
                if (known[i][j] > all[j]) all[j] = known[i][j];
    for (int i = 0; i < N; i++)
        if (members >> i & 1) {
            memcpy(known[i], all, sizeof all);
            known[i][i]++;
        }
}

// The same for what came by mbarriers; `member` says who.
template <class F> void join_told(F member) {
    if (!state.mbarriers) return;
    knowledge all = {};
    for (int i = 0; i < state.threads; i++)
        if (member(i)) learn(&all, state.told[i]);
    for (int i = 0; i < state.threads; i++)
        if (member(i)) learn(&state.told[i], all);
}

std::shared_ptr<view> current_view() {
    auto v = std::make_shared<view>();
    int t = current->id;
    v->block = state.block;
    v->thread = t;
    memcpy(v->warp_known, state.warps[t / WARP], sizeof v->warp_known);
    memcpy(v->lane_known, state.lanes[t / WARP][t % WARP], sizeof v->lane_known);
    return v;
}

// The program ends badly if there was a race, whatever it thinks itself.
struct verdict {
    ~verdict() {
        if (state.races == 0) return;
        fflush(nullptr);
        fprintf(stderr, "emulated device: %d races\n", state.races);
        _exit(RACE_EXIT);
    }
} verdict_at_end;

} // namespace

void note(const void *p, size_t bytes, access_kind kind, const void *pc) {
    note_at(p, bytes, (uint8_t)kind, pc ? pc : __builtin_return_address(0));
}

void note_multimem(const void *p, size_t bytes, access_kind kind, const void *pc) {
    note_at(p, bytes, (uint8_t)kind, pc, BY_SWITCH);
}

void note_alias_fence() {
    state.alias_fences++;
}

void note_fence() {
    if (on && current) state.fenced[current->id] = true;
}

void note_release(const void *p) {
    if (!on || !current || !state.fenced[current->id]) return;
    auto &here = state.releases[p];
    here.push_back(current_view());
    for (const acquired &got : state.acquisitions) here.push_back(got.what);
}

void note_acquire(const void *p) {
    if (!on || !current) return;
    auto found = state.releases.find(p);
    if (found == state.releases.end()) return;
    int t = current->id;
    access now = {state.block,
                  state.warps[t / WARP][t / WARP],
                  state.lanes[t / WARP][t % WARP][t % WARP],
                  0,
                  (uint16_t)t,
                  0,
                  READ,
                  0,
                  false};
    for (const auto &v : found->second)
        if (v->block != state.block) state.acquisitions.push_back({v, now});
}

void race_synchronized() {
    state.synchronized = true;
}

void race_grid(const grid &g) {
    if (!on) return;
    // A grid that waits before it lets the next one start, or ends, has all before it done by then.
    uint32_t first = state.block + 1;
    if (!g.dependent || state.synchronized)
        state.chain_first = first;
    else if (!state.dependent || state.orderly)
        state.chain_first = state.launch_first;
    state.synchronized = false;
    state.launch_first = first;
    state.launch++;
    state.dependent = g.dependent;
    state.orderly = true;
    state.threads = (int)(g.threads.x * g.threads.y * g.threads.z);
    state.releases.clear();
}

void race_block() {
    if (!on) return;
    state.block++;
    state.acquisitions.clear();
    state.alias_fences = 0;
    memset(state.fenced, 0, sizeof state.fenced);
    memset(state.waited, 0, sizeof state.waited);
    if (state.mbarriers) {
        memset(state.told, 0, sizeof state.told);
        memset(state.proxy_fenced, 0, sizeof state.proxy_fenced);
        state.engine_clock = 0;
        state.passed.clear();
        state.mbarriers = false;
    }
    memset(state.warps, 0, sizeof state.warps);
    memset(state.lanes, 0, sizeof state.lanes);
    for (int w = 0; w < WARPS_MAX; w++) {
        state.warps[w][w] = 1;
        for (int l = 0; l < WARP; l++) state.lanes[w][l][l] = 1;
    }
}

void race_block_end() {
    if (!on || !state.dependent) return;
    bool any = false;
    for (int i = 0; i < state.threads; i++) any |= state.waited[i];
    state.orderly &= any;
}

void race_barrier(uint32_t warps) {
    if (!on) return;
    join_told([=](int t) { return warps >> t / WARP & 1; });
    join<WARPS_MAX>(state.warps, warps);
    bool waited = false;
    for (int i = 0; i < state.threads; i++)
        if (warps >> i / WARP & 1) waited |= state.waited[i];
    for (int i = 0; i < state.threads; i++)
        if (warps >> i / WARP & 1) state.waited[i] = waited;
    for (int w = 0; w < WARPS_MAX; w++)
        if (warps >> w & 1) join<WARP>(state.lanes[w], ~0u);
}

void race_warp(int w, unsigned mask) {
    if (!on) return;
    join_told([=](int t) { return t / WARP == w && (mask >> t % WARP & 1); });
    join<WARP>(state.lanes[w], mask);
}

void race_arrive(const void *mbarrier) {
    if (!on || !current) return;
    state.mbarriers = true;
    int t = current->id, w = t / WARP, l = t % WARP;
    knowledge mine = state.told[t];
    for (int i = 0; i < WARPS_MAX; i++) {
        uint32_t known = i == w ? state.warps[w][w] - 1 : state.warps[w][i];
        if (known > mine.warp[i]) mine.warp[i] = known;
    }
    for (int i = 0; i < WARP; i++)
        if (state.lanes[w][l][i] > mine.lane[w * WARP + i])
            mine.lane[w * WARP + i] = state.lanes[w][l][i];
    state.lanes[w][l][l]++; // what comes next is not before the arrival
    learn(&state.passed[mbarrier].arrived, mine);
}

void race_complete(const void *mbarrier) {
    if (!on || !current) return;
    mbarrier_knowledge &b = state.passed[mbarrier];
    b.completed = b.arrived;
}

void race_acquire(const void *mbarrier) {
    if (on && current) learn(&state.told[current->id], state.passed[mbarrier].completed);
}

void race_proxy_fence() {
    if (!on || !current) return;
    int t = current->id;
    state.proxy_fenced[t] = state.lanes[t / WARP][t % WARP][t % WARP]++;
}

void note_bulk_begin(const void *to, size_t bytes, const void *pc) {
    note_at(to, bytes, PENDING, pc, BY_COPY);
    if (!on || !current) return;
    int t = current->id; // the engine's write comes after what this thread knows, and did
    learn(&state.told[ENGINE], state.told[t]);
    for (int i = 0; i < WARPS_MAX; i++) {
        uint32_t known = i == t / WARP ? state.warps[i][i] - 1 : state.warps[t / WARP][i];
        if (known > state.told[ENGINE].warp[i]) state.told[ENGINE].warp[i] = known;
    }
    for (int i = 0; i < WARP; i++) {
        uint32_t known = state.lanes[t / WARP][t % WARP][i], *told = state.told[ENGINE].lane;
        if (known > told[t / WARP * WARP + i]) told[t / WARP * WARP + i] = known;
    }
}

void note_bulk_landed(const void *to, size_t bytes, const void *mbarrier, const void *pc) {
    if (!on || !current) return;
    state.mbarriers = true;
    state.engine_clock++;
    note_at(to, bytes, WRITE, pc, BY_LANDING);
    state.passed[mbarrier].arrived.lane[ENGINE] = state.engine_clock;
}

void note_wgmma_read(const void *p, size_t bytes, const void *pc) {
    note_at(p, bytes, READ, pc, BY_TENSOR_CORE);
}

void race_grid_wait() {
    if (on) state.waited[current->id] = true;
}

void race_launch_dependents() {
    if (on && state.dependent && !state.waited[current->id]) state.orderly = false;
}

int race_count() {
    return state.races;
}

} // namespace simt

// ---- the compiler's hooks

#define PC __builtin_return_address(0)
#define HOOKS(n)                                                                                   \
    void __tsan_read##n(void *p) {                                                                 \
        simt::note_at(p, n, simt::READ, PC);                                                       \
    }                                                                                              \
    void __tsan_write##n(void *p) {                                                                \
        simt::note_at(p, n, simt::WRITE, PC);                                                      \
    }                                                                                              \
    void __tsan_unaligned_read##n(void *p) {                                                       \
        simt::note_at(p, n, simt::READ, PC);                                                       \
    }                                                                                              \
    void __tsan_unaligned_write##n(void *p) {                                                      \
        simt::note_at(p, n, simt::WRITE, PC);                                                      \
    }

extern "C" {
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(void *p, size_t n) {
    simt::note_at(p, n, simt::READ, PC);
}
void __tsan_write_range(void *p, size_t n) {
    simt::note_at(p, n, simt::WRITE, PC);
}
void *__tsan_memcpy(void *to, const void *from, size_t n) {
    simt::note_at(from, n, simt::READ, PC);
    simt::note_at(to, n, simt::WRITE, PC);
    return memcpy(to, from, n);
}
void *__tsan_memset(void *to, int value, size_t n) {
    simt::note_at(to, n, simt::WRITE, PC);
    return memset(to, value, n);
}
void __tsan_init(void) {
    simt::on = true;
} // called by each instrumented file
int __tsan_atomic32_fetch_add(volatile int *p, int v, int) { // the host's reference counts
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
}
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void) {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
}
