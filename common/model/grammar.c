// grammar: see grammar.h. From a source to a checked automaton.
#include "common/model/grammar.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/utf8.h"
#include "common/model/grammar_parts.h"

// The rule of the whole answer, by `what` it is.
static int32_t whole(grammar_builder *b, int32_t *end) {
    int32_t rule = grammar_new_rule(b);
    *end = grammar_new_state(b, rule);
    grammar_accept(b, *end);
    return grammar_entry(b, rule);
}

static void any_object(grammar_builder *b) {
    int32_t end, from = whole(b, &end);
    grammar_call(b, from, grammar_common_rule(b, GRAMMAR_OBJECT), end);
}

static void choice(grammar_builder *b, const json_t *list) {
    int32_t end, from = whole(b, &end);
    if (!json_array_size(list)) grammar_refuse(b, "a choice is a list of at least one text");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *text = json_array_get(list, i);
        if (!json_string_length(text)) grammar_refuse(b, "a choice is a list of texts, none empty");
        grammar_text_to(b, from, json_string_value(text), json_string_length(text), end);
    }
}

static void compile_json(grammar_builder *b, const grammar_source *s) {
    json_t *root = NULL;
    status parsed = json_parse(s->text, s->size, &root);
    if (parsed.code != STATUS_OK)
        b->why = parsed;
    else if (s->kind == GRAMMAR_SCHEMA)
        grammar_schema(b, root);
    else
        choice(b, root);
    if (parsed.code == STATUS_OK) json_decref(root);
}

static void compile(grammar_builder *b, const grammar_source *s) {
    int32_t end = 0;
    switch (s->kind) {
    case GRAMMAR_JSON:
        any_object(b);
        break;
    case GRAMMAR_SCHEMA:
    case GRAMMAR_CHOICE:
        compile_json(b, s);
        break;
    case GRAMMAR_REGEX: {
        int32_t from = whole(b, &end);
        grammar_regex(b, from, s->text, s->size, false, end);
        break;
    }
    default:
        grammar_refuse(b, "no such kind of grammar");
    }
    grammar_finish(b);
}

status grammar_compile(const grammar_source *source, const grammar_alphabet *alphabet,
                       grammar **out) {
    if (source->size > GRAMMAR_TEXT_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "it has %zu bytes; at most %d are taken",
                            source->size, GRAMMAR_TEXT_MAX);
    grammar_builder b = {.g = calloc(1, sizeof(grammar)), .alphabet = alphabet, .why = status_ok()};
    for (int i = 0; i < GRAMMAR_COMMON_COUNT; i++) b.common[i] = -1;
    if (!b.g) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a grammar");
    compile(&b, source);
    if (grammar_fine(&b))
        *out = b.g;
    else
        grammar_destroy(b.g);
    return b.why;
}

void grammar_destroy(grammar *g) {
    if (!g) return;
    free(g->states);
    free(g->edges);
    free(g->rules);
    free(g);
}

int grammar_states(const grammar *g) {
    return g->state_count;
}
