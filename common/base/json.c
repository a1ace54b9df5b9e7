#include "common/base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/utf8.h"

status json_parse(const char *bytes, size_t size, json_t **out) {
    json_error_t error;
    *out = json_loadb(bytes, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (*out) return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT, "invalid JSON at line %d, column %d: %s", error.line,
                        error.column, error.text);
}

void json_append_escaped(buf *b, const char *bytes, size_t size) {
    size_t plain = 0; // start of the run that needs no escape
    for (size_t i = 0; i < size;) {
        unsigned char c = (unsigned char)bytes[i];
        uint32_t code_point;
        size_t length = c < 0x80 ? 1 : utf8_decode(bytes + i, size - i, &code_point);
        if (length && c >= 0x20 && c != '"' && c != '\\') {
            i += length;
            continue;
        }
        buf_append(b, bytes + plain, i - plain);
        if (!length) {
            buf_append_string(b, "\\ufffd");
        } else if (c == '"' || c == '\\') {
            buf_append_char(b, '\\');
            buf_append_char(b, (char)c);
        } else if (c == '\n') {
            buf_append_string(b, "\\n");
        } else {
            buf_printf(b, "\\u%04x", c);
        }
        plain = ++i;
    }
    buf_append(b, bytes + plain, size - plain);
}

void json_append_string(buf *b, const char *bytes, size_t size) {
    buf_append_char(b, '"');
    json_append_escaped(b, bytes, size);
    buf_append_char(b, '"');
}

void json_append_number(buf *b, double value) {
    if (!isfinite(value)) {
        buf_append_string(b, "null");
        return;
    }
    char text[32];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    buf_append_string(b, text);
}
