// grammar_parts: the automaton itself, and the verbs that build one. Only the files grammar*.c
// include this.
//
// An automaton is a list of rules; a rule is a nondeterministic automaton over bytes, one of whose
// edges may be "another rule, then go on there". A rule may count: an AGAIN edge takes one more of
// what it repeats, an ENOUGH edge leaves when there are enough; least and most are the rule's, the
// count is of one run through it.
#ifndef OCTANT_MODEL_GRAMMAR_PARTS_H
#define OCTANT_MODEL_GRAMMAR_PARTS_H

#include "common/model/grammar.h"

struct json_t;

enum {
    GRAMMAR_EDGES_MAX = 1 << 18,
    GRAMMAR_RULES_MAX = 1 << 13,
    GRAMMAR_ENDLESS = 1 << 20, // height of what cannot end
};
#define GRAMMAR_UNBOUNDED INT32_MAX // most

typedef enum grammar_edge_kind {
    GRAMMAR_BYTES, // one byte of [low, high]
    GRAMMAR_EMPTY,
    GRAMMAR_CALL,   // a rule
    GRAMMAR_AGAIN,  // while the count is below most: count one
    GRAMMAR_ENOUGH, // when the count is at least least
} grammar_edge_kind;

typedef struct grammar_edge {
    uint8_t kind, low, high;
    int32_t rule; // CALL
    int32_t to;
    int32_t next; // of the same state; -1: the last
} grammar_edge;

typedef struct grammar_state {
    int32_t first, last; // edges, in the order in which they were made; -1: none
    int32_t rule;
    int32_t height; // rules within rules that it takes at least to come to the rule's end
    bool accepts;   // the rule may end here
    bool reads;     // has a BYTES edge
    bool ends;      // accepts and has no edges: a call that goes on here need not come back
} grammar_state;

typedef struct grammar_rule {
    int32_t entry;
    int32_t least, most; // counted; 0, 0: it does not count
    bool counts;
} grammar_rule;

struct grammar {
    grammar_state *states;
    grammar_edge *edges;
    grammar_rule *rules; // rules[0] is the whole answer
    int32_t state_count, edge_count, rule_count;
    int32_t state_room, edge_room, rule_room;
};

// While it is built. The first error sticks; verbs after it do nothing and return 0.
enum { GRAMMAR_PATH_MAX = 200 };
typedef enum grammar_common {
    GRAMMAR_SPACE, // nothing, a space, or a line break and up to 32 spaces
    GRAMMAR_ANY,   // a JSON value
    GRAMMAR_OBJECT,
    GRAMMAR_ARRAY,
    GRAMMAR_STRING,
    GRAMMAR_NUMBER,
    GRAMMAR_INTEGER,
    GRAMMAR_BOOLEAN,
    GRAMMAR_NULL,
    GRAMMAR_COMMON_COUNT
} grammar_common;

typedef struct grammar_builder {
    grammar *g;
    const grammar_alphabet *alphabet;
    status why;
    char path[GRAMMAR_PATH_MAX];          // where in the source: for errors
    int32_t common[GRAMMAR_COMMON_COUNT]; // rules; -1: not made yet
} grammar_builder;

bool grammar_fine(const grammar_builder *b);
// INVALID_ARGUMENT with the path.
void grammar_refuse(grammar_builder *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

int32_t grammar_new_rule(grammar_builder *b); // with an entry
void grammar_count_rule(grammar_builder *b, int32_t rule, int32_t least, int32_t most);
int32_t grammar_entry(const grammar_builder *b, int32_t rule);
int32_t grammar_new_state(grammar_builder *b, int32_t rule);
int32_t grammar_state_beside(grammar_builder *b, int32_t state); // of the same rule
void grammar_accept(grammar_builder *b, int32_t state);
void grammar_bytes(grammar_builder *b, int32_t from, int low, int high, int32_t to);
void grammar_empty(grammar_builder *b, int32_t from, int32_t to);
void grammar_call(grammar_builder *b, int32_t from, int32_t rule, int32_t to);
void grammar_again(grammar_builder *b, int32_t from, int32_t to);
void grammar_enough(grammar_builder *b, int32_t from, int32_t to);

// The state behind a text, which shares the start of its way with texts added from `from` before.
int32_t grammar_text(grammar_builder *b, int32_t from, const char *bytes, size_t size);
// The same, ending in `to`.
void grammar_text_to(grammar_builder *b, int32_t from, const char *bytes, size_t size, int32_t to);

// Takes out what cannot end, and checks what grammar.h promises.
void grammar_finish(grammar_builder *b);

// ---- JSON (grammar_json.c)

int32_t grammar_common_rule(grammar_builder *b, grammar_common what);
// from -> to by one character of a string's inside; all of them, but for the quote.
void grammar_string_char(grammar_builder *b, int32_t from, int32_t to);
// The inside of a string that is none of `names` (count texts), from behind the opening quote to
// behind the closing one.
void grammar_other_name(grammar_builder *b, int32_t from, const char *const *names,
                        const size_t *sizes, int count, int32_t to);
// One code point of [low, high] as it stands in a text, or as it stands inside a JSON string.
void grammar_code_points(grammar_builder *b, int32_t from, uint32_t low, uint32_t high,
                         bool in_json, int32_t to);
// All runs of `count` bytes that lie between low and high, in the order of a dictionary, where each
// byte but the first ranges from `least` to `most`. count <= GRAMMAR_SEQUENCE_MAX.
enum { GRAMMAR_SEQUENCE_MAX = 24 };
void grammar_sequences(grammar_builder *b, int32_t from, const char *low, const char *high,
                       int count, char least, char most, int32_t to);
// One to `count` digits.
void grammar_digits(grammar_builder *b, int32_t from, int count, int32_t to);
// "least" to "most" characters in quotes.
int32_t grammar_string_rule(grammar_builder *b, int32_t least, int32_t most);

// ---- numbers within bounds (grammar_number.c)

typedef struct grammar_bound {
    bool given, exclusive;
    double value;
} grammar_bound;
enum { GRAMMAR_DIGITS_MAX = 16 }; // before the point, and behind it
void grammar_number_within(grammar_builder *b, int32_t from, bool integer,
                           const grammar_bound *least, const grammar_bound *most, int32_t to);

// ---- regular expressions (grammar_regex.c)

void grammar_regex(grammar_builder *b, int32_t from, const char *text, size_t size, bool in_json,
                   int32_t to);

// ---- JSON Schema (grammar_schema.c, grammar_schema_parts.c)

// The schema becomes rule 0.
void grammar_schema(grammar_builder *b, const struct json_t *root);

#endif
