#include "worker/numbers.h"

#include <string.h>

#include "worker/reduce.h"

// A multiply and a rotation for each eight bytes: against faults, not against people.
uint64_t numbers_hash(const void *bytes, size_t size) {
    const uint64_t factor = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t hash = size * factor;
    const char *at = bytes;
    for (size_t left = size; left > 0;) {
        uint64_t word = 0;
        size_t n = left < sizeof word ? left : sizeof word;
        memcpy(&word, at, n);
        hash = (hash ^ word) * factor;
        hash = hash << 29 | hash >> 35;
        at += n;
        left -= n;
    }
    return hash;
}

// By their exponents, all ones in NaN and infinity: loops that a compiler turns into vectors.
bool numbers_all_finite(const float *x, size_t count) {
    const uint32_t exponent = UINT32_C(0x7f800000);
    uint32_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (bits & exponent) == exponent;
    }
    return bad == 0;
}

bool numbers_all_finite_doubles(const double *x, size_t count) {
    const uint64_t exponent = UINT64_C(0x7ff0000000000000);
    uint64_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (bits & exponent) == exponent;
    }
    return bad == 0;
}

static bool same(const numbers_report *a, const numbers_report *b) {
    return a->words == b->words && a->row == b->row;
}

// The first rank that fewer than half agree with; of two that differ, the one that does not lead.
static int odd_one(const numbers_report *all, int ranks) {
    for (int i = ranks - 1; i >= 0; i--) {
        int agree = 0;
        for (int k = 0; k < ranks; k++) agree += same(&all[i], &all[k]);
        if (2 * agree <= ranks) return i;
    }
    return -1;
}

static status judge_bad(const numbers_report *all, int ranks, int *rank) {
    int first = 0, with_it = 0, bad_row = -1;
    for (int i = 1; i < ranks; i++)
        if (all[i].first_bad < all[first].first_bad) first = i;
    for (int i = ranks - 1; i >= 0; i--) {
        with_it += all[i].first_bad == all[first].first_bad;
        if (all[i].row_bad) bad_row = i;
    }
    if (all[first].first_bad != REDUCE_ALL_FINITE) {
        *rank = with_it == ranks && ranks > 1 ? -1 : first;
        return status_error(
            STATUS_DATA_LOSS,
            "NaN or infinity in the activations, first on %s, in sum %d of the step",
            *rank < 0 ? "all ranks at once" : "this rank", all[first].first_bad);
    }
    if (bad_row < 0) return status_ok();
    *rank = ranks == 1 ? 0 : -1;
    for (int i = 0, bad = 0; i < ranks; i++)
        if (all[i].row_bad && ++bad == 1)
            *rank = i;
        else if (all[i].row_bad)
            *rank = -1; // more than one
    return status_error(STATUS_DATA_LOSS, "NaN or infinity in the activations");
}

static status judge_stage(const numbers_report *all, int ranks, cluster_failure *code, int *rank) {
    *rank = -1;
    *code = CLUSTER_FAILED_NUMBERS;
    TRY(judge_bad(all, ranks, rank));
    *code = CLUSTER_FAILED_CHECKSUM;
    int odd = 0;
    while (odd < ranks && same(&all[odd], &all[0])) odd++;
    if (odd == ranks) return status_ok();
    *rank = odd_one(all, ranks);
    const char *what = all[odd].words != all[0].words ? "the tokens of a step" : "a sum over ranks";
    return status_error(STATUS_DATA_LOSS, "ranks disagree about %s%s", what,
                        ranks == 2 ? "; of two ranks either may be the wrong one" : "");
}

// In the order of the layers: what a stage computed wrong the next ones were only told.
static status judge_stages(const numbers_report *all, const shard *shards, int ranks,
                           cluster_failure *code, int *rank) {
    int stages = shard_find_place(shards, ranks, 0).stages;
    for (int stage = 0; stage < stages; stage++) {
        shard_place p = shard_find_stage(shards, ranks, stage);
        status s = judge_stage(all + p.first, p.ranks, code, rank);
        if (*rank >= 0) *rank += p.first;
        if (status_is_ok(&s)) continue;
        return stages > 1 ? status_context(s, "stage %d", stage) : s;
    }
    return status_ok();
}

status numbers_judge(const numbers_report *all, const shard *shards, int ranks,
                     cluster_failure *code, int *rank) {
    TRY(judge_stages(all, shards, ranks, code, rank));
    for (int i = 1; i < ranks; i++) {
        if (all[i].words == all[0].words) continue; // within a stage they are equal
        *rank = shard_find_place(shards, ranks, i).ranks == 1 ? i : -1;
        return status_error(STATUS_DATA_LOSS, "stages disagree about the tokens of a step");
    }
    return status_ok();
}
