// complexity: how hard a request looks, from 0 to 1, by rules that a person can follow: no model,
// no network, microseconds (of a long message only the first 16 KiB are looked at). It decides
// nothing by itself: a rule of octant.yaml may name a level, and `octant route explain` shows the
// parts of the score.
//
//   score = sum of weight_i * feature_i, each feature in [0, 1], the sum cut to [0, 1]
//
// The features are in complexity.c, each with why; bench/complexity.py measures them on labelled
// prompts and suggests thresholds for others.
#ifndef OCTANT_COORDINATOR_ROUTE_COMPLEXITY_H
#define OCTANT_COORDINATOR_ROUTE_COMPLEXITY_H

#include <stdbool.h>
#include <stddef.h>

typedef enum complexity_level {
    COMPLEXITY_SIMPLE,
    COMPLEXITY_MEDIUM,
    COMPLEXITY_HARD,
} complexity_level;
const char *complexity_level_name(complexity_level l); // "simple", "medium", "hard"

typedef enum complexity_feature {
    COMPLEXITY_LENGTH,    // of the last user message
    COMPLEXITY_HISTORY,   // of all before it
    COMPLEXITY_CODE,      // fences, braces, operators, file names
    COMPLEXITY_REASONING, // "prove", "step by step", "trade-off"
    COMPLEXITY_QUESTION,  // why and how over what and when; several questions
    COMPLEXITY_TASKS,     // lists of demands, constraints
    COMPLEXITY_TOOLS,     // the request has tools
    COMPLEXITY_EASY,      // greetings, translate this, yes or no; its weight is below zero
    COMPLEXITY_FEATURES,
} complexity_feature;
const char *complexity_feature_name(complexity_feature f); // "length", ...

typedef struct complexity_options {
    double medium, hard; // least scores of the two levels; 0 <= medium <= hard <= 1
    double weights[COMPLEXITY_FEATURES];
} complexity_options;
complexity_options complexity_default_options(void);

typedef struct complexity_score {
    double score;
    complexity_level level;
    double features[COMPLEXITY_FEATURES]; // unweighted
} complexity_score;

// `last` is the last user message; `history_bytes` the bytes of all other messages.
complexity_score complexity_of(const complexity_options *o, const char *last, size_t size,
                               size_t history_bytes, bool tools);

#endif
