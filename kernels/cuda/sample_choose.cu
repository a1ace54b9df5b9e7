// sample_choose: the two kernels that have a row to themselves: what top-k, top-p and min-p leave,
// the draw among it, and the most probable tokens.
//
// What a filter leaves is the tokens heavier than some weight and, of those that weigh as much, the
// ones up to some token: a cut. It is found digit by digit (radix.h) and nothing is sorted. After
// the first digit, whose bins the weigh kernel has made, the tokens in the bin that was hit and in
// heavier bins are usually few: they are gathered in shared memory, and all that follows looks at
// them instead of the vocabulary. In what order they come to lie there does not matter.
#include "device.h"

#include "kernels/cuda/sample_row.h"

enum { LIST_MAX = 2048, NO_TOKEN = INT32_MAX };

// Up to N tokens and their keys (a weight's bits, or sampling_key of a logit), in any order.
template <int N> struct token_list {
    uint32_t key[N];
    int32_t token[N];
    int count; // may pass N: then it holds only some of them
};

struct cut {
    uint32_t key;
    int32_t token; // what stays: larger keys, and equal ones up to this token
};

__device__ static bool stays(const cut &c, uint32_t key, int32_t token) {
    return key > c.key || (key == c.key && token <= c.token);
}

// The vocabulary by weight. A weight without mass is nobody: it would not be drawn.
struct weights {
    const float *x;
    int count;
    __device__ void get(int i, uint32_t *key, int32_t *token, bool *is) const {
        const float weight = x[i];
        *key = sampling_bits(weight);
        *token = i;
        *is = sampling_mass(weight) > 0;
    }
};

// The vocabulary by raw logit.
struct raw_logits {
    const sample_memory &m;
    sample_logits logits;
    int count;
    __device__ void get(int i, uint32_t *key, int32_t *token, bool *is) const {
        *key = sampling_key(sample_raw(m, logits, i));
        *token = i;
        *is = true;
    }
};

struct listed {
    const token_list<LIST_MAX> *list;
    int count;
    __device__ void get(int i, uint32_t *key, int32_t *token, bool *is) const {
        *key = list->key[i];
        *token = list->token[i];
        *is = true;
    }
};

// f(is, key, token) for each element of a source; whole warps call it, with is false past the end.
template <class S, class F> __device__ static void for_each(const S &source, F f) {
    for (int at = 0; at < source.count; at += RADIX_THREADS) {
        const int i = at + threadIdx.x;
        uint32_t key = 0;
        int32_t token = 0;
        bool is = false;
        if (i < source.count) source.get(i, &key, &token, &is);
        f(is, key, token);
    }
}

// Elements with wanted(key, token) go to the list. Returns whether they all fit.
template <class S, class F, int N>
__device__ static bool gather(const S &source, F wanted, token_list<N> *list) {
    __syncthreads();
    if (threadIdx.x == 0) list->count = 0;
    __syncthreads();
    for_each(source, [&](bool is, uint32_t key, int32_t token) {
        const bool take = is && wanted(key, token);
        const unsigned takers = __ballot_sync(~0u, take), lane = threadIdx.x % 32;
        if (takers == 0) return;
        const int leader = __ffs((int)takers) - 1;
        int at = 0;
        if ((int)lane == leader) at = atomicAdd(&list->count, __popc(takers));
        at = __shfl_sync(~0u, at, leader) + __popc(takers & ((1u << lane) - 1));
        if (!take || at >= N) return;
        list->key[at] = key;
        list->token[at] = token;
    });
    __syncthreads();
    return list->count <= N;
}

// The same for keys of which the upper bits are at least `least`.
template <class S>
__device__ static bool gather_from(const S &source, int shift, uint32_t least,
                                   token_list<LIST_MAX> *list) {
    return gather(
        source, [=](uint32_t key, int32_t) { return key >> shift >= least; }, list);
}

// How far a walk from the largest key down shall go, and what a key counts for in it.
template <class T> struct by_count {
    T target;
    __device__ T value(uint32_t) const { return 1; }
};
struct by_mass {
    radix_u64 target;
    __device__ radix_u64 value(uint32_t key) const { return sampling_mass(sampling_float(key)); }
};

// Where the walk stands after some digits: at keys with key >> shift == digits; `left` of the
// target lies in them or beyond.
template <class T> struct walk_place {
    uint32_t digits;
    int shift;
    T left;
};

// Goes to the bin that the walk over the histogram hit. False: the walk reached the end before.
template <class T>
__device__ static bool enter_bin(const radix_walk<T> *walk, int shift, walk_place<T> *place) {
    if (walk->hit < 0) return false;
    place->digits = place->digits << (place->shift - shift) | (uint32_t)walk->hit;
    place->shift = shift;
    place->left -= walk->before;
    return true;
}

// key >> shift where shift may be all 32 bits.
__device__ static uint32_t upper(uint32_t key, int shift) {
    return shift > 31 ? 0 : key >> shift;
}

template <class S, class W, class T>
__device__ static bool next_digit(const S &source, const W &rule, int shift, radix_walk<T> *walk,
                                  walk_place<T> *place) {
    radix_clear(walk);
    for_each(source, [&](bool is, uint32_t key, int32_t) {
        const uint32_t digit = (key >> shift) & ((1u << (place->shift - shift)) - 1);
        radix_add(walk, is && upper(key, place->shift) == place->digits, digit, rule.value(key));
    });
    radix_find<true>(walk, place->left);
    return enter_bin(walk, shift, place);
}

// The n-th token, from the first, of those with this key; NO_TOKEN if that is the last.
template <class S, class T>
__device__ static int32_t nth_token(const S &source, uint32_t wanted, T n, radix_walk<T> *walk) {
    walk_place<T> place = {0, 22, n};
    for (int shift = 11; shift >= 0; shift -= 11) {
        radix_clear(walk);
        for_each(source, [&](bool is, uint32_t key, int32_t token) {
            const uint32_t id = (uint32_t)token;
            radix_add(walk, is && key == wanted && id >> place.shift == place.digits,
                      (id >> shift) & (SAMPLE_BINS - 1), (T)1);
        });
        radix_find<false>(walk, place.left);
        enter_bin(walk, shift, &place);
    }
    return (int32_t)place.digits;
}

// The digits of a key below `place`, and the cut that they lead to.
template <class S, class W, class T>
__device__ static cut finish_cut(const S &source, const W &rule, walk_place<T> place,
                                 radix_walk<T> *walk) {
    while (place.shift > 0)
        next_digit(source, rule, place.shift > 11 ? place.shift - 11 : 0, walk, &place);
    const T value = rule.value(place.digits);
    const T wanted = (place.left + value - 1) / value; // of the tokens with this very key
    const T there = walk->bin[walk->hit] / value;
    const cut whole = {place.digits, NO_TOKEN};
    if (wanted == there) return whole;
    return {place.digits, nth_token(source, place.digits, wanted, walk)};
}

struct choose_memory {
    radix_walk<radix_u64> walk;
    token_list<LIST_MAX> list;
};

// The row at hand. `listed`: the list holds all that can stay, and is looked at in the place of
// the vocabulary.
struct row_state {
    choose_memory *memory;
    weights all;
    bool listed;
    cut stays; // what the filters so far leave; key 0: all
};

template <class F> __device__ static void for_each_left(const row_state &r, F f) {
    if (r.listed)
        for_each(listed{&r.memory->list, r.memory->list.count}, f);
    else
        for_each(r.all, f);
}

// Cuts where the walk by `rule` ends. `bins`: the histogram of the first digit, or null.
template <class W>
__device__ static void keep_heaviest(row_state *r, const W &rule, const uint64_t *bins) {
    radix_walk<radix_u64> *walk = &r->memory->walk;
    walk_place<radix_u64> place = {0, 30, rule.target};
    bool found;
    if (bins) {
        radix_clear(walk);
        for (int b = threadIdx.x; b < SAMPLE_BINS; b += RADIX_THREADS) walk->bin[b] = bins[b];
        radix_find<true>(walk, place.left);
        found = enter_bin(walk, SAMPLE_WEIGHT_SHIFT, &place);
    } else if (r->listed) {
        const listed source = {&r->memory->list, r->memory->list.count};
        found = next_digit(source, rule, SAMPLE_WEIGHT_SHIFT, walk, &place);
    } else {
        found = next_digit(r->all, rule, SAMPLE_WEIGHT_SHIFT, walk, &place);
    }
    if (!found) return; // all stay
    if (!r->listed) r->listed = gather_from(r->all, place.shift, place.digits, &r->memory->list);
    if (r->listed) {
        const listed source = {&r->memory->list, r->memory->list.count};
        r->stays = finish_cut(source, rule, place, walk);
    } else {
        r->stays = finish_cut(r->all, rule, place, walk);
    }
}

__device__ static radix_u64 mass_left(const row_state &r) {
    radix_u64 mass = 0;
    for_each_left(r, [&](bool is, uint32_t key, int32_t token) {
        if (is && stays(r.stays, key, token)) mass += sampling_mass(sampling_float(key));
    });
    return radix_sum(mass, r.memory->walk.warp);
}

__device__ static void apply_filters(row_state *r, const sample_row &row, radix_u64 mass,
                                     const uint64_t *bins) {
    const sample_filter first = sample_first_filter(row, r->all.count);
    if (first == SAMPLE_TOP_K) {
        keep_heaviest(r, by_count<radix_u64>{(radix_u64)row.top_k}, bins);
        mass = mass_left(*r);
    }
    if (row.top_p < 1) {
        const radix_u64 target = sampling_top_p_mass(row.top_p, mass);
        keep_heaviest(r, by_mass{target}, first == SAMPLE_TOP_P ? bins : nullptr);
    }
    const uint32_t least = sampling_bits(row.min_p);
    if (least <= r->stays.key) return;
    r->stays = {least, NO_TOKEN};
    if (!r->listed) r->listed = gather_from(r->all, 0, least, &r->memory->list);
}

// Mass by the upper digit of the token, of what is left. Without a cut, the chunks have it.
__device__ static radix_u64 upper_histogram(const row_state &r, const sample_chunk *chunks,
                                            int chunk_count) {
    radix_walk<radix_u64> *walk = &r.memory->walk;
    static_assert(SAMPLE_CHUNK == SAMPLE_BINS, "a chunk is a bin of the upper digit");
    radix_clear(walk);
    if (r.stays.key == 0) {
        for (int c = threadIdx.x; c < chunk_count; c += RADIX_THREADS)
            walk->bin[c] = chunks[c].mass;
    } else {
        for_each_left(r, [&](bool is, uint32_t key, int32_t token) {
            const bool take = is && stays(r.stays, key, token);
            radix_add(walk, take, (uint32_t)token / SAMPLE_BINS,
                      (radix_u64)sampling_mass(sampling_float(key)));
        });
    }
    __syncthreads();
    radix_u64 mass = 0;
    for (int b = threadIdx.x; b < SAMPLE_BINS; b += RADIX_THREADS) mass += walk->bin[b];
    return radix_sum(mass, walk->warp);
}

// Mass by token, of what is left of one chunk. Tokens are all different: no two write one bin.
__device__ static void lower_histogram(const row_state &r, int chunk) {
    radix_walk<radix_u64> *walk = &r.memory->walk;
    radix_clear(walk);
    const int begin = chunk * SAMPLE_BINS, end = min(begin + SAMPLE_BINS, r.all.count);
    if (r.listed) {
        for (int i = threadIdx.x; i < r.memory->list.count; i += RADIX_THREADS) {
            const uint32_t key = r.memory->list.key[i];
            const int32_t token = r.memory->list.token[i];
            if (token >= begin && token < end && stays(r.stays, key, token))
                walk->bin[token - begin] = sampling_mass(sampling_float(key));
        }
    } else {
        for (int token = begin + threadIdx.x; token < end; token += RADIX_THREADS)
            if (stays(r.stays, sampling_bits(r.all.x[token]), token))
                walk->bin[token - begin] = sampling_mass(r.all.x[token]);
    }
}

// The token at whose mass a walk in the order of tokens passes random / 2^64 of all.
__device__ static int draw(const row_state &r, const sample_row &row, const sample_chunk *chunks,
                           int chunk_count) {
    radix_walk<radix_u64> *walk = &r.memory->walk;
    radix_u64 left = sampling_scale(row.random, upper_histogram(r, chunks, chunk_count)) + 1;
    radix_find<false>(walk, left);
    const int chunk = walk->hit;
    left -= walk->before;
    lower_histogram(r, chunk);
    radix_find<false>(walk, left);
    return chunk * SAMPLE_BINS + walk->hit;
}

__device__ static int choose_token(const sample_memory &m, const sample_row &row, int batch_row,
                                   const sample_summary &all, choose_memory *memory) {
    if (row.judged >= 0) return row.judged;
    if (all.max == sampling_float(0xFF800000u)) return -1; // no token is allowed
    if (!sample_draws(row)) return all.best;
    const sample_chunk *chunks = m.chunks + (size_t)batch_row * m.chunk_count;
    row_state r = {memory, {m.x + (size_t)batch_row * m.vocab, m.vocab}, false, {0, NO_TOKEN}};
    radix_u64 mass = 0;
    for (int c = threadIdx.x; c < m.chunk_count; c += RADIX_THREADS) mass += chunks[c].mass;
    mass = radix_sum(mass, memory->walk.warp);
    apply_filters(&r, row, mass, m.bins + (size_t)batch_row * SAMPLE_BINS);
    return draw(r, row, chunks, m.chunk_count);
}

// Row blockIdx.x of the batch.
__global__ static void __launch_bounds__(RADIX_THREADS)
    sample_choose_kernel(const sample_memory m, const float *logits, int first_row) {
    DYN_SMEM(dynamic);
    choose_memory *memory = reinterpret_cast<choose_memory *>(dynamic);
    grid_wait();
    grid_launch_dependents();
    const sample_row row = m.rows[first_row + blockIdx.x];
    if (row.slot < 0) return;
    const sample_summary all = sample_summarise(m, blockIdx.x, memory->walk.warp);
    const int token = all.bad ? -1 : choose_token(m, row, blockIdx.x, all, memory);
    radix_u64 raw_mass = 0;
    if (sample_reports(row) && !all.bad)
        for (int c = threadIdx.x; c < m.chunk_count; c += RADIX_THREADS)
            raw_mass += m.chunks[(size_t)blockIdx.x * m.chunk_count + c].raw_mass;
    raw_mass = radix_sum(raw_mass, memory->walk.warp);
    if (threadIdx.x != 0) return;
    sample_result *out = &m.results[first_row + blockIdx.x];
    out->token = token;
    out->top_count = 0;
    out->mass = raw_mass;
    out->max = all.raw_max;
    const sample_logits raw = {logits, (int)blockIdx.x, (int)gridDim.x};
    out->logit = token < 0 ? 0 : sample_raw(m, raw, token);
    if (row.judged >= 0 || token < 0) return;
    m.tokens[row.slot] = token;
    if (!row.has_history) return;
    int32_t *count = &m.counts[(size_t)row.slot * m.vocab + token];
    *count = (*count | SAMPLE_SEEN) + 1;
}

struct top_memory {
    radix_walk<uint32_t> walk;
    token_list<LIST_MAX> list;
    token_list<KERNELS_TOP_MAX> top;
};

// What stays of a source, `count` of the heaviest, in memory->top.
template <class S>
__device__ static void take_top(const S &source, const by_count<uint32_t> &rule,
                                const walk_place<uint32_t> &place, bool all, top_memory *memory) {
    const cut c = all ? cut{0, NO_TOKEN} : finish_cut(source, rule, place, &memory->walk);
    gather(
        source, [=](uint32_t key, int32_t token) { return stays(c, key, token); }, &memory->top);
}

// Each finds its place by counting those before it.
__device__ static void write_top(const token_list<KERNELS_TOP_MAX> &top, sample_result *out) {
    const int i = threadIdx.x;
    if (i == 0) out->top_count = top.count;
    if (i >= top.count) return;
    int place = 0;
    for (int j = 0; j < top.count; j++)
        place +=
            top.key[j] > top.key[i] || (top.key[j] == top.key[i] && top.token[j] < top.token[i]);
    out->top_id[place] = top.token[i];
    out->top_logit[place] = sample_float_of_key(top.key[i]);
}

// Row blockIdx.x of the batch.
__global__ static void __launch_bounds__(RADIX_THREADS)
    sample_top_kernel(const sample_memory m, const float *logits, int first_row) {
    DYN_SMEM(dynamic);
    top_memory *memory = reinterpret_cast<top_memory *>(dynamic);
    grid_wait();
    grid_launch_dependents();
    const sample_row row = m.rows[first_row + blockIdx.x];
    sample_result *out = &m.results[first_row + blockIdx.x];
    if (row.slot < 0 || row.logprobs <= 0 || out->token < 0) return;
    const raw_logits source = {m, {logits, (int)blockIdx.x, (int)gridDim.x}, m.vocab};
    const by_count<uint32_t> rule = {(uint32_t)row.logprobs};
    walk_place<uint32_t> place = {0, 32, rule.target};
    const bool all = !next_digit(source, rule, 21, &memory->walk, &place);
    if (gather_from(source, place.shift & 31, all ? 0 : place.digits, &memory->list))
        take_top(listed{&memory->list, memory->list.count}, rule, place, all, memory);
    else
        take_top(source, rule, place, all, memory);
    write_top(memory->top, out);
}

cudaError_t sample_choose(cudaStream_t stream, const sample_memory *memory, const float *logits,
                          int row, int count, bool largest_only) {
    const dim3 grid((unsigned)count), block(RADIX_THREADS);
    cudaError_t e = launch_dependent(sample_choose_kernel, grid, block, sizeof(choose_memory),
                                     stream, *memory, logits, row);
    if (e != cudaSuccess || largest_only) return e;
    return launch_dependent(sample_top_kernel, grid, block, sizeof(top_memory), stream, *memory,
                            logits, row);
}
