// Most text is normal already and made of characters that nothing composes with. Such runs are
// copied; only what lies between them, with the one character before it (a mark composes to the
// left), goes through utf8proc.
#include "common/model/unicode_class.h"

#include <stdlib.h>
#include <utf8proc.h>

#include "common/base/utf8.h"

bool unicode_is_space(uint32_t c) {
    return (c >= 0x9 && c <= 0xd) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

bool unicode_is_word(uint32_t c) {
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}

// Whether `c` stays itself in this form and never composes with the character before it. Only
// ranges for which that is plain to see: a "no" costs time, not truth.
static bool is_inert(unicode_form form, uint32_t c) {
    if (c < 0x80) return true;
    if (form != UNICODE_NFC) return false;
    return c < 0x300 ||                    // Latin, IPA
           (c >= 0x391 && c <= 0x3ce) ||   // Greek
           (c >= 0x400 && c <= 0x482) ||   // Cyrillic
           (c >= 0x2010 && c <= 0x206f) || // punctuation
           (c >= 0x3041 && c <= 0x3098) || // Hiragana
           (c >= 0x30a1 && c <= 0x30ff) || // Katakana
           (c >= 0x4e00 && c <= 0x9fff) || // Han
           (c >= 0xac00 && c <= 0xd7a3) || // Hangul syllables
           (c >= 0x1f300 && c <= 0x1faff); // emoji
}

static status through_utf8proc(unicode_form form, const char *text, size_t size, buf *out) {
    static const utf8proc_option_t options[] = {
        [UNICODE_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [UNICODE_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [UNICODE_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [UNICODE_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    utf8proc_uint8_t *mapped = NULL;
    utf8proc_ssize_t length = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size,
                                           &mapped, options[form]);
    if (length < 0)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "cannot normalise %zu bytes: %s", size,
                            utf8proc_errmsg(length));
    bool fits = buf_append(out, mapped, (size_t)length);
    free(mapped);
    return fits ? status_ok()
                : status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %zu normalised bytes",
                               size);
}

// The end of the run of characters from `at` that are not inert; *marks is its longest row of
// combining ones.
static size_t active_end(unicode_form form, const char *text, size_t size, size_t at,
                         size_t *marks) {
    uint32_t c;
    size_t row = 0;
    *marks = 0;
    for (size_t n; at < size; at += n) {
        n = utf8_decode(text + at, size - at, &c);
        if (!n || is_inert(form, c)) break;
        row = utf8proc_get_property((utf8proc_int32_t)c)->combining_class ? row + 1 : 0;
        if (row > *marks) *marks = row;
    }
    return at;
}

status unicode_normalize(unicode_form form, const char *text, size_t size, buf *out) {
    uint32_t c;
    size_t copied = 0, last = 0; // `last` is where the character before `at` starts
    for (size_t at = 0, n; at < size; last = at, at += n) {
        n = utf8_decode(text + at, size - at, &c);
        if (!n) return status_error(STATUS_INTERNAL, "normalising bytes that are not UTF-8");
        if (is_inert(form, c)) continue;
        size_t marks, end = active_end(form, text, size, at, &marks);
        buf_append(out, text + copied, last - copied);
        if (marks > UNICODE_MARKS_MAX) {
            buf_append(out, text + last, end - last);
        } else {
            TRY(through_utf8proc(form, text + last, end - last, out));
        }
        copied = end;
        if (end == size) break;
        at = end;
        n = 0;
        // The next character is inert: it is looked at next, and is what a later run starts from.
    }
    buf_append(out, text + copied, size - copied);
    return out->failed
               ? status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for %zu normalised bytes", size)
               : status_ok();
}
