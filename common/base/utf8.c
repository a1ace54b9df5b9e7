#include "common/base/utf8.h"

#include <assert.h>

size_t utf8_decode(const char *bytes, size_t size, uint32_t *code_point) {
    assert(size > 0);
    const unsigned char *b = (const unsigned char *)bytes;
    if (b[0] < 0x80) return *code_point = b[0], 1;
    size_t length = b[0] < 0xc2 ? 0 : b[0] < 0xe0 ? 2 : b[0] < 0xf0 ? 3 : b[0] < 0xf5 ? 4 : 0;
    if (length == 0 || length > size) return 0;
    uint32_t c = b[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((b[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (b[i] & 0x3fu);
    }
    bool overlong = (length == 3 && c < 0x800) || (length == 4 && c < 0x10000);
    if (overlong || (c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff) return 0;
    *code_point = c;
    return length;
}

size_t utf8_encode(uint32_t c, char out[4]) {
    assert(c <= 0x10ffff && !(c >= 0xd800 && c <= 0xdfff));
    if (c < 0x80) return out[0] = (char)c, 1;
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

bool utf8_is_valid(const char *bytes, size_t size) {
    uint32_t c;
    for (size_t i = 0, n; i < size; i += n)
        if (!(n = utf8_decode(bytes + i, size - i, &c))) return false;
    return true;
}

size_t utf8_incomplete_tail(const char *bytes, size_t size) {
    const unsigned char *b = (const unsigned char *)bytes;
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        unsigned char lead = b[size - back];
        if ((lead & 0xc0) == 0x80) continue;
        size_t length = lead < 0xc2 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 1;
        if (length <= back) return 0;
        // Complete it with the lowest continuation that its second byte allows, to tell E0 9F from E0 A0.
        if (back >= 2) {
            unsigned char second = b[size - back + 1];
            if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) ||
                (lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f))
                return 0;
        }
        return back;
    }
    return 0;
}
