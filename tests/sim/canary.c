#include "tests/sim/canary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/core/detokenizer.h"
#include "coordinator/core/kv_blocks.h"

static const char *planted = "";
static unsigned calls;

bool canary_set(const char *name) {
    static const char *const names[] = {"leak", "stale", "text", "early"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0) planted = names[i];
    return *planted != '\0';
}

static bool strikes(const char *name, unsigned every) {
    return strcmp(planted, name) == 0 && ++calls % every == 0;
}

void __real_kv_blocks_release(kv_blocks *b, const int32_t *blocks, int count);
void __wrap_kv_blocks_release(kv_blocks *b, const int32_t *blocks, int count);
void __wrap_kv_blocks_release(kv_blocks *b, const int32_t *blocks, int count) {
    if (count > 0 && strikes("leak", 50)) count--;
    __real_kv_blocks_release(b, blocks, count);
}

void __real_kv_blocks_publish(kv_blocks *b, int32_t block, const int32_t *tokens, kv_chain *chain);
void __wrap_kv_blocks_publish(kv_blocks *b, int32_t block, const int32_t *tokens, kv_chain *chain);
void __wrap_kv_blocks_publish(kv_blocks *b, int32_t block, const int32_t *tokens, kv_chain *chain) {
    kv_chain wrong = 0; // as if the block's context did not matter
    bool stale = *chain != 0 && strikes("stale", 5);
    __real_kv_blocks_publish(b, block, tokens, stale ? &wrong : chain);
    if (stale) *chain = wrong;
}

void __real_detokenizer_finish(detokenizer *d, buf *out);
void __wrap_detokenizer_finish(detokenizer *d, buf *out);
void __wrap_detokenizer_finish(detokenizer *d, buf *out) {
    if (strikes("text", 1)) return;
    __real_detokenizer_finish(d, out);
}

int32_t __real_kv_blocks_take(kv_blocks *b);
int32_t __wrap_kv_blocks_take(kv_blocks *b);
int32_t __wrap_kv_blocks_take(kv_blocks *b) {
    int32_t block = __real_kv_blocks_take(b);
    if (block > 0 && strikes("early", 200)) return block - 1;
    return block;
}
