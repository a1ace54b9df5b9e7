#include "client/local_child.h"

#include "common/base/clock.h"
#include "common/base/log.h"

enum { PAUSE_LEAST_MS = 200, PAUSE_MOST_MS = 10000 };

status local_child_start(local_child *c, char *const argv[], const char *log_path) {
    int64_t now = clock_now_ns();
    if (c->away_since_ns == 0) c->away_since_ns = now;
    c->started_ns = now;
    c->ended = c->serves = false;
    status s = process_start(&c->process, c->label, argv, log_path);
    if (!status_is_ok(&s)) c->ended = true, c->ends_in_a_row++;
    return s;
}

static int64_t pause_ns(const local_child *c) {
    int64_t pause = PAUSE_LEAST_MS;
    for (int i = 1; i < c->ends_in_a_row && pause < PAUSE_MOST_MS; i++) pause *= 2;
    return (pause < PAUSE_MOST_MS ? pause : PAUSE_MOST_MS) * CLOCK_MS;
}

bool local_child_is_due(local_child *c) {
    if (process_poll(&c->process)) return false;
    if (!c->ended) {
        char how[64];
        log_warn("up", "%s %s; starting it again", c->label, process_describe(&c->process, how));
        local_child_set_serves(c, false);
        c->ended = true;
        c->ends_in_a_row++;
    }
    return clock_now_ns() >= c->started_ns + pause_ns(c);
}

void local_child_set_serves(local_child *c, bool serves) {
    if (serves)
        c->ends_in_a_row = 0;
    else if (c->serves)
        c->away_since_ns = clock_now_ns();
    c->serves = serves;
}

status local_child_why_ended(const local_child *c, const char *log_path) {
    char message[STATUS_MESSAGE_MAX], how[64];
    if (process_last_error(log_path, message, sizeof message))
        return status_error(STATUS_UNAVAILABLE, "%s", message);
    process_print_tail(log_path, 12);
    return status_error(STATUS_UNAVAILABLE, "%s %s; its last lines are above", c->label,
                        process_describe(&c->process, how));
}
