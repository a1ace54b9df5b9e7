// octant up: a whole cluster on one machine, in front. Starts again what dies, the coordinator too;
// Ctrl-C drains.
#include <stdio.h>

#include "client/commands.h"
#include "client/interrupt.h"
#include "client/session.h"
#include "client/show.h"
#include "common/base/clock.h"

static void print_where(const session *s) {
    // The first line is for programs: where it listens.
    printf("http://%s  (OpenAI API)\ngrpc://%s  (octant --server %s)\n", s->cluster.http,
           s->cluster.grpc, s->cluster.grpc);
    printf("logs in %s; Ctrl-C drains and stops\n", s->cluster.directory);
    fflush(stdout);
}

static status serve(session *s) {
    while (interrupt_count() == 0) {
        TRY(local_cluster_tend(&s->cluster));
        clock_sleep_until(clock_now_ns() + 100 * CLOCK_MS);
    }
    fprintf(stderr, "octant up: draining; once more to stop at once\n");
    return status_ok();
}

int command_up(int argc, char **argv) {
    session s;
    const char *words[argc];
    int word_count = 0;
    config_action action = CONFIG_RUN;
    status st = session_create(&s, SESSION_CLUSTER | SESSION_STANDING);
    s.server = NULL; // it is the server
    if (status_is_ok(&st))
        st = session_parse(&s, "up", "[options] MODEL",
                           "Starts a coordinator and groups of tensor-parallel ranks with MODEL (a "
                           "GGUF file or a Hugging Face\n"
                           "folder), shows how they load, and serves until Ctrl-C. What dies is "
                           "started again: a group loads anew,\n"
                           "groups of a coordinator that died keep their weights and register "
                           "with the next one. Of a machine's\n"
                           "cards every group gets an even share.",
                           argc, argv, words, &word_count, &action);
    if (status_is_ok(&st) && action == CONFIG_RUN && word_count != 1)
        st = status_error(STATUS_INVALID_ARGUMENT,
                          "one MODEL is expected, not %d; see octant up --help", word_count);
    if (!status_is_ok(&st)) {
        fprintf(stderr, "octant up: %s\n", st.message);
        return 2;
    }
    if (action == CONFIG_RUN) {
        s.up = words[0];
        st = session_open(&s);
        if (status_is_ok(&st)) {
            print_where(&s);
            st = serve(&s);
        }
    }
    bool failed = !status_is_ok(&st) && interrupt_count() == 0;
    if (failed) fprintf(stderr, "octant up: %s\n", st.message);
    session_close(&s, failed);
    return failed ? 1 : 0;
}
