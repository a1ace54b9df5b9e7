// sampling: from rows of logits to tokens, where the logits are: on a device no row of logits ever
// crosses to the host.
//
// Order (that of vLLM, whose parameters these are; llama.cpp has the same filters and applies
// temperature last):
//   logit bias -> penalties (repetition, frequency, presence) -> allowed tokens only -> temperature
//   -> top-k -> top-p -> min-p -> draw
// Temperature 0 takes the largest logit, the lowest id on a tie. Each filter sees the distribution
// that the one before it left, made to sum to 1 again. Log probabilities are those of the model
// itself: log-softmax of the raw logits, before bias, penalties and temperature, as vLLM's default.
//
// A token depends on its logits, its slot's parameters and history, its random number and its
// allowed tokens, and on nothing else; every backend chooses the same token from the same logits.
// That holds because sums of weights are sums of integers (kernels/sampling_math.h), the same in
// any order.
//
// Use, by the rank that samples: open a slot with a sequence's parameters and history; then in each
// step begin(rows), load, sample(logits) for one run of rows after another, send, end, and wait for
// the choices. All but wait only queue work, and a second step may go through begin to end before
// the first is waited for: the sampled tokens are in their slots' histories by then, on the device.
// Load, sample and send may be recorded (kernels_run): they depend on the number of rows, and on
// kernels_sampler_largest_only.
#ifndef OCTANT_KERNELS_SAMPLING_H
#define OCTANT_KERNELS_SAMPLING_H

#include "kernels/kernels.h"

enum {
    KERNELS_TOP_MAX = 20,        // alternatives reported beside a token
    KERNELS_BIAS_MAX = 1024,     // biased tokens of a sequence
    KERNELS_PARTS_MAX = 512,     // ranks that a vocabulary is cut over
    KERNELS_VOCAB_MAX = 1 << 20, // tokens
};

typedef struct kernels_sampler kernels_sampler;

typedef struct kernels_sampler_shape {
    int slots;            // sequences whose parameters and history are kept
    int rows;             // of a step, at most
    int batch;            // rows of one kernels_sample, at most
    int context;          // tokens of a history, at most
    int parts;            // the vocabulary is cut in so many ranges of tokens: those of the ranks
    const int32_t *first; // (parts + 1) host memory: where each starts, and the whole vocabulary
    int part_columns;     // columns of the widest; see kernels_sample
    bool alike;           // all steps of as many rows make the same calls
} kernels_sampler_shape;

// RESOURCE_EXHAUSTED when memory is short. INVALID_ARGUMENT when the vocabulary is past
// KERNELS_VOCAB_MAX.
status kernels_sampler_create(kernels *k, const kernels_sampler_shape *shape,
                              kernels_sampler **out);
void kernels_sampler_destroy(kernels_sampler *s); // NULL is allowed

typedef struct kernels_bias {
    int32_t id;
    float bias; // added to the logit
} kernels_bias;

// How a sequence is sampled. Values are as in their own ranges: checked before they come here.
typedef struct kernels_sampling {
    float temperature;        // 0: the largest logit
    int32_t top_k;            // 0: off
    float top_p;              // (0, 1]; 1: off
    float min_p;              // [0, 1]; 0: off
    float repetition_penalty; // > 0; 1: off. Over the whole history, once a token
    float presence_penalty;   // 0: off. Over the answer, once a token
    float frequency_penalty;  // 0: off. Over the answer, each time
    int32_t logprobs;         // -1: none; else alternatives to report, up to KERNELS_TOP_MAX
    int32_t bias_count;       // up to KERNELS_BIAS_MAX; a token may come twice
    const kernels_bias *bias;
    // The sequence so far; may be NULL with 0 tokens where no penalty looks at it.
    const int32_t *history;
    int32_t history_count, prompt_tokens; // the first prompt_tokens are no answer
} kernels_sampling;

// True when a penalty looks at the tokens so far.
bool kernels_sampling_needs_history(const kernels_sampling *p);

// Puts a sequence in a slot, in place of what was there. All is host memory and is copied.
status kernels_sampler_open(kernels_sampler *s, int slot, const kernels_sampling *p);

// What is wanted of one row of logits.
typedef struct kernels_sample_row {
    int32_t slot;            // whose parameters and history; -1: nothing is wanted of this row
    int32_t judged;          // -1: sample. Else a token whose log probability under this row is
                             // wanted, with as many alternatives as the slot reports
    uint64_t random;         // of this draw: 64 random bits
    const uint32_t *allowed; // host memory, (V + 31) / 32 words, copied: bit i % 32 of word i / 32
                             // says that token i may be sampled. NULL: all may
} kernels_sample_row;

// Tells the rows of the step, `count` <= shape.rows. A slot is sampled by at most one row of a
// step. At most KERNELS_SAMPLER_STEPS steps may have begun and not been waited for.
enum { KERNELS_SAMPLER_STEPS = 2 };
status kernels_sampler_begin(kernels_sampler *s, const kernels_sample_row *rows, int count);

// Whether every row of the step that began last takes its largest logit and reports no
// probabilities: fewer calls do then. False for a sampler whose calls are alike.
bool kernels_sampler_largest_only(const kernels_sampler *s);

// Brings the step's rows to where they are sampled.
void kernels_sampler_load(kernels_sampler *s);

// Samples rows [row, row + count) of the step from `logits` (device memory): part p of the
// vocabulary is (count, first[p + 1] - first[p]) at logits + p * count * part_columns, as ranks
// gather them; with one part simply (count, V). Logits stay. The sampled token of a row is put in
// its slot's history, and where a backend feeds tokens to the next step by itself, there.
void kernels_sample(kernels_sampler *s, const float *logits, int row, int count);

typedef struct kernels_top {
    int32_t id;
    float logprob;
} kernels_top;

typedef struct kernels_choice {
    int32_t token; // -1: a logit was NaN or infinite, or no token was allowed
    float logprob; // of token; valid when the slot reports them; NaN with -1
    int32_t top_count;
    kernels_top top[KERNELS_TOP_MAX]; // the most probable tokens, falling; lower id first on a tie
} kernels_choice;

// All rows of the step were given to kernels_sample: sends the choices to the host.
void kernels_sampler_send(kernels_sampler *s);

// All of the step has been queued.
void kernels_sampler_end(kernels_sampler *s);

// Waits for the oldest step that has ended. *out (count of its begin) is valid until
// KERNELS_SAMPLER_STEPS more have begun. A judged row's token is `judged`, or -1. Errors are the
// device's, or DEADLINE_EXCEEDED.
status kernels_sampler_wait(kernels_sampler *s, int64_t deadline_ns, const kernels_choice **out);

// Device memory, (slots): the token last sampled in each slot, for the step that follows it without
// a host between them (kernels_step.fed).
int32_t *kernels_sampler_tokens(const kernels_sampler *s);

// ---- Ranks whose devices reach each other choose together, without their hosts. Not on cpu.
//
// Each rank brings a pair of doubles for each wanted row of the step: a logit and its token, or in
// the place of the token KERNELS_BAD or KERNELS_NONE. The pairs of all are gathered, and every rank
// picks the same tokens from them.
enum {
    KERNELS_BAD = -1,  // a logit was NaN or infinite
    KERNELS_NONE = -2, // this rank says nothing
};

// pairs (count, 2): the largest of each row of logits (count, V), the lowest token on a tie; column
// 0 is first_token. NONE where V is 0.
void kernels_best(kernels *k, const float *logits, int count, int width, int first_token,
                  double *pairs);

// pairs (count, 2) of wanted rows [first, first + count): the token that stands in `tokens` (slots)
// for the row's slot. NONE for all with `tokens` NULL, and for rows of nobody.
void kernels_told(kernels *k, const int32_t *tokens, int first, int count, double *pairs);

// Of all ranks' pairs (parts, count, 2) of the step's first `count` wanted rows: chosen (count) =
// the token of the largest value, the first part's on a tie; where a part says BAD, -1 - that part.
// tokens (slots) gets what was chosen for a slot.
void kernels_pick(kernels *k, const double *pairs, int parts, int count, int32_t *tokens,
                  int32_t *chosen);

#endif
