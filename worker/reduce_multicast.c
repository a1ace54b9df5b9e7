// reduce_multicast: see reduce_multicast.h.
#include "worker/reduce_multicast.h"

#include <assert.h>

static status take_seats(comm *c, const multicast_seat *mine, multicast_seat *all,
                         int64_t deadline_ns) {
    TRY(comm_gather(c, mine, sizeof *mine, all, deadline_ns));
    return comm_broadcast(c, all, (size_t)comm_size(c) * sizeof *all, deadline_ns);
}

status reduce_multicast_open(comm *c, size_t bytes, int64_t deadline_ns, multicast **out) {
    assert(comm_size(c) <= MULTICAST_RANKS_MAX);
    multicast_options options = {.rank = comm_rank(c), .ranks = comm_size(c), .bytes = bytes};
    multicast_seat mine, all[MULTICAST_RANKS_MAX];
    multicast *m = NULL;
    status s = comm_agree(c, multicast_open(&options, &m, &mine), deadline_ns);
    if (status_is_ok(&s)) s = take_seats(c, &mine, all, deadline_ns);
    if (status_is_ok(&s)) s = comm_agree(c, multicast_share(m, all), deadline_ns);
    if (status_is_ok(&s)) s = comm_agree(c, multicast_bind(m), deadline_ns);
    if (status_is_ok(&s))
        *out = m;
    else
        multicast_close(m);
    return s;
}
