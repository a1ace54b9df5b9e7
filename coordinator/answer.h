// answer: what the core says about one request, in the words that every edge shares: pieces, then
// exactly one end. The structs only borrow their arrays: they are valid during the call that passes
// them.
#ifndef OCTANT_COORDINATOR_ANSWER_H
#define OCTANT_COORDINATOR_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"
#include "proto/cluster_msg.h"

typedef enum answer_finish {
    ANSWER_GOES_ON,
    ANSWER_STOP,   // an end-of-answer token or a stop text
    ANSWER_LENGTH, // max_tokens or the context is used up
} answer_finish;

// "stop", "length"; NULL for ANSWER_GOES_ON. As OpenAI's API spells them.
const char *answer_finish_name(answer_finish finish);

typedef struct answer_logprob {
    float logprob; // NaN: nothing precedes the token (the first of a prompt)
    const token_choice *top;
    int top_count;
} answer_logprob;

// A part of the text of one of the n answers. The texts of an index put together are the answer.
typedef struct answer_piece {
    int index;   // which of the request's n answers
    bool prompt; // the tokens are the prompt's (echo with logprobs); comes first, without text
    const char
        *text; // valid UTF-8, may be empty; held back until it cannot be the start of a stop text
    size_t size;
    const int32_t
        *tokens; // the tokens sampled since the last piece (NOT always those that spell `text`)
    int token_count;
    const answer_logprob *logprobs; // (token_count), or NULL when none were asked for
    answer_finish finish; // not ANSWER_GOES_ON on the last piece of an index, which always comes
} answer_piece;

typedef struct answer_usage {
    int32_t prompt_tokens;
    int32_t completion_tokens; // of all n answers
    int32_t cached_tokens;     // of the prompt, taken from the prefix cache
    uint64_t seed;
    int64_t queue_ns; // arrival to first scheduled
    int64_t ttft_ns;  // arrival to first token
    int64_t total_ns;
} answer_usage;

typedef struct answer_end {
    status why; // OK: every index had its last piece; else what happened, in words for the client
    int64_t retry_after_ms; // > 0: when to try again (RESOURCE_EXHAUSTED, UNAVAILABLE)
    answer_usage usage;     // what was used so far, also on an error
} answer_end;

#endif
