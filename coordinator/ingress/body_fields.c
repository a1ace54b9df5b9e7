#include "coordinator/ingress/body_fields.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/utf8.h"

const json_t *body_field(const json_t *object, const char *name) {
    const char *dot = strrchr(name, '.');
    const json_t *value = json_object_get(object, dot ? dot + 1 : name);
    return json_is_null(value) ? NULL : value;
}

static const char *type_name(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a decimal";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    }
    return "something else";
}

bool body_wrong_type(const char *name, const char *expected, const json_t *got, refusal *why) {
    return refuse(why, STATUS_INVALID_ARGUMENT, name, "invalid_type",
                  "Invalid type for '%s': expected %s, but got %s instead.", name, expected,
                  type_name(got));
}

bool body_bool(const json_t *object, const char *name, bool *value, refusal *why) {
    const json_t *field = body_field(object, name);
    if (!field) return true;
    if (!json_is_boolean(field)) return body_wrong_type(name, "a boolean", field, why);
    *value = json_is_true(field);
    return true;
}

bool body_int(const json_t *object, const char *name, int64_t low, int64_t high, int64_t *value,
              refusal *why) {
    const json_t *field = body_field(object, name);
    if (!field) return true;
    if (!json_is_integer(field)) return body_wrong_type(name, "an integer", field, why);
    int64_t got = json_integer_value(field);
    if (got < low)
        return refuse(why, STATUS_INVALID_ARGUMENT, name, "integer_below_min_value",
                      "Invalid '%s': integer below minimum value. Expected a value >= %" PRId64
                      ", but got %" PRId64 " instead.",
                      name, low, got);
    if (got > high)
        return refuse(why, STATUS_INVALID_ARGUMENT, name, "integer_above_max_value",
                      "Invalid '%s': integer above maximum value. Expected a value <= %" PRId64
                      ", but got %" PRId64 " instead.",
                      name, high, got);
    *value = got;
    return true;
}

bool body_number(const json_t *object, const char *name, double low, double high, double *value,
                 refusal *why) {
    const json_t *field = body_field(object, name);
    if (!field) return true;
    if (!json_is_number(field)) return body_wrong_type(name, "a decimal", field, why);
    double got = json_number_value(field);
    if (got < low)
        return refuse(why, STATUS_INVALID_ARGUMENT, name, "decimal_below_min_value",
                      "Invalid '%s': decimal below minimum value. Expected a value >= %g, but got "
                      "%g instead.",
                      name, low, got);
    if (got > high)
        return refuse(why, STATUS_INVALID_ARGUMENT, name, "decimal_above_max_value",
                      "Invalid '%s': decimal above maximum value. Expected a value <= %g, but got "
                      "%g instead.",
                      name, high, got);
    *value = got;
    return true;
}

bool body_string(const json_t *object, const char *name, const char **value, refusal *why) {
    const json_t *field = body_field(object, name);
    if (!field) return true;
    if (!json_is_string(field)) return body_wrong_type(name, "a string", field, why);
    if (strlen(json_string_value(field)) != json_string_length(field))
        return refuse(why, STATUS_INVALID_ARGUMENT, name, "invalid_value",
                      "Invalid '%s': the string holds a NUL character.", name);
    *value = json_string_value(field);
    return true;
}

// jansson refuses invalid UTF-8 too, but names a column, not the cause.
bool body_parse(const char *bytes, size_t size, json_t **out, refusal *why) {
    *out = NULL;
    if (!utf8_is_valid(bytes, size))
        return refuse(why, STATUS_INVALID_ARGUMENT, NULL, NULL,
                      "The body is not valid UTF-8. Send JSON encoded as UTF-8 (RFC 8259).");
    status s = json_parse(bytes, size, out);
    if (s.code != STATUS_OK)
        return refuse(why, STATUS_INVALID_ARGUMENT, NULL, NULL,
                      "We could not parse the JSON body of your request: %s", s.message);
    if (json_is_object(*out)) return true;
    json_decref(*out);
    *out = NULL;
    return refuse(why, STATUS_INVALID_ARGUMENT, NULL, NULL, "The body must be a JSON object.");
}
