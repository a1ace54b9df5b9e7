// octant-worker: one rank of a worker group. See worker/rank.h for its life, --help for its
// options.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "worker/comm.h"
#include "worker/options.h"
#include "worker/rank.h"

enum { OPTIONS_BYTES = 1 << 20, REFUSE_AFTER_MS = 4000 };

static int fail(const status *s) {
    fprintf(stderr, "octant-worker: %s\n", s->message);
    return 1;
}

// All ranks were told the same, so all refuse it, before they are joined. One line is enough: rank
// 0 speaks, and the launcher, which takes a second or two, ends the others while they wait. Where
// rank 0 had nothing to refuse (a config file that differs on one host), they speak for themselves.
static int refuse(const status *s) {
    static const char *const rank_names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"};
    const char *rank = NULL;
    for (size_t i = 0; !rank && i < sizeof rank_names / sizeof *rank_names; i++)
        rank = getenv(rank_names[i]);
    if (rank && strcmp(rank, "0") != 0)
        clock_sleep_until(clock_now_ns() + REFUSE_AFTER_MS * CLOCK_MS);
    return fail(s);
}

static void open_log(const options *o, const comm *c) {
    char component[32];
    log_level level = LOG_INFO;
    log_level_parse(o->log_level, &level); // checked as one of the table's choices
    snprintf(component, sizeof component, "worker %d", comm_rank(c));
    log_open(level, component);
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    arena *memory = arena_create(OPTIONS_BYTES);
    if (!memory) return 1;
    options o;
    bool exit_now = false;
    status s = options_parse(argc, argv, memory, &o, &exit_now);
    if (!status_is_ok(&s)) return refuse(&s);
    if (exit_now) return 0;
    comm *c = NULL;
    s = comm_open(NULL, NULL, options_transport(&o), &c);
    if (!status_is_ok(&s)) return fail(&s);
    open_log(&o, c);
    bool together = false;
    s = rank_run(&o, c, &together);
    if (!status_is_ok(&s) && !together) comm_abort(c, 1);
    comm_close(c);
    arena_destroy(memory);
    return status_is_ok(&s) ? 0 : 1;
}
