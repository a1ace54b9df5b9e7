#include "coordinator/route/contents.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/utf8.h"

enum {
    TEXT_MAX = 64 << 20,  // of one redacted text
    NUMBER_MAX = 64,      // bytes of a number as a text
    NUMBER_MIN = 7,       // shorter ones are nobody's
    MESSAGE_OVERHEAD = 8, // tokens of a message's frame, estimated
};

// ---- texts ----

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// "\uXXXX" at `text` to a code point; false: it is none.
static bool unicode_escape(const char *text, size_t size, uint32_t *out) {
    uint32_t value = 0;
    if (size < 6 || text[1] != 'u') return false;
    for (int i = 2; i < 6; i++) {
        if (hex(text[i]) < 0) return false;
        value = value * 16 + (uint32_t)hex(text[i]);
    }
    *out = value;
    return value && (value < 0xd800 || value > 0xdfff);
}

// The text with JSON's and C's escapes undone: what somebody reads who decodes it once more.
static char *unescape(const char *text, size_t size, size_t *out_size) {
    static const char from[] = "ntrbf", to[] = "\n\t\r\b\f";
    char *out = malloc(size + 1), *end = out; // no escape grows
    for (size_t i = 0; out && i < size;) {
        uint32_t code;
        if (text[i] != '\\' || i + 1 == size) {
            *end++ = text[i++];
        } else if (unicode_escape(text + i, size - i, &code)) {
            end += utf8_encode(code, end);
            i += 6;
        } else {
            const char *known = text[i + 1] ? strchr(from, text[i + 1]) : NULL;
            *end++ = known ? to[known - from] : text[i + 1];
            i += 2;
        }
    }
    *out_size = out ? (size_t)(end - out) : 0;
    return out;
}

// What is still found in a redacted text once its escapes are undone: it is there, but not where it
// could be replaced.
static void scan_decoded(const detectors *d, const char *text, size_t size, detector_findings *f) {
    size_t decoded_size;
    char *decoded = unescape(text, size, &decoded_size);
    if (decoded)
        detectors_scan(d, decoded, decoded_size, f);
    else
        f->limits++;
    free(decoded);
}

static bool any(const detectors *d, const detector_findings *f) {
    for (int i = 0; i < detectors_count(d); i++)
        if (f->found[i]) return true;
    return f->limits > 0;
}

bool contents_redact_text(const detectors *d, const char *text, size_t size, buf *out,
                          detector_findings *hidden) {
    if (!detectors_redact(d, text, size, out)) return false;
    if (out->size && memchr(out->data, '\\', out->size))
        scan_decoded(d, out->data, out->size, hidden);
    return !any(d, hidden);
}

static void scan_string(const detectors *d, const char *text, size_t size, detector_findings *f) {
    detectors_scan(d, text, size, f);
    if (!memchr(text, '\\', size)) return;
    detector_findings hidden = {0};
    buf safe = buf_make(TEXT_MAX);
    if (!contents_redact_text(d, text, size, &safe, &hidden)) f->limits++;
    for (int i = 0; i < detectors_count(d); i++) f->found[i] += hidden.found[i];
    buf_free(&safe);
}

// False: the number is too short to be anybody's.
static bool number_text(const json_t *value, char out[NUMBER_MAX]) {
    if (json_is_integer(value))
        snprintf(out, NUMBER_MAX, "%lld", (long long)json_integer_value(value));
    else
        snprintf(out, NUMBER_MAX, "%.0f", json_real_value(value));
    return strlen(out) >= NUMBER_MIN;
}

// ---- values ----

static void scan_object(const detectors *d, json_t *value, detector_findings *f) {
    const char *key;
    json_t *item;
    json_object_foreach(value, key, item) {
        detector_findings in_key = {0};
        scan_string(d, key, strlen(key), &in_key);
        if (any(d, &in_key)) f->limits++;
        contents_scan(d, item, f);
    }
}

void contents_scan(const detectors *d, const json_t *value, detector_findings *f) {
    char number[NUMBER_MAX];
    if (json_is_string(value))
        scan_string(d, json_string_value(value), json_string_length(value), f);
    else if (json_is_number(value) && number_text(value, number))
        detectors_scan(d, number, strlen(number), f);
    else if (json_is_object(value))
        scan_object(d, (json_t *)value, f);
    else if (json_is_array(value))
        for (size_t i = 0; i < json_array_size(value); i++)
            contents_scan(d, json_array_get(value, i), f);
}

void contents_scan_text(const detectors *d, const char *json, detector_findings *f) {
    if (!json) return;
    json_t *value = json_loads(json, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (value)
        contents_scan(d, value, f);
    else
        f->limits++;
    json_decref(value);
}

static json_t *redact_string(const detectors *d, const char *text, size_t size) {
    buf out = buf_make(TEXT_MAX);
    detector_findings hidden = {0};
    json_t *copy = NULL;
    if (contents_redact_text(d, text, size, &out, &hidden))
        copy = json_stringn(buf_string(&out), out.size);
    buf_free(&out);
    return copy;
}

static json_t *redact_number(const detectors *d, const json_t *value) {
    char number[NUMBER_MAX];
    detector_findings f = {0};
    if (number_text(value, number)) detectors_scan(d, number, strlen(number), &f);
    return any(d, &f) ? redact_string(d, number, strlen(number)) : json_copy((json_t *)value);
}

// False: `copy` could not be made. Takes the item over.
static bool keep(json_t *copy, const char *key, json_t *item) {
    if (!item) return false;
    return (key ? json_object_set_new(copy, key, item) : json_array_append_new(copy, item)) == 0;
}

static json_t *redact_all(const detectors *d, const json_t *value) {
    bool object = json_is_object(value);
    json_t *copy = object ? json_object() : json_array();
    bool good = copy != NULL;
    const char *key;
    json_t *item;
    if (object) {
        json_object_foreach((json_t *)value, key, item) {
            detector_findings f = {0};
            scan_string(d, key, strlen(key), &f);
            good = good && !any(d, &f) && keep(copy, key, contents_redact(d, item));
        }
    }
    for (size_t i = 0; !object && good && i < json_array_size(value); i++)
        good = keep(copy, NULL, contents_redact(d, json_array_get(value, i)));
    if (good) return copy;
    json_decref(copy);
    return NULL;
}

json_t *contents_redact(const detectors *d, const json_t *value) {
    if (json_is_string(value))
        return redact_string(d, json_string_value(value), json_string_length(value));
    if (json_is_number(value)) return redact_number(d, value);
    if (json_is_object(value) || json_is_array(value)) return redact_all(d, value);
    return json_copy((json_t *)value);
}

// ---- sizes ----

static size_t size_of(const json_t *value) {
    if (json_is_string(value)) return json_string_length(value);
    return value ? json_dumpb(value, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY) : 0;
}

contents_measure contents_measure_of(const json_t *messages, const char *tools) {
    contents_measure m = {.last = ""};
    size_t count = json_array_size(messages), all = 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *message = json_array_get(messages, i);
        const json_t *content = json_object_get(message, "content");
        const char *role = json_string_value(json_object_get(message, "role"));
        all += size_of(content) + size_of(json_object_get(message, "tool_calls"));
        if (!role || strcmp(role, "user") != 0 || !json_is_string(content)) continue;
        m.last = json_string_value(content);
        m.last_size = json_string_length(content);
    }
    m.history_size = all - m.last_size;
    size_t bytes = all + (tools ? strlen(tools) : 0);
    m.prompt_tokens = (int64_t)(bytes / CONTENTS_BYTES_PER_TOKEN + count * MESSAGE_OVERHEAD);
    return m;
}
