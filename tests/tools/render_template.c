// render_template: renders chat templates for tests/golden/template_compare.py. Reads one JSON
// object a line from standard input, {"template", "messages", "tools", "extra",
// "add_generation_prompt", "bos", "eos", "now"}, and writes one a line: {"text"} or {"error"}. A
// template equal to the line's before it is not parsed again.
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/model/chat_template.h"

enum { TEXT_MAX = 64 << 20 };

static status render(const json_t *in, chat_template **t, char **source, buf *out) {
    const json_t *text = json_object_get(in, "template");
    if (!json_is_string(text)) return status_error(STATUS_INVALID_ARGUMENT, "no template");
    if (!*source || strcmp(*source, json_string_value(text))) {
        chat_template_free(*t);
        free(*source);
        *source = strdup(json_string_value(text));
        TRY(chat_template_parse(json_string_value(text), json_string_length(text), t));
    }
    if (!*t) return status_error(STATUS_INVALID_ARGUMENT, "the template did not parse");
    const json_t *tools = json_object_get(in, "tools");
    return chat_template_render(*t, json_object_get(in, "messages"),
                                json_is_null(tools) ? NULL : tools, json_object_get(in, "extra"),
                                json_is_true(json_object_get(in, "add_generation_prompt")),
                                json_string_value(json_object_get(in, "bos")),
                                json_string_value(json_object_get(in, "eos")),
                                json_integer_value(json_object_get(in, "now")), out);
}

int main(void) {
    char *line = NULL, *source = NULL;
    size_t room = 0;
    ssize_t n;
    chat_template *t = NULL;
    while ((n = getline(&line, &room, stdin)) > 0) {
        json_t *in = NULL;
        buf out = buf_make(TEXT_MAX), reply = buf_make(SIZE_MAX / 2);
        status s = json_parse(line, (size_t)n, &in);
        int64_t start = clock_now_ns();
        if (status_is_ok(&s)) s = render(in, &t, &source, &out);
        int64_t took = clock_now_ns() - start;
        bool ok = status_is_ok(&s);
        buf_append_string(&reply, ok ? "{\"text\":" : "{\"error\":");
        if (ok)
            json_append_string(&reply, buf_string(&out), out.size);
        else
            json_append_string(&reply, s.message, strlen(s.message));
        buf_printf(&reply, ",\"ns\":%lld}\n", (long long)took);
        fputs(buf_string(&reply), stdout);
        fflush(stdout);
        buf_free(&reply);
        buf_free(&out);
        json_decref(in);
    }
    chat_template_free(t);
    free(source);
    free(line);
    return 0;
}
