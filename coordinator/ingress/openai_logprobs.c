// A token's bytes need not be text by themselves. Chat's form carries the bytes beside the text;
// the older form names such a token "bytes:\xe2\x80", as OpenAI's server does, so that two halves
// of characters do not become the same key.
#include "coordinator/ingress/openai_logprobs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/json.h"
#include "common/base/utf8.h"

// In the fewest digits that read back as the same float. JSON has no minus infinity; OpenAI says
// -9999 for what cannot happen.
static void append_logprob(buf *out, float logprob) {
    if (isnan(logprob)) {
        buf_append_string(out, "null");
        return;
    }
    float shown = logprob > -9999.0F ? logprob : -9999.0F;
    char text[32];
    for (int digits = 4; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)shown);
        if (strtof(text, NULL) == shown) break;
    }
    buf_append_string(out, text);
}

static void append_chat_token(const tokenizer *t, int32_t id, float logprob, buf *out) {
    size_t size = 0;
    const char *bytes = tokenizer_token_bytes(t, id, &size);
    buf_append_string(out, "{\"token\":");
    json_append_string(out, bytes, size);
    buf_append_string(out, ",\"logprob\":");
    append_logprob(out, logprob);
    buf_append_string(out, ",\"bytes\":[");
    for (size_t i = 0; i < size; i++) buf_printf(out, i ? ",%d" : "%d", (unsigned char)bytes[i]);
    buf_append_char(out, ']');
}

void openai_chat_logprobs_append(const tokenizer *t, const answer_piece *piece, buf *items) {
    for (int i = 0; i < piece->token_count; i++) {
        const answer_logprob *l = &piece->logprobs[i];
        if (items->size) buf_append_char(items, ',');
        append_chat_token(t, piece->tokens[i], l->logprob, items);
        buf_append_string(items, ",\"top_logprobs\":[");
        for (int j = 0; j < l->top_count; j++) {
            if (j) buf_append_char(items, ',');
            append_chat_token(t, l->top[j].id, l->top[j].logprob, items);
            buf_append_char(items, '}');
        }
        buf_append_string(items, "]}");
    }
}

openai_text_logprobs openai_text_logprobs_make(size_t limit) {
    return (openai_text_logprobs){.tokens = buf_make(limit),
                                  .token_logprobs = buf_make(limit),
                                  .top_logprobs = buf_make(limit),
                                  .text_offset = buf_make(limit)};
}

void openai_text_logprobs_free(openai_text_logprobs *l) {
    buf_free(&l->tokens);
    buf_free(&l->token_logprobs);
    buf_free(&l->top_logprobs);
    buf_free(&l->text_offset);
}

void openai_text_logprobs_clear(openai_text_logprobs *l) {
    buf_clear(&l->tokens);
    buf_clear(&l->token_logprobs);
    buf_clear(&l->top_logprobs);
    buf_clear(&l->text_offset);
}

static void append_text_token(const tokenizer *t, int32_t id, buf *out) {
    size_t size = 0;
    const char *bytes = tokenizer_token_bytes(t, id, &size);
    if (utf8_is_valid(bytes, size)) {
        json_append_string(out, bytes, size);
        return;
    }
    buf_append_string(out, "\"bytes:");
    for (size_t i = 0; i < size; i++) buf_printf(out, "\\\\x%02x", (unsigned char)bytes[i]);
    buf_append_char(out, '"');
}

static int64_t code_points(const tokenizer *t, int32_t id) {
    size_t size = 0;
    int64_t count = 0;
    const char *bytes = tokenizer_token_bytes(t, id, &size);
    for (size_t i = 0; i < size; i++) count += ((unsigned char)bytes[i] & 0xC0) != 0x80;
    return count;
}

// {"token": logprob, ...} with the sampled token in it even when it is not among the most likely.
static void append_top(const tokenizer *t, int32_t id, const answer_logprob *l, buf *out) {
    if (isnan(l->logprob)) {
        buf_append_string(out, "null");
        return;
    }
    bool listed = false;
    buf_append_char(out, '{');
    for (int i = 0; i < l->top_count; i++) {
        if (i) buf_append_char(out, ',');
        append_text_token(t, l->top[i].id, out);
        buf_append_char(out, ':');
        append_logprob(out, l->top[i].logprob);
        listed |= l->top[i].id == id;
    }
    if (!listed) {
        if (l->top_count) buf_append_char(out, ',');
        append_text_token(t, id, out);
        buf_append_char(out, ':');
        append_logprob(out, l->logprob);
    }
    buf_append_char(out, '}');
}

void openai_text_logprobs_add(const tokenizer *t, const answer_piece *piece,
                              openai_text_logprobs *l) {
    for (int i = 0; i < piece->token_count; i++) {
        if (l->tokens.size) {
            buf_append_char(&l->tokens, ',');
            buf_append_char(&l->token_logprobs, ',');
            buf_append_char(&l->top_logprobs, ',');
            buf_append_char(&l->text_offset, ',');
        }
        append_text_token(t, piece->tokens[i], &l->tokens);
        append_logprob(&l->token_logprobs, piece->logprobs[i].logprob);
        append_top(t, piece->tokens[i], &piece->logprobs[i], &l->top_logprobs);
        buf_printf(&l->text_offset, "%lld", (long long)l->offset);
        l->offset += code_points(t, piece->tokens[i]);
    }
}

void openai_text_logprobs_append(const openai_text_logprobs *l, buf *out) {
    buf_printf(out, "{\"tokens\":[%s],\"token_logprobs\":[%s],", buf_string(&l->tokens),
               buf_string(&l->token_logprobs));
    buf_printf(out, "\"top_logprobs\":[%s],\"text_offset\":[%s]}", buf_string(&l->top_logprobs),
               buf_string(&l->text_offset));
}
