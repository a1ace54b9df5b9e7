// body_fields: one field of a JSON body, with its type and range, or the refusal in the words and
// codes that OpenAI's server uses.
//
// Every reader treats an absent field and null alike: the value stays as it was. Names are paths
// for the reader of the error
// ("stream_options.include_usage"); the last part after the dot is the key.
#ifndef OCTANT_COORDINATOR_INGRESS_BODY_FIELDS_H
#define OCTANT_COORDINATOR_INGRESS_BODY_FIELDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "coordinator/ingress/refusal.h"

// The whole body: a JSON object, which the caller frees. NULL on a refusal.
bool body_parse(const char *bytes, size_t size, json_t **out, refusal *why);

// The value, or NULL when it is absent or null.
const json_t *body_field(const json_t *object, const char *name);

bool body_bool(const json_t *object, const char *name, bool *value, refusal *why);
bool body_int(const json_t *object, const char *name, int64_t low, int64_t high, int64_t *value,
              refusal *why);
bool body_number(const json_t *object, const char *name, double low, double high, double *value,
                 refusal *why);
// The bytes stay the JSON value's. A NUL inside is refused.
bool body_string(const json_t *object, const char *name, const char **value, refusal *why);

// "Invalid type for 'x': expected a string, but got an array instead."
bool body_wrong_type(const char *name, const char *expected, const json_t *got, refusal *why);

#endif
