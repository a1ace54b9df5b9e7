#include "common/model/sampling.h"

#include <inttypes.h>

sampling sampling_default(void) {
    return (sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .logprobs = -1};
}

// The negated comparison refuses NaN too.
static status check_range(const char *name, double value, double low, bool low_is_in, double high) {
    bool fits = (low_is_in ? value >= low : value > low) && value <= high;
    if (fits) return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT, "%s is %g; it must be %s %g and at most %g", name, value,
                        low_is_in ? "at least" : "above", low, high);
}

status sampling_check(const sampling *s, int32_t vocab) {
    TRY(check_range("temperature", s->temperature, 0, true, 2));
    TRY(check_range("top_k", s->top_k, 0, true, INT32_MAX));
    TRY(check_range("top_p", s->top_p, 0, false, 1));
    TRY(check_range("min_p", s->min_p, 0, true, 1));
    TRY(check_range("repetition_penalty", s->repetition_penalty, 0, false, 10));
    TRY(check_range("presence_penalty", s->presence_penalty, -2, true, 2));
    TRY(check_range("frequency_penalty", s->frequency_penalty, -2, true, 2));
    TRY(check_range("logprobs", s->logprobs, -1, true, SAMPLING_LOGPROBS_MAX));
    if (s->bias_count < 0 || s->bias_count > SAMPLING_BIAS_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "logit_bias has %" PRId32 " entries; at most %d are taken",
                            s->bias_count, SAMPLING_BIAS_MAX);
    for (int32_t i = 0; i < s->bias_count; i++) {
        if (s->bias[i].id < 0 || s->bias[i].id >= vocab)
            return status_error(STATUS_INVALID_ARGUMENT,
                                "logit_bias names token %" PRId32 "; this model has tokens 0 to %" PRId32,
                                s->bias[i].id, vocab - 1);
        TRY(check_range("logit_bias", s->bias[i].bias, -100, true, 100));
    }
    return status_ok();
}

bool sampling_needs_history(const sampling *s) {
    return s->repetition_penalty != 1 || s->presence_penalty != 0 || s->frequency_penalty != 0;
}
