// jinja_lexer: a template's bytes to tokens, with white space control as transformers sets it
// (trim_blocks and lstrip_blocks on, one newline at the end of the file dropped).
#ifndef OCTANT_MODEL_JINJA_LEXER_H
#define OCTANT_MODEL_JINJA_LEXER_H

#include "common/model/jinja_value.h"

typedef enum jinja_token_kind {
    JINJA_TOKEN_END,
    JINJA_TOKEN_TEXT,
    JINJA_TOKEN_BLOCK_BEGIN,
    JINJA_TOKEN_BLOCK_END,
    JINJA_TOKEN_PRINT_BEGIN,
    JINJA_TOKEN_PRINT_END,
    JINJA_TOKEN_NAME,
    JINJA_TOKEN_STRING,
    JINJA_TOKEN_NUMBER,
    JINJA_TOKEN_OPERATOR,
} jinja_token_kind;

typedef struct jinja_token {
    jinja_token_kind kind;
    int line;
    const char *text; // as written; of TEXT: what is to be printed
    size_t size;
    jinja_value value; // of STRING and NUMBER
} jinja_token;

enum { JINJA_BRACKETS_MAX = 200 };

typedef struct jinja_lexer {
    jinja *j;
    const char *start, *at, *end; // newlines are \n
    int line;
    enum { JINJA_IN_TEXT, JINJA_IN_BLOCK, JINJA_IN_PRINT } state;
    bool line_starting;                // the token before ended with a newline
    const char *tag;                   // the tag that follows the text just given, or NULL
    char brackets[JINJA_BRACKETS_MAX]; // the closing brackets that are awaited
    int bracket_count;
} jinja_lexer;

// `source` is copied with its newlines made \n.
void jinja_lexer_open(jinja_lexer *l, jinja *j, const char *source, size_t size);
jinja_token jinja_lexer_next(jinja_lexer *l); // END for ever after the last

#endif
