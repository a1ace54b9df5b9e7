// An answer is a list of blocks: a text, or one tool call. Parts of several calls may come in
// turns: their blocks are open at once, and each delta names its block's index.
#include "coordinator/ingress/anthropic_response.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "coordinator/ingress/anthropic_error.h"
#include "coordinator/ingress/octant_field.h"
#include "coordinator/ingress/openai_error.h"
#include "coordinator/ingress/sse.h"

enum { BLOCKS_MAX = 256, TEXT_BLOCK = -1 };

typedef struct block {
    int tool;        // which of the answer's calls, or TEXT_BLOCK
    bool open;       // streams: started and not stopped
    buf text;        // whole answers: the text, or the call's arguments
    char *id, *name; // whole answers, of a call
} block;

struct anthropic_response {
    char *id, *model;
    int32_t prompt_tokens;
    size_t limit;
    bool begun, failed;
    answer_finish finish;
    int stop; // which stop text ended it, from 1; 0: none
    core_stop stops[CORE_STOP_MAX];
    char stop_bytes[CORE_STOP_MAX * CORE_STOP_BYTES_MAX];
    block blocks[BLOCKS_MAX];
    int count;
};

anthropic_response *anthropic_response_create(const anthropic_response_options *o) {
    anthropic_response *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->id = strdup(o->id);
    r->model = strdup(o->model);
    r->prompt_tokens = o->prompt_tokens;
    r->limit = o->limit;
    assert(o->stop_count <= CORE_STOP_MAX);
    char *at = r->stop_bytes;
    for (int i = 0; i < o->stop_count; at += o->stops[i++].size) {
        assert(o->stops[i].size <= CORE_STOP_BYTES_MAX);
        memcpy(at, o->stops[i].bytes, o->stops[i].size);
        r->stops[i] = (core_stop){at, o->stops[i].size};
    }
    if (r->id && r->model) return r;
    anthropic_response_free(r);
    return NULL;
}

void anthropic_response_free(anthropic_response *r) {
    if (!r) return;
    for (int i = 0; i < r->count; i++) {
        buf_free(&r->blocks[i].text);
        free(r->blocks[i].id);
        free(r->blocks[i].name);
    }
    free(r->id);
    free(r->model);
    free(r);
}

static void append_text(buf *out, const char *text) {
    json_append_string(out, text, strlen(text));
}

// ---- blocks ----

static int find_call(const anthropic_response *r, int tool) {
    for (int i = 0; i < r->count; i++)
        if (r->blocks[i].tool == tool) return i;
    return -1;
}

// A new block's index; -1 (and `failed`): there are too many.
static int add_block(anthropic_response *r, int tool) {
    if (r->count == BLOCKS_MAX) {
        r->failed = true;
        return -1;
    }
    r->blocks[r->count] = (block){.tool = tool, .text = buf_make(r->limit)};
    return r->count++;
}

// The block that this text goes on with: the last one, if it is a text.
static int text_block(const anthropic_response *r) {
    return r->count && r->blocks[r->count - 1].tool == TEXT_BLOCK ? r->count - 1 : -1;
}

// ---- what both forms share ----

static const char *reason_of(const anthropic_response *r) {
    switch (r->finish) {
    case ANSWER_LENGTH:
        return "max_tokens";
    case ANSWER_TOOLS:
        return "tool_use";
    case ANSWER_GOES_ON:
    case ANSWER_STOP:
        break;
    }
    return r->stop ? "stop_sequence" : "end_turn";
}

static void append_stop(const anthropic_response *r, buf *out) {
    buf_printf(out, "\"stop_reason\":\"%s\",\"stop_sequence\":", reason_of(r));
    if (r->stop)
        json_append_string(out, r->stops[r->stop - 1].bytes, r->stops[r->stop - 1].size);
    else
        buf_append_string(out, "null");
}

static void note_finish(anthropic_response *r, const answer_piece *p) {
    if (p->finish == ANSWER_GOES_ON) return;
    r->finish = p->finish;
    r->stop = p->finish == ANSWER_STOP ? p->stop : 0;
}

// What was read from the cache is not among input_tokens here.
static void append_usage(buf *out, const answer_usage *u) {
    buf_printf(out,
               "\"usage\":{\"input_tokens\":%" PRId32 ",\"cache_creation_input_tokens\":0,"
               "\"cache_read_input_tokens\":%" PRId32 ",\"output_tokens\":%" PRId32 "}",
               u->prompt_tokens - u->cached_tokens, u->cached_tokens, u->completion_tokens);
}

static void begin_message(const anthropic_response *r, buf *out) {
    buf_append_string(out, "{\"id\":");
    append_text(out, r->id);
    buf_append_string(out, ",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
    append_text(out, r->model);
    buf_append_string(out, ",\"content\":[");
}

// ---- streams ----

static void begin_event(buf *out, const char *type) {
    buf_printf(out, "event: %s\n", type);
    sse_begin(out);
    buf_printf(out, "{\"type\":\"%s\"", type);
}

static void end_event(buf *out) {
    buf_append_char(out, '}');
    sse_end(out);
}

static void start_message(anthropic_response *r, const char *served_by, buf *out) {
    answer_usage usage = {.prompt_tokens = r->prompt_tokens};
    begin_event(out, "message_start");
    buf_append_string(out, ",\"message\":");
    begin_message(r, out);
    buf_append_string(out, "],\"stop_reason\":null,\"stop_sequence\":null,");
    append_usage(out, &usage);
    if (served_by) octant_field_append(out, served_by, NULL);
    buf_append_char(out, '}');
    end_event(out);
    r->begun = true;
}

static void start_block(anthropic_response *r, int index, const answer_tool *tool, buf *out) {
    begin_event(out, "content_block_start");
    buf_printf(out, ",\"index\":%d,\"content_block\":", index);
    if (tool) {
        buf_append_string(out, "{\"type\":\"tool_use\",\"id\":");
        append_text(out, tool->id);
        buf_append_string(out, ",\"name\":");
        append_text(out, tool->name);
        buf_append_string(out, ",\"input\":{}}");
    } else {
        buf_append_string(out, "{\"type\":\"text\",\"text\":\"\"}");
    }
    end_event(out);
    r->blocks[index].open = true;
    if (index) return;
    begin_event(out, "ping");
    end_event(out);
}

static void stop_block(anthropic_response *r, int index, buf *out) {
    if (!r->blocks[index].open) return;
    r->blocks[index].open = false;
    begin_event(out, "content_block_stop");
    buf_printf(out, ",\"index\":%d", index);
    end_event(out);
}

static void send_delta(int index, const char *kind, const char *bytes, size_t size,
                       const char *served_by, buf *out) {
    begin_event(out, "content_block_delta");
    buf_printf(out, ",\"index\":%d,\"delta\":{%s", index, kind);
    json_append_string(out, bytes, size);
    buf_append_char(out, '}');
    if (served_by) octant_field_append(out, served_by, NULL);
    end_event(out);
}

static void stream_tool(anthropic_response *r, const answer_tool *tool, buf *out) {
    int index = find_call(r, tool->index);
    if (index < 0) {
        if (text_block(r) >= 0) stop_block(r, text_block(r), out);
        index = add_block(r, tool->index);
        if (index < 0) return;
        start_block(r, index, tool, out);
    }
    if (tool->size)
        send_delta(index, "\"type\":\"input_json_delta\",\"partial_json\":", tool->arguments,
                   tool->size, NULL, out);
}

void anthropic_stream_piece(anthropic_response *r, const answer_piece *p, buf *out) {
    const char *moved = r->begun ? p->served_by : NULL; // in the middle of the answer
    if (!r->begun) start_message(r, p->served_by, out);
    if (p->tool) stream_tool(r, p->tool, out);
    if (p->size) {
        int index = text_block(r);
        if (index < 0 && (index = add_block(r, TEXT_BLOCK)) >= 0) start_block(r, index, NULL, out);
        if (index >= 0)
            send_delta(index, "\"type\":\"text_delta\",\"text\":", p->text, p->size, moved, out);
    }
    note_finish(r, p);
    if (r->failed) out->failed = true;
}

void anthropic_stream_end(anthropic_response *r, const answer_end *end, buf *out) {
    if (end->why.code != STATUS_OK) {
        buf_append_string(out, "event: error\n");
        sse_begin(out);
        anthropic_error_append(out, openai_error_http(end->why.code), end->why.message, NULL, NULL);
        sse_end(out);
        return;
    }
    if (!r->begun) start_message(r, NULL, out);
    for (int i = 0; i < r->count; i++) stop_block(r, i, out);
    begin_event(out, "message_delta");
    buf_append_string(out, ",\"delta\":{");
    append_stop(r, out);
    buf_append_string(out, "},");
    append_usage(out, &end->usage);
    octant_field_append(out, NULL, &end->usage);
    end_event(out);
    begin_event(out, "message_stop");
    end_event(out);
}

// ---- whole answers ----

static void collect_tool(anthropic_response *r, const answer_tool *tool) {
    int index = find_call(r, tool->index);
    if (index < 0) {
        index = add_block(r, tool->index);
        if (index < 0) return;
        r->blocks[index].id = strdup(tool->id ? tool->id : "");
        r->blocks[index].name = strdup(tool->name ? tool->name : "");
        if (!r->blocks[index].id || !r->blocks[index].name) r->failed = true;
    }
    buf_append(&r->blocks[index].text, tool->arguments, tool->size);
}

void anthropic_collect_piece(anthropic_response *r, const answer_piece *p) {
    if (p->tool) collect_tool(r, p->tool);
    if (p->size) {
        int index = text_block(r);
        if (index < 0) index = add_block(r, TEXT_BLOCK);
        if (index >= 0) buf_append(&r->blocks[index].text, p->text, p->size);
    }
    note_finish(r, p);
}

// The arguments as they came, if they are an object; else as Anthropic's pages advise to hand on
// JSON that is none (fine-grained tool streaming).
static void append_input(buf *out, const buf *arguments) {
    json_t *object = NULL;
    status s = json_parse(buf_string(arguments), arguments->size, &object);
    bool good = s.code == STATUS_OK && json_is_object(object);
    if (s.code == STATUS_OK) json_decref(object);
    if (good) {
        buf_append(out, arguments->data, arguments->size);
    } else if (!arguments->size) {
        buf_append_string(out, "{}");
    } else {
        buf_append_string(out, "{\"INVALID_JSON\":");
        json_append_string(out, arguments->data, arguments->size);
        buf_append_char(out, '}');
    }
}

static void append_block(buf *out, const block *b) {
    if (b->tool == TEXT_BLOCK) {
        buf_append_string(out, "{\"type\":\"text\",\"text\":");
        json_append_string(out, buf_string(&b->text), b->text.size);
    } else {
        buf_append_string(out, "{\"type\":\"tool_use\",\"id\":");
        append_text(out, b->id);
        buf_append_string(out, ",\"name\":");
        append_text(out, b->name);
        buf_append_string(out, ",\"input\":");
        append_input(out, &b->text);
    }
    buf_append_char(out, '}');
}

bool anthropic_collect_end(anthropic_response *r, const answer_end *end, buf *out) {
    assert(end->why.code == STATUS_OK);
    bool good = !r->failed;
    begin_message(r, out);
    for (int i = 0; good && i < r->count; i++) {
        if (i) buf_append_char(out, ',');
        append_block(out, &r->blocks[i]);
        good = !r->blocks[i].text.failed;
    }
    buf_append_string(out, "],");
    append_stop(r, out);
    buf_append_char(out, ',');
    append_usage(out, &end->usage);
    octant_field_append(out, NULL, &end->usage);
    buf_append_char(out, '}');
    return good && !out->failed;
}
