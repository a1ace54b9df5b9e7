// The requests of inference_msg: ChatRequest, CompleteRequest, TokenizeRequest.
#include <stdlib.h>
#include <string.h>

#include "common/base/utf8.h"
#include "inference.pb-c.h"
#include "proto/inference_msg.h"
#include "proto/protobuf.h"

// protobuf-c decodes into the arena already, so structs point there; only the NUL behind a text is
// missing.
static status text_of(arena *memory, const char *field, ProtobufCBinaryData data,
                      inference_text *out) {
    *out = (inference_text){NULL, 0};
    if (data.len == 0) return status_ok();
    if (!utf8_is_valid((const char *)data.data, data.len))
        return status_error(STATUS_INVALID_ARGUMENT, "%s is not valid UTF-8", field);
    char *copy = arena_copy(memory, (const char *)data.data, data.len);
    if (!copy)
        return status_error(STATUS_INVALID_ARGUMENT, "%s: the message is too large when decoded",
                            field);
    *out = (inference_text){copy, data.len};
    return status_ok();
}

static ProtobufCBinaryData data_of(inference_text text) {
    return (ProtobufCBinaryData){.len = text.size, .data = (uint8_t *)text.bytes};
}

static status too_large(const char *what) {
    return status_error(STATUS_INVALID_ARGUMENT, "%s: the message is too large when decoded", what);
}

static status decode_bias(arena *memory, const Octant__V1__Sampling *m, sampling *out) {
    if (m->n_logit_bias > SAMPLING_BIAS_MAX)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "logit_bias has %zu entries; at most %d are taken", m->n_logit_bias,
                            SAMPLING_BIAS_MAX);
    sampling_bias *bias = arena_alloc_array(memory, m->n_logit_bias, sizeof *bias);
    if (!bias) return too_large("logit_bias");
    for (size_t i = 0; i < m->n_logit_bias; i++)
        bias[i] = (sampling_bias){m->logit_bias[i]->key, m->logit_bias[i]->value};
    out->bias = bias;
    out->bias_count = (int32_t)m->n_logit_bias;
    return status_ok();
}

static status decode_choices(arena *memory, const Octant__V1__Texts *m, inference_sampling *out) {
    if (m->n_texts > INFERENCE_CHOICES_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "choice has %zu texts; at most %d are taken",
                            m->n_texts, INFERENCE_CHOICES_MAX);
    inference_text *texts = arena_alloc_array(memory, m->n_texts, sizeof *texts);
    if (!texts) return too_large("choice");
    for (size_t i = 0; i < m->n_texts; i++)
        TRY(text_of(memory, "choice.texts", m->texts[i], &texts[i]));
    out->form = GRAMMAR_CHOICE;
    out->choices = texts;
    out->choice_count = (int)m->n_texts;
    return status_ok();
}

static status decode_form(arena *memory, const Octant__V1__Sampling *m, inference_sampling *out) {
    switch (m->form_case) {
    case OCTANT__V1__SAMPLING__FORM_JSON_OBJECT:
        if (m->json_object) out->form = GRAMMAR_JSON;
        return status_ok();
    case OCTANT__V1__SAMPLING__FORM_JSON_SCHEMA:
        out->form = GRAMMAR_SCHEMA;
        return text_of(memory, "json_schema", m->json_schema, &out->form_text);
    case OCTANT__V1__SAMPLING__FORM_REGEX:
        out->form = GRAMMAR_REGEX;
        return text_of(memory, "regex", m->regex, &out->form_text);
    case OCTANT__V1__SAMPLING__FORM_CHOICE:
        return decode_choices(memory, m->choice, out);
    default:
        return status_ok();
    }
}

static status decode_sampling(arena *memory, const Octant__V1__Sampling *m,
                              inference_sampling *out) {
    *out = (inference_sampling){.values = sampling_default(), .n = 1};
    if (!m) return status_ok();
    sampling *v = &out->values;
    if (m->has_max_tokens_case) out->max_tokens = m->max_tokens, out->set |= INFERENCE_MAX_TOKENS;
    if (m->has_n_case) out->n = m->n, out->set |= INFERENCE_N;
    if (m->has_seed_case) v->seed = m->seed, out->set |= INFERENCE_SEED;
    if (m->has_temperature_case) v->temperature = m->temperature;
    if (m->has_top_k_case) v->top_k = m->top_k;
    if (m->has_top_p_case) v->top_p = m->top_p;
    if (m->has_min_p_case) v->min_p = m->min_p;
    if (m->has_repetition_penalty_case) v->repetition_penalty = m->repetition_penalty;
    if (m->has_presence_penalty_case) v->presence_penalty = m->presence_penalty;
    if (m->has_frequency_penalty_case) v->frequency_penalty = m->frequency_penalty;
    if (m->has_logprobs_case) v->logprobs = m->logprobs;
    if (m->has_ignore_eos_case) out->ignore_eos = m->ignore_eos;
    if (m->n_stop > INFERENCE_STOP_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "stop has %zu texts; at most %d are taken",
                            m->n_stop, INFERENCE_STOP_MAX);
    for (size_t i = 0; i < m->n_stop; i++) TRY(text_of(memory, "stop", m->stop[i], &out->stop[i]));
    out->stop_count = (int)m->n_stop;
    TRY(decode_form(memory, m, out));
    return decode_bias(memory, m, v);
}

static status decode_chat(const Octant__V1__ChatRequest *m, inference_request *out) {
    out->kind = INFERENCE_CHAT;
    TRY(text_of(out->memory, "model", m->model, &out->model));
    TRY(text_of(out->memory, "client", m->client, &out->client));
    if (m->n_messages > INFERENCE_MESSAGES_MAX)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "messages has %zu entries; at most %d are taken", m->n_messages,
                            INFERENCE_MESSAGES_MAX);
    inference_message *messages = arena_alloc_array(out->memory, m->n_messages, sizeof *messages);
    if (!messages) return too_large("messages");
    for (size_t i = 0; i < m->n_messages; i++) {
        TRY(text_of(out->memory, "messages.role", m->messages[i]->role, &messages[i].role));
        TRY(text_of(out->memory, "messages.content", m->messages[i]->content,
                    &messages[i].content));
    }
    out->messages = messages;
    out->message_count = (int)m->n_messages;
    return decode_sampling(out->memory, m->sampling, &out->sampling);
}

static status decode_complete(const Octant__V1__CompleteRequest *m, inference_request *out) {
    TRY(text_of(out->memory, "model", m->model, &out->model));
    TRY(text_of(out->memory, "client", m->client, &out->client));
    out->echo = m->echo;
    switch (m->input_case) {
    case OCTANT__V1__COMPLETE_REQUEST__INPUT_PROMPT:
        out->kind = INFERENCE_PROMPT;
        TRY(text_of(out->memory, "prompt", m->prompt, &out->prompt));
        break;
    case OCTANT__V1__COMPLETE_REQUEST__INPUT_PROMPT_TOKENS:
        out->kind = INFERENCE_TOKENS;
        out->tokens = m->prompt_tokens->ids;
        out->token_count = (int)m->prompt_tokens->n_ids;
        break;
    default:
        return status_error(STATUS_INVALID_ARGUMENT,
                            "prompt is missing; give prompt or prompt_tokens");
    }
    return decode_sampling(out->memory, m->sampling, &out->sampling);
}

static status decode_tokenize(const Octant__V1__TokenizeRequest *m, inference_request *out) {
    switch (m->input_case) {
    case OCTANT__V1__TOKENIZE_REQUEST__INPUT_TEXT:
        out->kind = INFERENCE_PROMPT;
        TRY(text_of(out->memory, "text", m->text, &out->prompt));
        break;
    case OCTANT__V1__TOKENIZE_REQUEST__INPUT_CHAT:
        TRY(decode_chat(m->chat, out));
        break;
    default:
        return status_error(STATUS_INVALID_ARGUMENT, "input is missing; give text or chat");
    }
    if (m->model.len == 0 && out->kind == INFERENCE_CHAT) return status_ok();
    return text_of(out->memory, "model", m->model, &out->model);
}

// Frees what an error leaves behind.
static status settle(status s, inference_request *out) {
    if (!status_is_ok(&s)) {
        arena_destroy(out->memory);
        *out = (inference_request){0};
    }
    return s;
}

status inference_chat_decode(const void *bytes, size_t size, inference_request *out) {
    *out = (inference_request){.sampling = {.values = sampling_default(), .n = 1}};
    ProtobufCMessage *m;
    TRY(protobuf_decode(&octant__v1__chat_request__descriptor, "ChatRequest", bytes, size,
                        &out->memory, &m));
    return settle(decode_chat((const Octant__V1__ChatRequest *)m, out), out);
}

status inference_complete_decode(const void *bytes, size_t size, inference_request *out) {
    *out = (inference_request){.sampling = {.values = sampling_default(), .n = 1}};
    ProtobufCMessage *m;
    TRY(protobuf_decode(&octant__v1__complete_request__descriptor, "CompleteRequest", bytes, size,
                        &out->memory, &m));
    return settle(decode_complete((const Octant__V1__CompleteRequest *)m, out), out);
}

status inference_tokenize_decode(const void *bytes, size_t size, inference_request *out) {
    *out = (inference_request){.sampling = {.values = sampling_default(), .n = 1}};
    ProtobufCMessage *m;
    TRY(protobuf_decode(&octant__v1__tokenize_request__descriptor, "TokenizeRequest", bytes, size,
                        &out->memory, &m));
    return settle(decode_tokenize((const Octant__V1__TokenizeRequest *)m, out), out);
}

// ---- encoding; the protobuf structs only borrow, their arrays come from `memory` ----

// Sets an optional field where it differs from the default: the server's default is the same.
#define SET(field, case_name, have, value)                                                         \
    do {                                                                                           \
        if (have)                                                                                  \
            m->has_##field##_case = OCTANT__V1__SAMPLING__HAS_##case_name##_##case_name,           \
            m->field = (value);                                                                    \
    } while (0)

static void encode_sampling_values(const inference_sampling *s, Octant__V1__Sampling *m) {
    const sampling *v = &s->values, d = sampling_default();
    SET(max_tokens, MAX_TOKENS, s->set & INFERENCE_MAX_TOKENS, s->max_tokens);
    SET(n, N, s->set & INFERENCE_N, s->n);
    SET(seed, SEED, s->set & INFERENCE_SEED, v->seed);
    SET(temperature, TEMPERATURE, v->temperature != d.temperature, v->temperature);
    SET(top_k, TOP_K, v->top_k != d.top_k, v->top_k);
    SET(top_p, TOP_P, v->top_p != d.top_p, v->top_p);
    SET(min_p, MIN_P, v->min_p != d.min_p, v->min_p);
    SET(repetition_penalty, REPETITION_PENALTY, v->repetition_penalty != d.repetition_penalty,
        v->repetition_penalty);
    SET(presence_penalty, PRESENCE_PENALTY, v->presence_penalty != d.presence_penalty,
        v->presence_penalty);
    SET(frequency_penalty, FREQUENCY_PENALTY, v->frequency_penalty != d.frequency_penalty,
        v->frequency_penalty);
    SET(logprobs, LOGPROBS, v->logprobs >= 0, v->logprobs);
    SET(ignore_eos, IGNORE_EOS, s->ignore_eos, true);
}

static bool encode_choices(arena *memory, const inference_sampling *s, Octant__V1__Sampling *m) {
    Octant__V1__Texts *to = arena_alloc(memory, sizeof *to);
    size_t count = (size_t)s->choice_count;
    ProtobufCBinaryData *texts = arena_alloc_array(memory, count, sizeof *texts);
    if (!to || !texts) return false;
    *to = (Octant__V1__Texts)OCTANT__V1__TEXTS__INIT;
    for (size_t i = 0; i < count; i++) texts[i] = data_of(s->choices[i]);
    to->n_texts = count;
    to->texts = texts;
    m->choice = to;
    m->form_case = OCTANT__V1__SAMPLING__FORM_CHOICE;
    return true;
}

static bool encode_form(arena *memory, const inference_sampling *s, Octant__V1__Sampling *m) {
    switch (s->form) {
    case GRAMMAR_JSON:
        m->json_object = true;
        m->form_case = OCTANT__V1__SAMPLING__FORM_JSON_OBJECT;
        return true;
    case GRAMMAR_SCHEMA:
        m->json_schema = data_of(s->form_text);
        m->form_case = OCTANT__V1__SAMPLING__FORM_JSON_SCHEMA;
        return true;
    case GRAMMAR_REGEX:
        m->regex = data_of(s->form_text);
        m->form_case = OCTANT__V1__SAMPLING__FORM_REGEX;
        return true;
    case GRAMMAR_CHOICE:
        return encode_choices(memory, s, m);
    default:
        return true;
    }
}

static bool encode_sampling(arena *memory, const inference_sampling *s, Octant__V1__Sampling *m) {
    *m = (Octant__V1__Sampling)OCTANT__V1__SAMPLING__INIT;
    encode_sampling_values(s, m);
    m->n_stop = (size_t)s->stop_count;
    m->stop = arena_alloc_array(memory, m->n_stop, sizeof *m->stop);
    size_t bias_count = (size_t)s->values.bias_count;
    Octant__V1__Sampling__LogitBiasEntry *entries =
        arena_alloc_array(memory, bias_count, sizeof *entries);
    m->logit_bias = arena_alloc_array(memory, bias_count, sizeof *m->logit_bias);
    if (!m->stop || !entries || !m->logit_bias) return false;
    for (size_t i = 0; i < m->n_stop; i++) m->stop[i] = data_of(s->stop[i]);
    m->n_logit_bias = bias_count;
    for (size_t i = 0; i < bias_count; i++) {
        entries[i] =
            (Octant__V1__Sampling__LogitBiasEntry)OCTANT__V1__SAMPLING__LOGIT_BIAS_ENTRY__INIT;
        entries[i].key = s->values.bias[i].id;
        entries[i].value = s->values.bias[i].bias;
        m->logit_bias[i] = &entries[i];
    }
    return encode_form(memory, s, m);
}

static bool encode_messages(arena *memory, const inference_request *r, Octant__V1__ChatRequest *m) {
    *m = (Octant__V1__ChatRequest)OCTANT__V1__CHAT_REQUEST__INIT;
    m->model = data_of(r->model);
    m->client = data_of(r->client);
    m->n_messages = (size_t)r->message_count;
    Octant__V1__Message *messages = arena_alloc_array(memory, m->n_messages, sizeof *messages);
    m->messages = arena_alloc_array(memory, m->n_messages, sizeof *m->messages);
    if (!messages || !m->messages) return false;
    for (size_t i = 0; i < m->n_messages; i++) {
        messages[i] = (Octant__V1__Message)OCTANT__V1__MESSAGE__INIT;
        messages[i].role = data_of(r->messages[i].role);
        messages[i].content = data_of(r->messages[i].content);
        m->messages[i] = &messages[i];
    }
    return true;
}

static status encode_chat(arena *memory, const inference_request *r, Octant__V1__Sampling *sampling,
                          buf *out) {
    Octant__V1__ChatRequest m;
    if (!encode_messages(memory, r, &m))
        return status_error(STATUS_RESOURCE_EXHAUSTED, "ChatRequest: no memory");
    m.sampling = sampling;
    return protobuf_encode(&m.base, "ChatRequest", out);
}

static status encode_complete(const inference_request *r, Octant__V1__Sampling *sampling,
                              buf *out) {
    Octant__V1__CompleteRequest m = OCTANT__V1__COMPLETE_REQUEST__INIT;
    Octant__V1__TokenIds ids = OCTANT__V1__TOKEN_IDS__INIT;
    m.model = data_of(r->model);
    m.client = data_of(r->client);
    m.echo = r->echo;
    m.sampling = sampling;
    if (r->kind == INFERENCE_TOKENS) {
        ids.n_ids = (size_t)r->token_count;
        ids.ids = (int32_t *)r->tokens;
        m.input_case = OCTANT__V1__COMPLETE_REQUEST__INPUT_PROMPT_TOKENS;
        m.prompt_tokens = &ids;
    } else {
        m.input_case = OCTANT__V1__COMPLETE_REQUEST__INPUT_PROMPT;
        m.prompt = data_of(r->prompt);
    }
    return protobuf_encode(&m.base, "CompleteRequest", out);
}

// Memory that the borrowed structs of one encoding need at most.
static arena *scratch_for(const inference_request *r) {
    size_t entries = (size_t)r->message_count + (size_t)r->sampling.values.bias_count +
                     INFERENCE_STOP_MAX + (size_t)r->sampling.choice_count;
    return arena_create(entries * 256 + 4096);
}

status inference_request_encode(const inference_request *r, buf *out) {
    arena *memory = scratch_for(r);
    Octant__V1__Sampling sampling;
    status s = status_error(STATUS_RESOURCE_EXHAUSTED, "request: no memory");
    if (memory && encode_sampling(memory, &r->sampling, &sampling))
        s = r->kind == INFERENCE_CHAT ? encode_chat(memory, r, &sampling, out)
                                      : encode_complete(r, &sampling, out);
    arena_destroy(memory);
    return s;
}

status inference_tokenize_encode(const inference_request *r, buf *out) {
    arena *memory = scratch_for(r);
    Octant__V1__TokenizeRequest m = OCTANT__V1__TOKENIZE_REQUEST__INIT;
    Octant__V1__ChatRequest chat;
    m.model = data_of(r->model);
    if (!memory || (r->kind == INFERENCE_CHAT && !encode_messages(memory, r, &chat))) {
        arena_destroy(memory);
        return status_error(STATUS_RESOURCE_EXHAUSTED, "TokenizeRequest: no memory");
    }
    if (r->kind == INFERENCE_CHAT) {
        m.input_case = OCTANT__V1__TOKENIZE_REQUEST__INPUT_CHAT;
        m.chat = &chat;
    } else {
        m.input_case = OCTANT__V1__TOKENIZE_REQUEST__INPUT_TEXT;
        m.text = data_of(r->prompt);
    }
    status s = protobuf_encode(&m.base, "TokenizeRequest", out);
    arena_destroy(memory);
    return s;
}
