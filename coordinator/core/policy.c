#include "coordinator/core/policy.h"

const char *privacy_class_name(privacy_class c) {
    static const char *const names[] = {"local-only", "redact-then-leave", "may-leave"};
    return names[c];
}

const char *midstream_policy_name(midstream_policy p) {
    static const char *const names[] = {"replay", "continue", "restart", "error"};
    return names[p];
}

const char *upstream_api_name(upstream_api a) {
    static const char *const names[] = {"openai-chat", "openai-responses", "anthropic", "gemini"};
    return names[a];
}
