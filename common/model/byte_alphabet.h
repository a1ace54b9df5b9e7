// byte_alphabet: GPT-2's writing of bytes as printable characters, in which byte-level vocabularies
// are stored. Byte 0x20 is "Ġ" (U+0120). Radford et al. 2019, encoder.py, bytes_to_unicode: the 188
// bytes that are printable in Latin-1 stand for themselves, the other 68 are U+0100 and up, in
// order.
#ifndef OCTANT_MODEL_BYTE_ALPHABET_H
#define OCTANT_MODEL_BYTE_ALPHABET_H

#include <stdbool.h>
#include <stddef.h>

// Writes the bytes that `text` stands for to `out`, which has room for `size`, and their count to
// *out_size. False when a character is outside the alphabet: such a token was added as it stands.
bool byte_alphabet_decode(const char *text, size_t size, char *out, size_t *out_size);

#endif
