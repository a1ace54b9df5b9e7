// The rules are those of Hugging Face's tokenizers (added_vocabulary.rs): leftmost, then longest; a
// match that single_word refuses is skipped as a whole. One difference: special tokens are left out
// before the longest is chosen, not after, so that plain text cannot hide an added token behind a
// special one.
#include "common/model/added_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/utf8.h"
#include "common/model/unicode_class.h"

void added_tokens_free(added_tokens *a) {
    free(a->tokens);
    free(a->nodes);
    *a = (added_tokens){0};
}

static bool grow(void **items, size_t item_size, size_t count, size_t *room) {
    if (count < *room) return true;
    size_t more = *room ? 2 * *room : 64;
    void *grown = realloc(*items, more * item_size);
    if (!grown) return false;
    *items = grown;
    *room = more;
    return true;
}

static uint32_t child_of(const added_tokens *a, uint32_t node, uint8_t byte) {
    if (node == 0) return a->first[byte];
    uint32_t child = a->nodes[node].child;
    while (child && a->nodes[child].byte != byte) child = a->nodes[child].sibling;
    return child;
}

// A new child; 0 when memory is short.
static uint32_t add_child(added_tokens *a, uint32_t node, uint8_t byte) {
    if (a->node_count >= ADDED_NODES_MAX ||
        !grow((void **)&a->nodes, sizeof *a->nodes, a->node_count, &a->node_room))
        return 0;
    uint32_t child = (uint32_t)a->node_count++;
    a->nodes[child] = (added_node){.token = -1, .byte = byte};
    if (node == 0) {
        a->first[byte] = child;
    } else {
        a->nodes[child].sibling = a->nodes[node].child;
        a->nodes[node].child = child;
    }
    return child;
}

status added_tokens_add(added_tokens *a, const char *text, size_t size, added_token token) {
    if (size == 0 || size > ADDED_TOKEN_BYTES_MAX)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "added token %d has %zu bytes; 1 to %d are possible", token.id, size,
                            ADDED_TOKEN_BYTES_MAX);
    if (a->node_count == 0) {
        if (!grow((void **)&a->nodes, sizeof *a->nodes, 0, &a->node_room)) goto no_memory;
        a->nodes[a->node_count++] = (added_node){.token = -1};
    }
    uint32_t node = 0;
    for (size_t i = 0; i < size; i++) {
        uint32_t child = child_of(a, node, (uint8_t)text[i]);
        if (!child && !(child = add_child(a, node, (uint8_t)text[i]))) goto no_memory;
        node = child;
    }
    if (a->nodes[node].token >= 0)
        return status_error(
            STATUS_INVALID_ARGUMENT, "added tokens %d and %d have the same text '%.*s'",
            a->tokens[a->nodes[node].token].id, token.id, (int)(size < 64 ? size : 64), text);
    if (!grow((void **)&a->tokens, sizeof *a->tokens, a->token_count, &a->token_room))
        goto no_memory;
    a->nodes[node].token = (int32_t)a->token_count;
    a->tokens[a->token_count++] = token;
    return status_ok();
no_memory:
    return status_error(STATUS_RESOURCE_EXHAUSTED, "no room for added token %d", token.id);
}

int32_t added_tokens_find(const added_tokens *a, const char *text, size_t size) {
    uint32_t node = 0;
    for (size_t i = 0; i < size; i++)
        if (!(node = child_of(a, node, (uint8_t)text[i]))) return -1;
    if (size == 0 || a->node_count == 0 || a->nodes[node].token < 0) return -1;
    return a->tokens[a->nodes[node].token].id;
}

// Length of the whitespace that ends at `end`, not reaching before `begin`.
static size_t spaces_before(const char *text, size_t begin, size_t end) {
    size_t start = end;
    while (start > begin) {
        size_t at = start - 1;
        while (at > begin && start - at < 4 && ((unsigned char)text[at] & 0xc0) == 0x80) at--;
        uint32_t c;
        if (utf8_decode(text + at, start - at, &c) != start - at || !unicode_is_space(c)) break;
        start = at;
    }
    return end - start;
}

static size_t spaces_after(const char *text, size_t begin, size_t size) {
    size_t at = begin;
    uint32_t c;
    for (size_t n; at < size; at += n)
        if (!(n = utf8_decode(text + at, size - at, &c)) || !unicode_is_space(c)) break;
    return at - begin;
}

static bool inside_word(const char *text, size_t size, size_t begin, size_t end) {
    uint32_t c;
    if (end < size && utf8_decode(text + end, size - end, &c) && unicode_is_word(c)) return true;
    size_t at = begin;
    while (at > 0 && begin - at < 4) {
        at--;
        if (((unsigned char)text[at] & 0xc0) != 0x80) break;
    }
    return at < begin && utf8_decode(text + at, begin - at, &c) == begin - at && unicode_is_word(c);
}

// The longest token that starts at `at`, or NULL.
static const added_token *longest_at(const added_tokens *a, const char *text, size_t size,
                                     size_t at, bool parse_special, size_t *length) {
    const added_token *best = NULL;
    uint32_t node = 0;
    for (size_t i = at; i < size && (node = child_of(a, node, (uint8_t)text[i])); i++) {
        if (a->nodes[node].token < 0) continue;
        const added_token *token = &a->tokens[a->nodes[node].token];
        if (token->special && !parse_special) continue;
        best = token;
        *length = i + 1 - at;
    }
    return best;
}

bool added_tokens_next(const added_tokens *a, const char *text, size_t size, size_t from,
                       bool parse_special, added_match *out) {
    if (a->token_count == 0) return false;
    for (size_t at = from; at < size; at++) {
        if (!a->first[(uint8_t)text[at]]) continue;
        size_t length = 0;
        const added_token *token = longest_at(a, text, size, at, parse_special, &length);
        if (!token) continue;
        if (token->single_word && inside_word(text, size, at, at + length)) {
            at += length - 1;
            continue;
        }
        out->id = token->id;
        out->begin = at - (token->lstrip ? spaces_before(text, from, at) : 0);
        out->end = at + length + (token->rstrip ? spaces_after(text, at + length, size) : 0);
        return true;
    }
    return false;
}
