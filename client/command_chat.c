// octant chat: a conversation in the terminal. libedit reads the lines; an interrupt ends the
// answer that is being given, a second one, or Ctrl-D, the program.
#include <editline/readline.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/commands.h"
#include "client/interrupt.h"
#include "client/session.h"
#include "common/base/buf.h"

enum { TURNS_MAX = 512, ANSWER_MAX = 4 << 20 };

typedef struct conversation {
    octant_message messages[2 * TURNS_MAX + 1];
    int count;
    bool has_system;
} conversation;

static void add(conversation *c, const char *role, char *content) {
    c->messages[c->count++] = (octant_message){role, content};
}

// Forgets all but the system message, which is not ours to free.
static void clear(conversation *c) {
    for (int i = c->has_system; i < c->count; i++) free((char *)c->messages[i].content);
    c->count = c->has_system;
}

static bool on_piece(void *user, const char *text, size_t size) {
    fwrite(text, 1, size, stdout);
    fflush(stdout);
    return buf_append(user, text, size) && interrupt_count() == 0;
}

// One turn. An answer that was cut short by an interrupt stays in the conversation as far as it
// came.
static status answer(session *s, conversation *c) {
    buf text = buf_make(ANSWER_MAX);
    octant_result result;
    octant_error error = {0};
    interrupt_cancels(s->client);
    bool good = octant_chat(s->client, s->model, c->messages, c->count, &s->sampling,
                            (double)s->timeout_ns / 1e9, on_piece, &text, &result, &error);
    interrupt_cancels(NULL);
    putchar('\n');
    bool interrupted = interrupt_count() > 0;
    if (good && s->stats)
        fprintf(stderr, "[%d tokens, %.1f s]\n", result.usage.completion_tokens,
                result.usage.total_seconds);
    if (!good && !interrupted) {
        buf_free(&text);
        free((char *)c->messages[--c->count].content); // the question may be asked again
        return session_error(s, &error);
    }
    if (interrupted) interrupt_reset();
    char *kept = buf_take(&text);
    if (!kept) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for the conversation");
    add(c, "assistant", kept);
    return status_ok();
}

static void converse(session *s) {
    static conversation c; // too large for a stack
    if (s->system)
        c.messages[c.count++] = (octant_message){"system", s->system}, c.has_system = true;
    printf("Type a message; /clear forgets, /quit or Ctrl-D leaves, Ctrl-C ends an answer.\n");
    for (char *line; (line = readline("> ")) != NULL;) {
        if (strcmp(line, "/quit") == 0) {
            free(line);
            break;
        }
        if (strcmp(line, "/clear") == 0 || !*line) {
            if (*line) clear(&c);
            free(line);
            continue;
        }
        if (interrupt_count() > 0) interrupt_reset();
        add_history(line);
        if (c.count >= 2 * TURNS_MAX - 1) {
            printf("The conversation has reached %d turns; starting a new one.\n", TURNS_MAX);
            clear(&c);
        }
        add(&c, "user", line);
        status st = answer(s, &c);
        if (!status_is_ok(&st))
            fprintf(stderr, "octant chat: %s: %s\n", status_code_name(st.code), st.message);
    }
    clear(&c);
}

int command_chat(int argc, char **argv) {
    session s;
    const char *words[argc];
    int word_count = 0;
    config_action action = CONFIG_RUN;
    status st = session_create(&s, SESSION_CONNECTION | SESSION_CLUSTER | SESSION_GENERATION);
    if (status_is_ok(&st))
        st = session_parse(&s, "chat", "[options]", "A conversation in the terminal.", argc, argv,
                           words, &word_count, &action);
    if (status_is_ok(&st) && word_count > 0)
        st = status_error(STATUS_INVALID_ARGUMENT, "unexpected '%s'", words[0]);
    if (!status_is_ok(&st)) {
        fprintf(stderr, "octant chat: %s\n", st.message);
        return 2;
    }
    if (action == CONFIG_RUN) {
        st = session_open(&s);
        if (status_is_ok(&st)) converse(&s);
    }
    bool failed = !status_is_ok(&st) && interrupt_count() == 0;
    if (failed) fprintf(stderr, "octant chat: %s: %s\n", status_code_name(st.code), st.message);
    session_close(&s, failed);
    return failed ? 1 : 0;
}
