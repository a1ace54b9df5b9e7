// The table is never needed in the other direction: a vocabulary is turned into bytes when it is
// opened, and from then on text is looked up as it is.
#include "common/model/byte_alphabet.h"

#include <stdint.h>

#include "common/base/utf8.h"

// The byte of U+0100 + i, for i in [0, 68): 0x00-0x20, 0x7f-0xa0, 0xad.
static unsigned char shifted_byte(uint32_t i) {
    if (i < 33) return (unsigned char)i;
    if (i < 67) return (unsigned char)(i - 33 + 0x7f);
    return 0xad;
}

static bool stands_for_itself(uint32_t c) {
    return (c > 0x20 && c < 0x7f) || (c > 0xa0 && c <= 0xff && c != 0xad);
}

bool byte_alphabet_decode(const char *text, size_t size, char *out, size_t *out_size) {
    size_t n = 0;
    uint32_t c;
    for (size_t i = 0, length; i < size; i += length) {
        length = utf8_decode(text + i, size - i, &c);
        if (!length) return false;
        if (stands_for_itself(c)) {
            out[n++] = (char)c;
        } else if (c >= 0x100 && c < 0x100 + 68) {
            out[n++] = (char)shifted_byte(c - 0x100);
        } else {
            return false;
        }
    }
    *out_size = n;
    return true;
}
