// sampling: the door of the sampler: checks, and what all backends share.
#include "kernels/sampling.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/sampling_math.h"

static_assert(SAMPLING_MASS_BITS + 20 < 62 && KERNELS_VOCAB_MAX <= 1 << 20,
              "masses of a vocabulary add up in 62 bits");

status kernels_sampler_create(kernels *k, const kernels_sampler_shape *shape,
                              kernels_sampler **out) {
    assert(shape->slots >= 1 && shape->rows >= 1 && shape->batch >= 1 && shape->context >= 1);
    assert(shape->parts >= 1 && shape->parts <= KERNELS_PARTS_MAX && shape->first[0] == 0);
    for (int p = 0; p < shape->parts; p++) {
        int columns = shape->first[p + 1] - shape->first[p];
        assert(columns >= 0 && columns <= shape->part_columns);
    }
    int vocab = shape->first[shape->parts];
    assert(vocab >= 1);
    if (vocab > KERNELS_VOCAB_MAX)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "a vocabulary of %d tokens; sampling is built for at most %d", vocab,
                            KERNELS_VOCAB_MAX);
    return k->ops->sampler_create(k, shape, out);
}

void kernels_sampler_head(kernels_sampler *s, kernels *k, const kernels_sampler_shape *shape) {
    s->kernels = k;
    s->shape = *shape;
    memcpy(s->first, shape->first, ((size_t)shape->parts + 1) * sizeof *s->first);
    s->shape.first = s->first;
    s->vocab = s->first[shape->parts];
}

void kernels_sampler_destroy(kernels_sampler *s) {
    if (s) s->kernels->ops->sampler_destroy(s);
}

bool kernels_sampling_needs_history(const kernels_sampling *p) {
    return p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
}

status kernels_sampler_open(kernels_sampler *s, int slot, const kernels_sampling *p) {
    assert(slot >= 0 && slot < s->shape.slots);
    assert(p->bias_count >= 0 && p->bias_count <= KERNELS_BIAS_MAX);
    assert(p->logprobs >= -1 && p->logprobs <= KERNELS_TOP_MAX);
    assert(p->temperature >= 0 && p->top_k >= 0 && p->top_p > 0 && p->top_p <= 1);
    assert(p->min_p >= 0 && p->min_p <= 1 && p->repetition_penalty > 0);
    assert(p->history_count >= 0 && p->history_count <= s->shape.context && p->prompt_tokens >= 0);
    for (int i = 0; i < p->bias_count; i++) assert(p->bias[i].id >= 0 && p->bias[i].id < s->vocab);
    if (kernels_sampling_needs_history(p))
        for (int i = 0; i < p->history_count; i++)
            assert(p->history[i] >= 0 && p->history[i] < s->vocab);
    return s->kernels->ops->sampler_open(s, slot, p);
}

status kernels_sampler_begin(kernels_sampler *s, const kernels_sample_row *rows, int count) {
    assert(count >= 0 && count <= s->shape.rows);
    assert(s->begun == s->ended && s->begun - s->waited < KERNELS_SAMPLER_STEPS);
    for (int i = 0; i < count; i++) {
        assert(rows[i].slot >= -1 && rows[i].slot < s->shape.slots);
        assert(rows[i].judged >= -1 && rows[i].judged < s->vocab);
    }
    s->count = count;
    TRY(s->kernels->ops->sampler_begin(s, rows, count));
    s->begun++;
    return status_ok();
}

void kernels_sampler_load(kernels_sampler *s) {
    assert(s->begun == s->ended + 1);
    if (s->kernels->ops->sampler_load && s->count > 0) s->kernels->ops->sampler_load(s);
}

bool kernels_sampler_largest_only(const kernels_sampler *s) {
    return s->largest_only;
}

void kernels_sample(kernels_sampler *s, const float *logits, int row, int count) {
    assert(row >= 0 && count >= 0 && count <= s->shape.batch && row + count <= s->count);
    assert(s->begun == s->ended + 1);
    if (count > 0) s->kernels->ops->sample(s, logits, row, count);
}

void kernels_sampler_send(kernels_sampler *s) {
    assert(s->begun == s->ended + 1);
    if (s->kernels->ops->sampler_send && s->count > 0) s->kernels->ops->sampler_send(s);
}

void kernels_sampler_end(kernels_sampler *s) {
    assert(s->begun == s->ended + 1);
    s->kernels->ops->sampler_end(s);
    s->ended++;
}

status kernels_sampler_wait(kernels_sampler *s, int64_t deadline_ns, const kernels_choice **out) {
    assert(s->waited < s->ended);
    TRY(s->kernels->ops->sampler_wait(s, deadline_ns, out));
    s->waited++;
    return status_ok();
}

int32_t *kernels_sampler_tokens(const kernels_sampler *s) {
    return s->tokens;
}

void kernels_best(kernels *k, const float *logits, int count, int width, int first_token,
                  double *pairs) {
    assert(count >= 0 && width >= 0 && first_token >= 0);
    if (count > 0) k->ops->best(k, logits, count, width, first_token, pairs);
}

void kernels_told(kernels *k, const int32_t *tokens, int first, int count, double *pairs) {
    assert(first >= 0 && count >= 0 && first + count <= k->step.wanted && k->step.slots);
    if (count > 0) k->ops->told(k, tokens, first, count, pairs);
}

void kernels_pick(kernels *k, const double *pairs, int parts, int count, int32_t *tokens,
                  int32_t *chosen) {
    assert(parts >= 1 && count >= 0 && count <= k->step.wanted && k->step.slots);
    if (count > 0) k->ops->pick(k, pairs, parts, count, tokens, chosen);
}

float kernels_logprob(float logit, float max, uint64_t mass) {
    double sum = (double)mass / (double)(UINT64_C(1) << SAMPLING_MASS_BITS);
    double result = (double)logit - ((double)max + log(sum));
    return (float)(result + 0.0); // -0, of a logit that is -0, becomes 0
}
