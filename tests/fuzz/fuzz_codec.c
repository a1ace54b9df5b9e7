// Any bytes as an upstream's response: the first byte chooses the API, the second how the bytes are
// split; then come header lines to an empty one, and the body. However it is split, the same
// content comes and the same end; an answer is complete only with a reason why it ended; what is
// not complete says why in words of our own. With the first byte's high bit set, the rest is a
// conversation, written for each API: a body that is JSON, or a refusal with a line.
#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/utf8.h"
#include "coordinator/upstream/codec.h"

enum { SAID_MAX = 1 << 22 };

typedef struct outcome_seen {
    buf said;
    bool begun[CODEC_TOOLS_MAX];
    upstream_end end;
} outcome_seen;

static void content(void *owner, const upstream_content *c) {
    outcome_seen *seen = owner;
    assert(!c->text != !c->tool);
    if (c->text) {
        assert(c->size && utf8_is_valid(c->text, c->size));
        buf_append(&seen->said, c->text, c->size);
        return;
    }
    int index = c->tool->index;
    assert(index >= 0 && index < CODEC_TOOLS_MAX && !c->tool->id == seen->begun[index]);
    assert(!c->tool->id == !c->tool->name);
    seen->begun[index] = true;
    buf_printf(&seen->said, "[%d %s]", index, c->tool->id ? c->tool->id : "");
    buf_append(&seen->said, c->tool->arguments, c->tool->size);
}

static outcome_seen respond(const codec_ask *ask, const char *bytes, size_t size, size_t step) {
    outcome_seen seen = {.said = buf_make(SAID_MAX)};
    codec *c = codec_open(ask, 100);
    assert(c);
    while (size) {
        const char *newline = memchr(bytes, '\n', size);
        size_t line = newline ? (size_t)(newline - bytes) + 1 : size;
        codec_header(c, bytes, line, 1767225600);
        bytes += line;
        size -= line;
        if (line <= 2) break;
    }
    codec_sink sink = {&seen, content};
    for (size_t at = 0; at < size; at += step)
        if (!codec_feed(c, bytes + at, size - at < step ? size - at : step, &sink)) break;
    codec_limits limits = codec_limits_seen(c);
    assert(limits.requests_remaining >= -1 && limits.tokens_remaining >= -1);
    codec_finish(c, true, &seen.end);
    codec_close(c);
    return seen;
}

static void check_end(const upstream_end *end) {
    assert((end->outcome == UPSTREAM_OK) == (end->finish != ANSWER_GOES_ON));
    assert((end->outcome == UPSTREAM_OK) == !end->reason[0]);
    assert(end->outcome != UPSTREAM_OK || end->http_status == 200);
    assert(!end->other_target || end->outcome == UPSTREAM_CLIENT);
    assert(end->retry_after_ms >= 0 && (!end->retry_after_ms || end->outcome == UPSTREAM_BUSY));
    const upstream_usage *u = &end->usage;
    assert(u->input_tokens >= 0 && u->output_tokens >= 0 && u->cached_tokens >= 0);
}

static void check_conversation(const codec_ask *ask) {
    buf body = buf_make(CODEC_BODY_MAX);
    status s = codec_body(ask, &body);
    if (s.code == STATUS_OK) {
        json_t *parsed = NULL;
        status good = json_parse(body.data, body.size, &parsed);
        assert(good.code == STATUS_OK && json_is_object(parsed));
        json_decref(parsed);
    } else {
        assert(s.message[0]);
    }
    buf_free(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    upstream_policy target = {.name = "t",
                              .api = data[0] % 4,
                              .base_url = "https://h/v1",
                              .model = "m",
                              .takes_prefill = true,
                              .takes_tools = true,
                              .takes_json = true,
                              .takes_sampling = true};
    char *text = malloc(size - 1);
    memcpy(text, data + 2, size - 2);
    text[size - 2] = 0;
    upstream_prompt prompt = {.messages = text, .temperature = NAN, .top_p = NAN, .seed = -1};
    codec_ask ask = {.target = &target,
                     .prompt = &prompt,
                     .mode = data[1] % 3,
                     .partial = "so far ",
                     .partial_size = 7,
                     .call = 1};
    if (data[0] & 128) {
        check_conversation(&ask);
    } else {
        outcome_seen whole = respond(&ask, text, size - 2, size);
        outcome_seen split = respond(&ask, text, size - 2, 1 + data[1] % 32);
        check_end(&whole.end);
        assert(whole.said.size == split.said.size && whole.end.outcome == split.end.outcome &&
               !strcmp(whole.end.reason, split.end.reason) &&
               !memcmp(&whole.end.usage, &split.end.usage, sizeof whole.end.usage));
        assert(!whole.said.size || !memcmp(whole.said.data, split.said.data, whole.said.size));
        buf_free(&whole.said);
        buf_free(&split.said);
    }
    free(text);
    return 0;
}
