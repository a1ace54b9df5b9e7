// octant-worker: one rank of a worker group. See worker/rank.h for its life, --help for its
// options.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/comm.h"
#include "worker/options.h"
#include "worker/rank.h"

enum { OPTIONS_BYTES = 1 << 20 };

static int fail(const status *s) {
    fprintf(stderr, "octant-worker: %s\n", s->message);
    return 1;
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
    if (!status_is_ok(&s)) return fail(&s);
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
