#include "coordinator/route/fold.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "common/base/utf8.h"

enum {
    ASCII_END = 0x80,
    DECOMPOSED_MAX = 32, // code points of one; Unicode's longest has 18
};

static bool is_digit(uint32_t c) {
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_ND;
}

// Decimal digits stand in tens, from 0 up; outside of the mathematical ones, which NFKC has dealt
// with, each ten begins where the last hex digit of the code point is 0 or 6.
static char digit_of(uint32_t c) {
    uint32_t first = c & ~UINT32_C(15), last = c & 15;
    return (char)('0' + (is_digit(first) ? last % 10 : last >= 6 ? last - 6 : 0));
}

// Writes what one character is read as; returns how many bytes, 0: nothing is seen.
static size_t fold_one(uint32_t c, const char *as_is, size_t size, char out[DECOMPOSED_MAX]) {
    utf8proc_int32_t parts[DECOMPOSED_MAX];
    int boundary = 0;
    utf8proc_ssize_t count = utf8proc_decompose_char(
        (utf8proc_int32_t)c, parts, DECOMPOSED_MAX,
        UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT | UTF8PROC_IGNORE | UTF8PROC_LUMP, &boundary);
    bool ascii = count >= 0 && count <= DECOMPOSED_MAX;
    for (utf8proc_ssize_t i = 0; ascii && i < count; i++) {
        ascii = parts[i] < ASCII_END;
        out[i] = (char)parts[i];
    }
    if (ascii) return (size_t)count;
    if (is_digit(c)) {
        out[0] = digit_of(c);
        return 1;
    }
    memcpy(out, as_is, size);
    return size;
}

static bool append(folded *f, size_t *room, const char *bytes, size_t count, size_t origin) {
    if (f->text.size + count > *room) {
        size_t grown = 2 * (f->text.size + count) + 64;
        uint32_t *origins = realloc(f->origin, grown * sizeof *origins);
        if (!origins) return false;
        f->origin = origins;
        *room = grown;
    }
    for (size_t i = 0; i < count; i++) f->origin[f->text.size + i] = (uint32_t)origin;
    return buf_append(&f->text, bytes, count);
}

static bool is_ascii(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)text[i] >= ASCII_END) return false;
    return true;
}

bool fold_text(const char *text, size_t size, folded *out) {
    *out = (folded){.text = buf_make(FOLD_SIZE_MAX)};
    if (is_ascii(text, size)) return true;
    if (size > FOLD_SIZE_MAX) return false;
    size_t room = 0;
    for (size_t at = 0; at < size;) {
        uint32_t c;
        size_t taken = utf8_decode(text + at, size - at, &c);
        char as[DECOMPOSED_MAX];
        const char *bytes = text + at;
        size_t count = taken ? taken : 1;
        if (taken > 1) {
            count = fold_one(c, text + at, taken, as);
            bytes = as;
            out->changed |= count != taken || memcmp(as, text + at, count) != 0;
        }
        if (!append(out, &room, bytes, count, at)) return false;
        at += taken ? taken : 1;
    }
    if (!out->changed) buf_clear(&out->text);
    return true;
}

void fold_free(folded *f) {
    buf_free(&f->text);
    free(f->origin);
    *f = (folded){0};
}

size_t fold_end(const folded *f, const char *text, size_t size, size_t at) {
    uint32_t c;
    size_t begin = f->origin[at], taken = utf8_decode(text + begin, size - begin, &c);
    return begin + (taken ? taken : 1);
}
