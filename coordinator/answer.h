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
    ANSWER_TOOLS,  // the model calls tools and waits for what they say
} answer_finish;

// "stop", "length"; NULL for ANSWER_GOES_ON. As OpenAI's API spells them.
const char *answer_finish_name(answer_finish finish);

typedef struct answer_logprob {
    float logprob; // NaN: nothing precedes the token (the first of a prompt)
    const token_choice *top;
    int top_count;
} answer_logprob;

// A part of a tool call: id and name come once, first; arguments are JSON text in parts.
typedef struct answer_tool {
    int index;             // which of the answer's calls, from 0
    const char *id, *name; // NULL after the first part
    const char *arguments; // may be empty
    size_t size;           // of it
} answer_tool;

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
    int stop; // STOP: which of the request's stop texts ended it, from 1; 0: the model did, or it
              // is not known (upstreams)
    const answer_tool *tool; // a part of a tool call instead of text; NULL: none
    const char *served_by;   // who says it from here on, as in answer_segment; NULL: as before
} answer_piece;

enum { ANSWER_SEGMENTS_MAX = 4 };

// Who said which part of the answer; more than one after a move in the middle of a stream.
typedef struct answer_segment {
    char by[64];    // a model name of ours ("local/NAME") or an upstream's name
    int32_t tokens; // as far as known
} answer_segment;

typedef struct answer_usage {
    int32_t prompt_tokens;
    int32_t completion_tokens; // of all n answers
    int32_t cached_tokens;     // of the prompt, taken from the prefix cache
    uint64_t seed;
    int64_t queue_ns; // arrival to first scheduled
    int64_t ttft_ns;  // arrival to first token
    int64_t total_ns;
    int64_t compute_us; // of ranks that worked for it: ranks * step time * its share of the rows
    bool estimated;     // some counts are ours, not an upstream's
    int segment_count;  // who served it, in order
    answer_segment segments[ANSWER_SEGMENTS_MAX];
} answer_usage;

typedef struct answer_end {
    status why; // OK: every index had its last piece; else what happened, in words for the client
    int64_t retry_after_ms; // > 0: when to try again (RESOURCE_EXHAUSTED, UNAVAILABLE)
    answer_usage usage;     // what was used so far, also on an error
} answer_end;

#endif
