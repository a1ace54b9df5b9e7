// descriptors: protoc's output, put into the read-only data by the assembler. A C array of the same
// bytes would need a generator; .incbin is understood by gcc and clang alike.
#include "proto/descriptors.h"

__asm__(".pushsection .rodata\n"
        ".balign 16\n"
        ".local octant_descriptors_begin\n"
        "octant_descriptors_begin:\n"
        ".incbin \"" OCTANT_DESCRIPTORS "\"\n"
        ".local octant_descriptors_end\n"
        "octant_descriptors_end:\n"
        ".byte 0\n"
        ".popsection\n");

extern const char octant_descriptors_begin[];
extern const char octant_descriptors_end[];

const void *descriptors_bytes(size_t *size) {
    *size = (size_t)(octant_descriptors_end - octant_descriptors_begin);
    return octant_descriptors_begin;
}
