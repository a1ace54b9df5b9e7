#include "coordinator/route/complexity.h"

const char *complexity_level_name(complexity_level l) {
    static const char *const names[] = {"simple", "medium", "hard"};
    return names[l];
}

const char *complexity_feature_name(complexity_feature f) {
    static const char *const names[] = {"length",   "history", "code",  "reasoning",
                                        "question", "tasks",   "tools", "easy"};
    return names[f];
}
complexity_options complexity_default_options(void) {
    return (complexity_options){.medium = 0.3, .hard = 0.6, .weights = {1}};
}
complexity_score complexity_of(const complexity_options *o, const char *last, size_t size,
                               size_t history_bytes, bool tools) {
    (void)last, (void)history_bytes, (void)tools;
    complexity_score s = {.features = {size > 4000 ? 1 : (double)size / 4000}};
    s.score = s.features[0] * o->weights[0];
    s.level = s.score >= o->hard     ? COMPLEXITY_HARD
              : s.score >= o->medium ? COMPLEXITY_MEDIUM
                                     : COMPLEXITY_SIMPLE;
    return s;
}
