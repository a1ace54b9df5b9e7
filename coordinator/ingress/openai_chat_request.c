#include <limits.h>

#include "common/base/json.h"
#include "coordinator/ingress/body_fields.h"
#include "coordinator/ingress/openai_format.h"
#include "coordinator/ingress/openai_messages.h"
#include "coordinator/ingress/openai_parameters.h"
#include "coordinator/ingress/openai_request.h"
#include "coordinator/ingress/openai_tools.h"

static bool parse_max_tokens(const json_t *body, generate_request *g, refusal *why) {
    int64_t old_name = -1, new_name = -1;
    if (!body_int(body, "max_tokens", 1, INT_MAX, &old_name, why) ||
        !body_int(body, "max_completion_tokens", 1, INT_MAX, &new_name, why))
        return false;
    if (old_name > 0 && new_name > 0)
        return refuse(
            why, STATUS_INVALID_ARGUMENT, "max_tokens", "invalid_parameter_combination",
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.");
    g->max_tokens = (int)(new_name > 0 ? new_name : old_name);
    return true;
}

static bool parse_logprobs(const json_t *body, generate_request *g, refusal *why) {
    bool wanted = false;
    int64_t top = 0;
    if (!body_bool(body, "logprobs", &wanted, why) ||
        !body_int(body, "top_logprobs", 0, SAMPLING_LOGPROBS_MAX, &top, why))
        return false;
    if (!wanted && body_field(body, "top_logprobs"))
        return refuse(why, STATUS_INVALID_ARGUMENT, "top_logprobs", "invalid_value",
                      "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.");
    if (wanted) g->sampling.logprobs = (int32_t)top;
    return true;
}

bool openai_chat_parse(const char *body, size_t size, openai_request *out, refusal *why) {
    generate_request *g = &out->generate;
    if (openai_parameters_parse(OPENAI_CHAT, body, size, out, why) &&
        parse_max_tokens(out->body, g, why) && parse_logprobs(out->body, g, why) &&
        openai_tools_parse(out->body, g, why) && openai_format_parse(out->body, g, why) &&
        openai_messages_parse(out->body, &g->messages, &g->seams, why))
        return true;
    openai_request_free(out);
    return false;
}

bool openai_has_messages(const char *body, size_t size) {
    json_t *object = NULL;
    status s = json_parse(body, size, &object);
    bool has = s.code == STATUS_OK && json_object_get(object, "messages");
    if (s.code == STATUS_OK) json_decref(object);
    return has;
}

void openai_request_free(openai_request *r) {
    generate_request_free(&r->generate);
    json_decref(r->body);
    r->body = NULL;
}
