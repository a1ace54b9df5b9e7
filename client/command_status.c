// octant status and octant top: the coordinator's own account of the cluster, once or every second.
#include <stdio.h>
#include <unistd.h>

#include "client/commands.h"
#include "client/interrupt.h"
#include "client/session.h"
#include "client/show.h"
#include "common/base/clock.h"

enum { TEXT_MAX = 1 << 20 };

static status fetch_text(session *s, buf *out) {
    octant_error error = {0};
    octant_server_info *info = octant_get_server_info(s->client, 5, &error);
    if (!info) return session_error(s, &error);
    show_status(info, out);
    octant_server_info_free(info);
    return status_ok();
}

static status show_once(session *s) {
    buf text = buf_make(TEXT_MAX);
    status st = fetch_text(s, &text);
    fputs(buf_string(&text), stdout);
    buf_free(&text);
    return st;
}

static status show_again(session *s) {
    bool terminal = isatty(STDOUT_FILENO) == 1;
    status st = status_ok();
    while (interrupt_count() == 0 && status_is_ok(&st)) {
        if (terminal) fputs("\033[H\033[J", stdout); // home, clear
        st = show_once(s);
        if (!terminal) putchar('\n');
        fflush(stdout);
        int64_t until = clock_now_ns() + CLOCK_SECOND;
        while (interrupt_count() == 0 && clock_now_ns() < until)
            clock_sleep_until(clock_now_ns() + 50 * CLOCK_MS);
    }
    return st;
}

static int run(int argc, char **argv, const char *name, const char *about,
               status (*show)(session *)) {
    session s;
    const char *words[argc];
    int word_count = 0;
    config_action action = CONFIG_RUN;
    status st = session_create(&s, SESSION_CONNECTION);
    if (status_is_ok(&st))
        st = session_parse(&s, name, "[options]", about, argc, argv, words, &word_count, &action);
    if (status_is_ok(&st) && word_count > 0)
        st = status_error(STATUS_INVALID_ARGUMENT, "unexpected '%s'", words[0]);
    if (!status_is_ok(&st)) {
        fprintf(stderr, "octant %s: %s\n", name, st.message);
        return 2;
    }
    if (action == CONFIG_RUN) {
        st = session_open(&s);
        if (status_is_ok(&st)) st = show(&s);
    }
    if (!status_is_ok(&st))
        fprintf(stderr, "octant %s: %s: %s\n", name, status_code_name(st.code), st.message);
    session_close(&s, false);
    return status_is_ok(&st) ? 0 : 1;
}

int command_status(int argc, char **argv) {
    return run(argc, argv, "status", "Prints groups, ranks, queues and KV use once.", show_once);
}

int command_top(int argc, char **argv) {
    return run(argc, argv, "top", "Prints what status prints, every second, until Ctrl-C.",
               show_again);
}
