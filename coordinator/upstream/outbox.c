#include "coordinator/upstream/outbox.h"

#include <stdlib.h>
#include <string.h>

static outbox_item *add_item(outbox *o, char *memory, size_t size, bool is_tool) {
    outbox_item *item = malloc(sizeof *item);
    if (!item) return NULL;
    *item = (outbox_item){.memory = memory, .size = size, .room = size, .is_tool = is_tool};
    if (o->last)
        o->last->next = item;
    else
        o->first = item;
    o->last = item;
    return item;
}

static bool join_text(outbox_item *item, const char *text, size_t size) {
    if (item->room - item->size < size) {
        size_t room = 2 * (item->size + size);
        char *grown = realloc(item->memory, room);
        if (!grown) return false;
        item->memory = grown;
        item->room = room;
    }
    memcpy(item->memory + item->size, text, size);
    item->size += size;
    return true;
}

static bool add_text(outbox *o, const char *text, size_t size) {
    if (!size) return true;
    if (o->last && !o->last->is_tool) return join_text(o->last, text, size);
    char *memory = malloc(size);
    if (!memory) return false;
    memcpy(memory, text, size);
    if (add_item(o, memory, size, false)) return true;
    free(memory);
    return false;
}

static char *put(char **at, const char *bytes, size_t size) {
    char *begin = *at;
    if (size) memcpy(begin, bytes, size);
    begin[size] = 0;
    *at += size + 1;
    return begin;
}

// The tool and its texts in one piece of memory.
static bool add_tool(outbox *o, const answer_tool *tool) {
    size_t id = tool->id ? strlen(tool->id) : 0, name = tool->name ? strlen(tool->name) : 0;
    char *memory = malloc(sizeof *tool + id + name + tool->size + 3);
    if (!memory) return false;
    answer_tool *copy = (answer_tool *)memory;
    char *at = memory + sizeof *copy;
    *copy = *tool;
    copy->id = tool->id ? put(&at, tool->id, id) : NULL;
    copy->name = tool->name ? put(&at, tool->name, name) : NULL;
    copy->arguments = put(&at, tool->arguments, tool->size);
    if (add_item(o, memory, 0, true)) return true;
    free(memory);
    return false;
}

bool outbox_add(outbox *o, const upstream_content *content) {
    if (content->tool) return add_tool(o, content->tool);
    return add_text(o, content->text, content->size);
}

static void take_first(outbox *o) {
    outbox_item *item = o->first;
    o->first = item->next;
    if (!o->first) o->last = NULL;
    free(item);
}

bool outbox_flush(outbox *o, uint64_t call, outbox_post post, void *core) {
    while (o->first) {
        const outbox_item *item = o->first;
        core_event event = {.kind = CORE_UPSTREAM_CONTENT};
        event.upstream.call = call;
        event.upstream.memory = item->memory;
        if (item->is_tool)
            event.upstream.content.tool = (const answer_tool *)item->memory;
        else
            event.upstream.content = (upstream_content){.text = item->memory, .size = item->size};
        if (!post(core, &event, 0)) return false;
        take_first(o);
    }
    return true;
}

void outbox_clear(outbox *o) {
    while (o->first) {
        free(o->first->memory);
        take_first(o);
    }
}
