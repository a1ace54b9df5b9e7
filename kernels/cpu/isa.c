// isa: what this processor can do. Apart from the tables, because those files are compiled for
// processors that this may not be.
#include "kernels/cpu/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>

// F16C by its bit: not every compiler's __builtin_cpu_supports knows the name.
bool isa_has_avx2(void) {
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

bool isa_has_avx512(void) {
    return isa_has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

#else

bool isa_has_avx2(void) {
    return false;
}
bool isa_has_avx512(void) {
    return false;
}

#endif
