// Any bytes as a grammar: an error is one line; what is accepted can be answered: no mask is empty,
// each token of a mask is taken, and the end of an answer is where it is said to be.
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/grammar_matcher.h"
#include "tests/unit/common/model/byte_tokenizer.h"

enum { WORDS = (BYTE_TOKENIZER_SIZE + 31) / 32, STEPS = 48 };

static grammar_vocab *vocabulary(void) {
    static grammar_vocab *v;
    if (v) return v;
    tokenizer *t = byte_tokenizer_open(NULL);
    assert(t);
    status s = grammar_vocab_create(t, BYTE_TOKENIZER_SIZE, &v);
    assert(status_is_ok(&s));
    return v;
}

static int32_t pick(const uint32_t *mask, uint32_t random) {
    int32_t allowed[BYTE_TOKENIZER_SIZE], count = 0;
    for (int32_t t = 0; t < BYTE_TOKENIZER_SIZE; t++)
        if (mask[t / 32] >> t % 32 & 1) allowed[count++] = t;
    assert(count > 0);
    return allowed[random % (uint32_t)count];
}

static void answer(const grammar *g, uint32_t random) {
    grammar_masks *m = NULL;
    status s = grammar_masks_create(g, vocabulary(), &m);
    assert(status_is_ok(&s));
    grammar_matcher *x = grammar_matcher_create(m);
    assert(x);
    for (int i = 0; i < STEPS; i++) {
        uint32_t mask[WORDS];
        grammar_matcher_mask(x, mask);
        bool ends = mask[BYTE_TOKENIZER_END / 32] >> BYTE_TOKENIZER_END % 32 & 1;
        assert(ends == grammar_matcher_may_end(x));
        random = random * 1664525 + 1013904223;
        bool taken = grammar_matcher_take(x, pick(mask, random >> 8));
        assert(taken);
    }
    grammar_matcher_destroy(x);
    grammar_masks_destroy(m);
}

// A byte for the kind, one for the answer's seed, then the source.
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    if (size < 2) return 0;
    grammar_source source = {(grammar_kind)(data[0] % GRAMMAR_KINDS), (const char *)data + 2,
                             size - 2};
    grammar *g = NULL;
    status s = grammar_compile(&source, &vocabulary()->alphabet, &g);
    assert(!strchr(s.message, '\n'));
    if (!status_is_ok(&s)) return 0;
    assert(grammar_states(g) <= GRAMMAR_STATES_MAX);
    answer(g, data[1]);
    grammar_destroy(g);
    return 0;
}
