// Runs a response through a codec and writes down what came: "text", "[0 id name]" where a call
// begins, "{0 arguments}" for each part of its arguments.
#ifndef OCTANT_TESTS_CODEC_RUN_H
#define OCTANT_TESTS_CODEC_RUN_H

#include <stdio.h>
#include <string.h>

#include "coordinator/upstream/codec.h"

typedef struct codec_run {
    char said[4096];
    size_t size;
    int pieces;
    upstream_end end;
} codec_run;

static inline void run_note(codec_run *r, const char *bytes, size_t size) {
    if (size >= sizeof r->said - r->size) size = sizeof r->said - r->size - 1;
    memcpy(r->said + r->size, bytes, size);
    r->said[r->size += size] = 0;
}

static inline void run_content(void *owner, const upstream_content *c) {
    codec_run *r = owner;
    char line[256];
    r->pieces++;
    if (c->text) run_note(r, c->text, c->size);
    if (!c->tool) return;
    if (c->tool->id) {
        snprintf(line, sizeof line, "[%d %s %s]", c->tool->index, c->tool->id, c->tool->name);
        run_note(r, line, strlen(line));
    }
    if (!c->tool->size) return;
    snprintf(line, sizeof line, "{%d ", c->tool->index);
    run_note(r, line, strlen(line));
    run_note(r, c->tool->arguments, c->tool->size);
    run_note(r, "}", 1);
}

// The body in pieces of `step` bytes, but for one boundary at `cut` (0: none).
static inline codec_run run_codec(const codec_ask *ask, const char *header, const char *body,
                                  size_t size, size_t step, size_t cut, bool whole) {
    codec_run r = {0};
    codec *c = codec_open(ask, 400);
    codec_sink sink = {&r, run_content};
    for (const char *at = header; *at;) {
        size_t line = strcspn(at, "\n");
        if (at[line]) line++;
        codec_header(c, at, line, 1000000000);
        at += line;
    }
    for (size_t at = 0; at < size;) {
        size_t end = at + step < size ? at + step : size;
        if (cut > at && cut < end) end = cut;
        if (!codec_feed(c, body + at, end - at, &sink)) break;
        at = end;
    }
    codec_finish(c, whole, &r.end);
    codec_close(c);
    return r;
}

#endif
