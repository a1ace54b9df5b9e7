// outbox: what one call has said and the core has not taken yet, in order. Text that comes while
// something waits is joined to it, so that a slow core gets few large events instead of many small
// ones; nothing is ever dropped. Bounded by its owner, who stops reading while it is not empty.
#ifndef OCTANT_COORDINATOR_UPSTREAM_OUTBOX_H
#define OCTANT_COORDINATOR_UPSTREAM_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/core/core.h"

typedef struct outbox_item {
    struct outbox_item *next;
    char *memory; // from malloc: an answer_tool and its texts, or text
    size_t size, room;
    bool is_tool;
} outbox_item;

typedef struct outbox {
    outbox_item *first, *last;
} outbox; // zeroed: empty

typedef bool (*outbox_post)(void *core, const core_event *event, int64_t deadline_ns);

// Copies. False: no memory; the call cannot go on.
bool outbox_add(outbox *o, const upstream_content *content);

// Posts what the core takes now. True: nothing is left.
bool outbox_flush(outbox *o, uint64_t call, outbox_post post, void *core);

static inline bool outbox_is_empty(const outbox *o) {
    return !o->first;
}

void outbox_clear(outbox *o);

#endif
