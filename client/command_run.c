// octant run: one prompt, one answer. The answer alone goes to standard output; everything else to
// standard error.
#include <stdio.h>
#include <unistd.h>

#include "client/commands.h"
#include "client/interrupt.h"
#include "client/session.h"
#include "common/base/buf.h"

enum { PROMPT_MAX = 16 << 20 };

static bool print_piece(void *user, const char *text, size_t size) {
    (void)user;
    return fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0 && interrupt_count() == 0;
}

static void print_stats(const octant_result *r) {
    const octant_usage *u = &r->usage;
    double decode = u->total_seconds - u->ttft_seconds;
    fprintf(stderr,
            "    %d prompt tokens (%d cached), %d answered in %.2f s: first after %.0f ms, then "
            "%.1f tokens/s; ended by %s\n",
            u->prompt_tokens, u->cached_tokens, u->completion_tokens, u->total_seconds,
            1000 * u->ttft_seconds,
            decode > 0 && u->completion_tokens > 1 ? (u->completion_tokens - 1) / decode : 0,
            r->finish_reason);
}

// The prompt is the words, or standard input when the one word is "-".
static status read_prompt(const char **words, int count, buf *out) {
    if (count == 1 && words[0][0] == '-' && !words[0][1]) {
        char chunk[65536];
        for (size_t got; (got = fread(chunk, 1, sizeof chunk, stdin)) > 0;)
            buf_append(out, chunk, got);
    } else {
        for (int i = 0; i < count; i++) {
            if (i) buf_append_char(out, ' ');
            buf_append_string(out, words[i]);
        }
    }
    if (out->failed)
        return status_error(STATUS_INVALID_ARGUMENT, "the prompt is longer than %d bytes",
                            PROMPT_MAX);
    if (out->size == 0) return status_error(STATUS_INVALID_ARGUMENT, "the prompt is empty");
    return status_ok();
}

static status generate(session *s, const char *prompt, bool raw) {
    octant_message messages[2] = {{"system", s->system}, {"user", prompt}};
    octant_result result;
    octant_error error = {0};
    double timeout = (double)s->timeout_ns / 1e9;
    interrupt_cancels(s->client);
    bool good = raw ? octant_complete(s->client, s->model, prompt, &s->sampling, timeout,
                                      print_piece, NULL, &result, &error)
                    : octant_chat(s->client, s->model, s->system ? messages : messages + 1,
                                  s->system ? 2 : 1, &s->sampling, timeout, print_piece, NULL,
                                  &result, &error);
    interrupt_cancels(NULL);
    if (!good) return session_error(s, &error);
    putchar('\n');
    fflush(stdout);
    if (s->stats) print_stats(&result);
    return status_ok();
}

int command_run(int argc, char **argv) {
    session s;
    bool raw = false;
    const char *words[argc];
    int word_count = 0;
    config_action action = CONFIG_RUN;
    buf prompt = buf_make(PROMPT_MAX);
    status st = session_create(&s, SESSION_CONNECTION | SESSION_CLUSTER | SESSION_GENERATION);
    if (status_is_ok(&st)) {
        session_add(&s, (config_option){"raw", CONFIG_BOOL, &raw, 0, 0, NULL, NULL,
                                        "continue the text; no chat template"});
        st = session_parse(&s, "run", "[options] \"prompt\"   (- reads it from standard input)",
                           "Answers one prompt and prints the answer alone on standard output.",
                           argc, argv, words, &word_count, &action);
    }
    if (status_is_ok(&st) && action == CONFIG_RUN) st = read_prompt(words, word_count, &prompt);
    if (!status_is_ok(&st)) {
        fprintf(stderr, "octant run: %s\n", st.message);
        return 2;
    }
    if (action == CONFIG_RUN) {
        st = session_open(&s);
        if (status_is_ok(&st)) st = generate(&s, buf_string(&prompt), raw);
    }
    bool interrupted = interrupt_count() > 0;
    if (!status_is_ok(&st) && !interrupted)
        fprintf(stderr, "octant run: %s: %s\n", status_code_name(st.code), st.message);
    session_close(&s, !status_is_ok(&st) && !interrupted);
    buf_free(&prompt);
    return interrupted ? 130 : status_is_ok(&st) ? 0 : 1;
}
