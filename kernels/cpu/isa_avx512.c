#include "kernels/cpu/isa.h"

const isa *isa_avx512(void) {
    return NULL;
}
