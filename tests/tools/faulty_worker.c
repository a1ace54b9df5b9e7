// faulty_worker: octant-worker, with one fault planted between its files by the linker (--wrap), as
// the environment says: OCTANT_TEST_FAULT=KIND:RANK:CALL, at that rank's CALLth sum over ranks that
// the decoder asks for by itself (reduce_sum: two in a step):
//   flip   one bit of the outcome is another on this rank
//   part   this rank's part holds NaN
//   hang   the rank never comes to it, while its heartbeats go on
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/reduce.h"

status __real_reduce_sum(reduce *r, void *sums, size_t count, int64_t deadline_ns);
status __wrap_reduce_sum(reduce *r, void *sums, size_t count, int64_t deadline_ns);

static bool is_due(char kind[8]) {
    static long calls;
    const char *fault = getenv("OCTANT_TEST_FAULT"), *me = getenv("OMPI_COMM_WORLD_RANK");
    int rank = -1;
    long call = -1;
    return fault && me && sscanf(fault, "%7[a-z]:%d:%ld", kind, &rank, &call) == 3 &&
           rank == atoi(me) && ++calls == call;
}

// On cpu sums are doubles in the host's memory.
status __wrap_reduce_sum(reduce *r, void *sums, size_t count, int64_t deadline_ns) {
    char kind[8] = "";
    double *x = sums;
    bool due = is_due(kind);
    while (due && !strcmp(kind, "hang")) pause();
    if (due && !strcmp(kind, "part")) x[count / 2] = NAN;
    status s = __real_reduce_sum(r, sums, count, deadline_ns);
    if (due && !strcmp(kind, "flip")) {
        uint64_t bits;
        memcpy(&bits, x, sizeof bits);
        bits ^= UINT64_C(1) << 51;
        memcpy(x, &bits, sizeof bits);
    }
    return s;
}
