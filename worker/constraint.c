#include "worker/constraint.h"

#include <stdlib.h>
#include <string.h>

#include "common/model/grammar_matcher.h"

enum { IDLE_MAX = 16 }; // grammars that are kept while no slot has them

// A grammar that was compiled.
typedef struct compiled {
    struct compiled *next;
    grammar_source source; // its text is owned
    grammar *grammar;
    grammar_masks *masks;
    int slots;     // that have it
    uint64_t used; // when it was last asked for
} compiled;

typedef struct slot_state {
    compiled *under; // NULL: no grammar
    grammar_matcher *matcher;
    uint32_t *mask; // (words); kept from sequence to sequence
} slot_state;

struct constraints {
    const tokenizer *tokens;
    grammar_vocab *vocab;
    slot_state *slots; // (slot_count)
    int slot_count;
    compiled *all;
    uint64_t clock;
};

static status no_memory(void) {
    return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a sequence's grammar");
}

status constraints_create(const tokenizer *tokens, int32_t vocab, int slots, constraints **out) {
    constraints *c = calloc(1, sizeof *c);
    if (!c) return no_memory();
    *c = (constraints){.tokens = tokens, .slot_count = slots};
    c->slots = calloc((size_t)slots, sizeof *c->slots);
    status s = c->slots ? grammar_vocab_create(tokens, vocab, &c->vocab) : no_memory();
    if (status_is_ok(&s))
        *out = c;
    else
        constraints_destroy(c);
    return s;
}

static void free_compiled(compiled *one) {
    grammar_masks_destroy(one->masks);
    grammar_destroy(one->grammar);
    free((char *)one->source.text);
    free(one);
}

static void close_slot(slot_state *s) {
    grammar_matcher_destroy(s->matcher);
    if (s->under) s->under->slots--;
    s->matcher = NULL;
    s->under = NULL;
}

void constraints_destroy(constraints *c) {
    if (!c) return;
    for (int i = 0; c->slots && i < c->slot_count; i++) {
        close_slot(&c->slots[i]);
        free(c->slots[i].mask);
    }
    for (compiled *one = c->all, *next; one; one = next) {
        next = one->next;
        free_compiled(one);
    }
    grammar_vocab_destroy(c->vocab);
    free(c->slots);
    free(c);
}

// ---- grammars

static compiled *find(constraints *c, const grammar_source *s) {
    for (compiled *one = c->all; one; one = one->next)
        if (one->source.kind == s->kind && one->source.size == s->size &&
            (s->size == 0 || !memcmp(one->source.text, s->text, s->size)))
            return one;
    return NULL;
}

// Keeps no more idle ones than are wanted: the one that was not asked for longest goes.
static void drop_idle(constraints *c) {
    int idle = 0;
    compiled **oldest = NULL;
    for (compiled **link = &c->all; *link; link = &(*link)->next) {
        if ((*link)->slots > 0) continue;
        idle++;
        if (!oldest || (*link)->used < (*oldest)->used) oldest = link;
    }
    if (idle <= IDLE_MAX) return;
    compiled *gone = *oldest;
    *oldest = gone->next;
    free_compiled(gone);
}

static status compile(constraints *c, const grammar_source *s, compiled **out) {
    compiled *one = calloc(1, sizeof *one);
    char *text = malloc(s->size + 1);
    if (!one || !text) {
        free(one);
        free(text);
        return no_memory();
    }
    if (s->size > 0) memcpy(text, s->text, s->size);
    text[s->size] = 0;
    one->source = (grammar_source){s->kind, text, s->size};
    status made = grammar_compile(&one->source, &c->vocab->alphabet, &one->grammar);
    if (status_is_ok(&made)) made = grammar_masks_create(one->grammar, c->vocab, &one->masks);
    if (!status_is_ok(&made)) {
        free_compiled(one);
        return status_context(made, "a sequence's grammar");
    }
    one->next = c->all;
    c->all = one;
    *out = one;
    return made;
}

// ---- slots

static status replay(slot_state *s, const int32_t *answer, int count) {
    for (int i = 0; i < count; i++)
        if (!grammar_matcher_take(s->matcher, answer[i]))
            return status_error(STATUS_INVALID_ARGUMENT,
                                "a sequence opens with an answer that its grammar does not allow");
    return status_ok();
}

status constraints_open(constraints *c, int slot, const grammar_source *source,
                        const int32_t *answer, int count) {
    slot_state *s = &c->slots[slot];
    close_slot(s);
    drop_idle(c);
    if (source->kind == GRAMMAR_NONE) return status_ok();
    compiled *one = find(c, source);
    if (!one) TRY(compile(c, source, &one));
    one->used = ++c->clock;
    if (!s->mask) s->mask = calloc(grammar_vocab_words(c->vocab), sizeof *s->mask);
    s->matcher = grammar_matcher_create(one->masks);
    if (!s->mask || !s->matcher) {
        close_slot(s);
        return no_memory();
    }
    s->under = one;
    one->slots++;
    return replay(s, answer, count);
}

bool constraints_has(const constraints *c, int slot) {
    return c->slots[slot].under != NULL;
}

const uint32_t *constraints_mask(constraints *c, int slot) {
    slot_state *s = &c->slots[slot];
    if (!s->under || !c->vocab->has_stops) return NULL;
    grammar_matcher_mask(s->matcher, s->mask);
    return s->mask;
}

void constraints_take(constraints *c, int slot, int32_t token) {
    slot_state *s = &c->slots[slot];
    if (s->under) grammar_matcher_take(s->matcher, token);
}
