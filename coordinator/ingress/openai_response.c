#include "coordinator/ingress/openai_response.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "coordinator/ingress/octant_field.h"
#include "coordinator/ingress/openai_error.h"
#include "coordinator/ingress/openai_logprobs.h"
#include "coordinator/ingress/sse.h"

enum {
    TOOLS_MAX = 64, // tool calls of one answer
    HEAD_MAX = 16 << 10
}; // a model's name has at most MODEL_NAME_MAX bytes, six times that escaped

typedef struct one_answer {
    bool begun; // streams: the role was said
    buf text;
    buf chat_logprobs;
    openai_text_logprobs text_logprobs;
    buf *tools; // (TOOLS_MAX) whole answers: each tool call so far, but for its closing quote;
                // NULL: none
    answer_finish finish;
} one_answer;

struct openai_response {
    openai_response_options options;
    buf head, rest; // {"id":...,"object":" and what follows the kind
    one_answer answers[];
};

static bool is_chat(const openai_response *r) {
    return r->options.endpoint == OPENAI_CHAT;
}

static void append_text(buf *out, const char *text) {
    json_append_string(out, text, strlen(text));
}

// Every object starts alike but for its kind.
static void make_head(openai_response *r, const openai_response_options *o) {
    buf_append_string(&r->head, "{\"id\":");
    append_text(&r->head, o->id);
    buf_append_string(&r->head, ",\"object\":\"");
    buf_printf(&r->rest, "\",\"created\":%" PRId64 ",\"model\":", o->created);
    append_text(&r->rest, o->model);
    buf_append_string(&r->rest, ",\"system_fingerprint\":");
    append_text(&r->rest, o->fingerprint);
    buf_append_string(&r->rest, ",\"choices\":[");
}

static void begin_object(const openai_response *r, const char *kind, buf *out) {
    buf_append(out, r->head.data, r->head.size);
    buf_append_string(out, kind);
    buf_append(out, r->rest.data, r->rest.size);
}

openai_response *openai_response_create(const openai_response_options *options) {
    openai_response *r = calloc(1, sizeof *r + (size_t)options->answers * sizeof(one_answer));
    if (!r) return NULL;
    r->options = *options;
    r->head = buf_make(HEAD_MAX);
    r->rest = buf_make(HEAD_MAX);
    make_head(r, options);
    r->options.id = r->options.model = r->options.fingerprint = NULL; // the caller's
    for (int i = 0; i < options->answers; i++) {
        r->answers[i].text = buf_make(options->limit);
        r->answers[i].chat_logprobs = buf_make(options->limit);
        r->answers[i].text_logprobs = openai_text_logprobs_make(options->limit);
    }
    return r;
}

void openai_response_free(openai_response *r) {
    if (!r) return;
    for (int i = 0; i < r->options.answers; i++) {
        buf_free(&r->answers[i].text);
        buf_free(&r->answers[i].chat_logprobs);
        for (int k = 0; r->answers[i].tools && k < TOOLS_MAX; k++)
            buf_free(&r->answers[i].tools[k]);
        free(r->answers[i].tools);
        openai_text_logprobs_free(&r->answers[i].text_logprobs);
    }
    buf_free(&r->head);
    buf_free(&r->rest);
    free(r);
}

static one_answer *answer_at(openai_response *r, int index) {
    assert(index >= 0 && index < r->options.answers);
    return &r->answers[index];
}

static void append_finish(buf *out, answer_finish finish) {
    const char *name = answer_finish_name(finish);
    buf_append_string(out, ",\"finish_reason\":");
    if (name)
        append_text(out, name);
    else
        buf_append_string(out, "null");
}

static void append_usage(buf *out, const answer_usage *u) {
    buf_printf(out,
               "\"usage\":{\"prompt_tokens\":%" PRId32 ",\"completion_tokens\":%" PRId32
               ",\"total_tokens\":%" PRId32 ",\"prompt_tokens_details\":{\"cached_tokens\":%" PRId32
               "},\"seed\":%" PRIu64 "}",
               u->prompt_tokens, u->completion_tokens, u->prompt_tokens + u->completion_tokens,
               u->cached_tokens, u->seed);
}

// ---- streams ----

static void begin_chunk(openai_response *r, buf *out) {
    sse_begin(out);
    begin_object(r, is_chat(r) ? "chat.completion.chunk" : "text_completion", out);
}

// `served_by` NULL: as before.
static void end_chunk(openai_response *r, const char *served_by, buf *out) {
    buf_append_string(out, r->options.include_usage ? "}],\"usage\":null" : "}]");
    if (served_by) octant_field_append(out, served_by, NULL);
    buf_append_char(out, '}');
    sse_end(out);
}

static void stream_role(openai_response *r, int index, const char *served_by, buf *out) {
    begin_chunk(r, out);
    buf_printf(
        out,
        "{\"index\":%d,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
        "\"finish_reason\":null",
        index);
    end_chunk(r, served_by, out);
}

static void stream_tool(openai_response *r, const answer_piece *p, buf *out) {
    const answer_tool *t = p->tool;
    begin_chunk(r, out);
    buf_printf(out, "{\"index\":%d,\"delta\":{\"tool_calls\":[{\"index\":%d,", p->index, t->index);
    if (t->id) {
        buf_append_string(out, "\"id\":");
        append_text(out, t->id);
        buf_append_string(out, ",\"type\":\"function\",\"function\":{\"name\":");
        append_text(out, t->name);
        buf_append_string(out, ",\"arguments\":");
    } else {
        buf_append_string(out, "\"function\":{\"arguments\":");
    }
    json_append_string(out, t->arguments, t->size);
    buf_append_string(out, "}}]},\"logprobs\":null,\"finish_reason\":null");
    end_chunk(r, NULL, out);
}

static void stream_chat_piece(openai_response *r, const answer_piece *p, buf *out) {
    one_answer *a = answer_at(r, p->index);
    const char *moved = a->begun ? p->served_by : NULL; // in the middle of the answer
    if (!a->begun) stream_role(r, p->index, p->served_by, out);
    a->begun = true;
    if (p->tool) stream_tool(r, p, out);
    bool logprobs = r->options.logprobs && p->logprobs && p->token_count;
    if (p->size || logprobs) {
        begin_chunk(r, out);
        buf_printf(out, "{\"index\":%d,\"delta\":{\"content\":", p->index);
        json_append_string(out, p->text, p->size);
        buf_append_string(out, "},\"logprobs\":");
        if (logprobs) {
            buf_clear(&a->chat_logprobs);
            openai_chat_logprobs_append(r->options.tokens, p, &a->chat_logprobs);
            buf_printf(out, "{\"content\":[%s],\"refusal\":null}", buf_string(&a->chat_logprobs));
        } else {
            buf_append_string(out, "null");
        }
        append_finish(out, ANSWER_GOES_ON);
        end_chunk(r, moved, out);
    }
    if (p->finish == ANSWER_GOES_ON) return;
    begin_chunk(r, out);
    buf_printf(out, "{\"index\":%d,\"delta\":{},\"logprobs\":null", p->index);
    append_finish(out, p->finish);
    end_chunk(r, NULL, out);
}

static void stream_text_piece(openai_response *r, const answer_piece *p, buf *out) {
    bool logprobs = r->options.logprobs && p->logprobs && p->token_count;
    if (!p->size && !logprobs && p->finish == ANSWER_GOES_ON) return;
    begin_chunk(r, out);
    buf_printf(out, "{\"index\":%d,\"text\":", p->index);
    json_append_string(out, p->text, p->size);
    buf_append_string(out, ",\"logprobs\":");
    if (logprobs) {
        openai_text_logprobs *l = &answer_at(r, p->index)->text_logprobs;
        openai_text_logprobs_clear(l);
        openai_text_logprobs_add(r->options.tokens, p, l);
        openai_text_logprobs_append(l, out);
    } else {
        buf_append_string(out, "null");
    }
    append_finish(out, p->finish);
    end_chunk(r, p->served_by, out);
}

void openai_stream_piece(openai_response *r, const answer_piece *piece, buf *out) {
    if (is_chat(r))
        stream_chat_piece(r, piece, out);
    else
        stream_text_piece(r, piece, out);
}

void openai_stream_end(openai_response *r, const answer_end *end, buf *out) {
    if (end->why.code != STATUS_OK) {
        sse_begin(out);
        openai_error_append(out, openai_error_http(end->why.code), end->why.message, NULL, NULL);
        sse_end(out);
        return;
    }
    if (r->options.include_usage) {
        begin_chunk(r, out);
        buf_append_string(out, "],");
        append_usage(out, &end->usage);
        octant_field_append(out, NULL, &end->usage);
        buf_append_char(out, '}');
        sse_end(out);
    }
    sse_done(out);
}

// ---- whole answers ----

// Parts of several calls may come in turns.
static void collect_tool(openai_response *r, one_answer *a, const answer_tool *t) {
    if (!a->tools) {
        a->tools = calloc(TOOLS_MAX, sizeof *a->tools);
        for (int i = 0; a->tools && i < TOOLS_MAX; i++) a->tools[i] = buf_make(r->options.limit);
    }
    if (!a->tools || t->index < 0 || t->index >= TOOLS_MAX) {
        a->text.failed = true;
        return;
    }
    buf *call = &a->tools[t->index];
    if (!call->size) {
        buf_append_string(call, "{\"id\":");
        append_text(call, t->id ? t->id : "");
        buf_append_string(call, ",\"type\":\"function\",\"function\":{\"name\":");
        append_text(call, t->name ? t->name : "");
        buf_append_string(call, ",\"arguments\":\"");
    }
    json_append_escaped(call, t->arguments, t->size);
}

void openai_collect_piece(openai_response *r, const answer_piece *p) {
    one_answer *a = answer_at(r, p->index);
    if (p->tool) collect_tool(r, a, p->tool);
    buf_append(&a->text, p->text, p->size);
    if (p->finish != ANSWER_GOES_ON) a->finish = p->finish;
    if (!r->options.logprobs || !p->logprobs) return;
    if (is_chat(r))
        openai_chat_logprobs_append(r->options.tokens, p, &a->chat_logprobs);
    else
        openai_text_logprobs_add(r->options.tokens, p, &a->text_logprobs);
}

static void append_tools(const one_answer *a, buf *out) {
    const char *before = ",\"tool_calls\":[";
    for (int i = 0; i < TOOLS_MAX; i++) {
        if (!a->tools[i].size) continue;
        buf_append_string(out, before);
        buf_append(out, a->tools[i].data, a->tools[i].size);
        buf_append_string(out, "\"}}");
        before = ",";
    }
    buf_append_char(out, ']');
}

static bool has_failed(const one_answer *a) {
    bool failed = a->text.failed || a->chat_logprobs.failed || a->text_logprobs.tokens.failed ||
                  a->text_logprobs.top_logprobs.failed;
    for (int i = 0; a->tools && i < TOOLS_MAX; i++) failed = failed || a->tools[i].failed;
    return failed;
}

static void append_choice(openai_response *r, int index, buf *out) {
    const one_answer *a = &r->answers[index];
    buf_printf(out, "%s{\"index\":%d,", index ? "," : "", index);
    buf_append_string(out, is_chat(r) ? "\"message\":{\"role\":\"assistant\",\"content\":"
                                      : "\"text\":");
    if (a->tools && !a->text.size)
        buf_append_string(out, "null");
    else
        json_append_string(out, buf_string(&a->text), a->text.size);
    if (is_chat(r) && a->tools) append_tools(a, out);
    if (is_chat(r)) buf_append_string(out, ",\"refusal\":null}");
    buf_append_string(out, ",\"logprobs\":");
    if (!r->options.logprobs) {
        buf_append_string(out, "null");
    } else if (is_chat(r)) {
        buf_append_string(out, "{\"content\":[");
        buf_append(out, buf_string(&a->chat_logprobs), a->chat_logprobs.size);
        buf_append_string(out, "],\"refusal\":null}");
    } else {
        openai_text_logprobs_append(&a->text_logprobs, out);
    }
    append_finish(out, a->finish);
    buf_append_char(out, '}');
}

bool openai_collect_end(openai_response *r, const answer_end *end, buf *out) {
    assert(end->why.code == STATUS_OK);
    begin_object(r, is_chat(r) ? "chat.completion" : "text_completion", out);
    bool good = true;
    for (int i = 0; i < r->options.answers; i++) {
        good = good && !has_failed(&r->answers[i]);
        append_choice(r, i, out);
    }
    buf_append_string(out, "],");
    append_usage(out, &end->usage);
    octant_field_append(out, NULL, &end->usage);
    buf_append_char(out, '}');
    return good && !out->failed;
}
