// grammar_matcher: which tokens an answer may go on with. A matcher is one answer's state; the
// masks behind it are shared by all answers under one grammar, and remember what they found.
//
// What costs is the walk through the vocabulary's tree. Most of what is found there depends on the
// state of one rule alone, not on the rules around it: inside of a string nearly every token stays
// inside, wherever the string stands. So for each state of a rule that walk is made once and kept:
// the tokens that stay within the rule, and the nodes of the tree at which the rule may end; only
// the children of these are walked again, with what the answer's frames say. (XGrammar, Dong et al.
// 2024, splits its vocabulary so.) In a walk the sets of places that stand on the lowest frame are
// numbered and their transitions kept, so it is a table look-up for each node of the tree.
//
// What is kept changes no mask: it is a function of grammar, vocabulary and the bytes so far.
#ifndef OCTANT_MODEL_GRAMMAR_MATCHER_H
#define OCTANT_MODEL_GRAMMAR_MATCHER_H

#include "common/model/grammar.h"
#include "common/model/grammar_vocab.h"

typedef struct grammar_masks grammar_masks; // for one thread at a time, with all its matchers

// Both outlive it. RESOURCE_EXHAUSTED.
status grammar_masks_create(const grammar *g, const grammar_vocab *v, grammar_masks **out);
void grammar_masks_destroy(grammar_masks *m); // NULL is allowed; its matchers are gone

typedef struct grammar_matcher grammar_matcher;

// At the start of an answer. NULL when memory is short.
grammar_matcher *grammar_matcher_create(grammar_masks *m);
void grammar_matcher_destroy(grammar_matcher *x); // NULL is allowed

// The answer goes on by a token. False: it may not; the state is as before. A token that ends the
// answer is taken where it may end; only such tokens may follow it.
bool grammar_matcher_take(grammar_matcher *x, int32_t token);

// mask (grammar_vocab_words) = the tokens that may follow; never empty where the vocabulary has a
// token that ends answers.
void grammar_matcher_mask(grammar_matcher *x, uint32_t *mask);

bool grammar_matcher_may_end(const grammar_matcher *x);

#endif
