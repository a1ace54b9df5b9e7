// Any bytes as the body of /v1/chat/completions (first byte even), /v1/completions (odd) or
// /v1/messages (with its high bit set): parsed, checked, rendered and tokenised by a small model.
// Each is a request within its limits or a refusal with a line, and nothing leaks.
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../unit/coordinator/ingress/tiny_model.h"
#include "coordinator/ingress/anthropic_request.h"
#include "coordinator/ingress/openai_error.h"
#include "coordinator/ingress/openai_request.h"

static bool no_core(void *core, core_request *request) {
    (void)core;
    (void)request;
    return false;
}

static void check_refusal(const refusal *why) {
    assert(why->why.code != STATUS_OK && why->why.message[0]);
    int http = openai_error_http(why->why.code);
    assert(http >= 400 && http < 500);
    buf body = buf_make(1 << 16);
    openai_refusal_append(&body, why);
    json_t *parsed = NULL;
    status s = json_parse(body.data, body.size, &parsed);
    assert(s.code == STATUS_OK); // an error about bad bytes is itself good JSON
    json_decref(parsed);
    buf_free(&body);
}

static void check_request(const generate_request *g) {
    assert(g->n >= 1 && g->n <= GENERATE_N_MAX && g->stop_count >= 0 &&
           g->stop_count <= GENERATE_STOP_MAX);
    assert(!g->messages == (g->prompt_count > 0));
    assert(g->prompt_count * g->n <= SINK_ANSWERS_MAX);
    for (int i = 0; i < g->stop_count; i++)
        assert(g->stop[i].size >= 1 && g->stop[i].size <= GENERATE_STOP_BYTES_MAX);
}

static void check_generate(const ingress *in, const generate_request *g) {
    check_request(g);
    prepared p;
    refusal why;
    if (!generate_prepare(in, g, &p, &why)) {
        check_refusal(&why);
        return;
    }
    for (int i = 0; i < p.prompt_count; i++)
        assert(p.requests[i]->prompt_count >= 1 && p.requests[i]->prompt_count <= TINY_CONTEXT);
    prepared_free(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static ingress in;
    if (!in.models) {
        in.models = model_registry_create();
        in.default_timeout_ns = in.max_timeout_ns = INT64_C(1000000000);
        in.core.submit = no_core;
        tiny_model_add(in.models, "tiny");
    }
    if (!size) return 0;
    refusal why;
    const char *body = (const char *)data + 1;
    if (data[0] & 128) {
        anthropic_request r;
        if (anthropic_request_parse(body, size - 1, data[0] & 1, &r, &why)) {
            check_generate(&in, &r.generate);
            anthropic_request_free(&r);
        } else {
            check_refusal(&why);
        }
        return 0;
    }
    openai_request r;
    if ((data[0] % 2 ? openai_completion_parse : openai_chat_parse)(body, size - 1, &r, &why)) {
        check_generate(&in, &r.generate);
        openai_request_free(&r);
    } else {
        check_refusal(&why);
    }
    return 0;
}
