#include "tests/sim/sim_model.h"

#include <string.h>

#include "common/base/utf8.h"

// Pieces of text that meet every rule of the detokenizer: characters cut between tokens, bytes that
// are no character, starts of stop texts, nothing at all.
static const char *const texts[SIM_VOCAB] = {
    "",     "a",    "b",    " ",    "ab",   "ba",       "the ",         "END",      "E",
    "N",    "D",    "\n",   "\xc3", "\xa9", "\xe2\x82", "\xac",         "\xf0",     "\x9f",
    "\x98", "\x80", "\xff", "",     "x",    "stop",     "st",           "op",       "s",
    "t",    "o",    "p",    "## ",  "##",   "#",        "\xe2\x82\xac", "\xc3\xa9", "1",
    "2",    "3",    "yes",  "no",   "...",  "\xed\xa0", "\x80",         "q",        "w",
    "e",    "r",    "z",
};

static void decode(const void *owner, int32_t id, buf *out) {
    (void)owner;
    buf_append_string(out, texts[id]);
}

vocabulary sim_vocabulary(void) {
    static const int32_t stops[] = {SIM_EOS};
    return (vocabulary){.size = SIM_VOCAB, .stop_ids = stops, .stop_count = 1, .decode = decode};
}

static uint64_t mix(uint64_t a, uint64_t b) {
    uint64_t z = (a ^ (b + UINT64_C(0x9e3779b97f4a7c15))) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t sim_salt(const char *model, int version) {
    uint64_t salt = (uint64_t)version;
    for (; *model; model++) salt = mix(salt, (unsigned char)*model);
    return salt;
}
uint64_t sim_entry(uint64_t before, int32_t token) {
    return mix(before, (uint32_t)token + 1u);
}
// One multiplication: entries are mixed already, each token folds all of them, and sim_next mixes
// the result.
uint64_t sim_fold(uint64_t folded, uint64_t entry) {
    return (folded ^ entry) * UINT64_C(0x9e3779b97f4a7c15);
}
uint64_t sim_answer_hash(uint64_t hash, int32_t token) {
    return mix(hash, (uint32_t)token + 7u);
}

int32_t sim_next(uint64_t folded, const sampling *s, uint64_t seed, uint64_t draw,
                 uint64_t answer_hash) {
    uint64_t h = mix(folded, 0);
    if (s->temperature > 0) h = mix(mix(h, seed), draw);
    if (sampling_needs_history(s)) h = mix(h, answer_hash);
    return (int32_t)(h % SIM_VOCAB);
}

float sim_logprob(uint64_t folded_before, int32_t token) {
    return -(float)(mix(folded_before, (uint32_t)token) % 1000);
}

// The text of `bytes` so far, without an incomplete character at its end unless `all`. Written from
// the definition, on purpose not as the detokenizer does it.
static void to_text(const char *bytes, size_t size, bool all, buf *out) {
    buf_clear(out);
    for (size_t i = 0; i < size;) {
        uint32_t code_point;
        size_t length = utf8_decode(bytes + i, size - i, &code_point);
        if (length) {
            buf_append(out, bytes + i, length);
            i += length;
            continue;
        }
        size_t start = 1; // how far this is the start of some character
        while (i + start < size && utf8_incomplete_tail(bytes + i, start + 1) == start + 1) start++;
        if (utf8_incomplete_tail(bytes + i, start) != start)
            start = 1;
        else if (i + start == size && !all)
            return;
        buf_append_string(out, "\xef\xbf\xbd");
        i += start;
    }
}

static bool cut_at_stop(const core_request *r, buf *text) {
    size_t first = SIZE_MAX;
    for (int i = 0; i < r->stop_count; i++) {
        const char *at =
            text->size ? memmem(text->data, text->size, r->stop[i].bytes, r->stop[i].size) : NULL;
        if (at && (size_t)(at - text->data) < first) first = (size_t)(at - text->data);
    }
    if (first == SIZE_MAX) return false;
    text->size = first;
    return true;
}

void sim_expect(const core_request *r, uint64_t salt, int index, int limit, sim_answer *out) {
    memset(out, 0, sizeof *out);
    out->text = buf_make(1 << 16);
    out->finish = ANSWER_LENGTH;
    buf bytes = buf_make(1 << 16);
    uint64_t entry = salt, folded = 0, answer_hash = 0;
    for (int i = 0; i < r->prompt_count; i++) {
        entry = sim_entry(entry, r->prompt[i]);
        folded = sim_fold(folded, entry);
    }
    bool stopped = false;
    while (out->token_count < limit && !stopped) {
        int32_t token = sim_next(folded, &r->sampling, r->sampling.seed + (uint64_t)index,
                                 (uint64_t)out->token_count, answer_hash);
        out->sampled++;
        if (token == SIM_EOS && !r->ignore_eos) {
            out->finish = ANSWER_STOP;
            break;
        }
        out->tokens[out->token_count++] = token;
        buf_append_string(&bytes, texts[token]);
        if (r->stop_count) {
            to_text(buf_string(&bytes), bytes.size, false, &out->text);
            stopped = cut_at_stop(r, &out->text);
        }
        entry = sim_entry(entry, token);
        folded = sim_fold(folded, entry);
        answer_hash = sim_answer_hash(answer_hash, token);
    }
    if (stopped)
        out->finish = ANSWER_STOP;
    else
        to_text(buf_string(&bytes), bytes.size, true, &out->text);
    buf_free(&bytes);
}

void sim_answer_free(sim_answer *a) {
    buf_free(&a->text);
}
