// effects: how the core's own files add to the list that core.h shows. What is copied here lives
// until core_effects_clear. Nothing here fails: without memory for an effect the process ends with
// a line.
#ifndef OCTANT_COORDINATOR_CORE_EFFECTS_H
#define OCTANT_COORDINATOR_CORE_EFFECTS_H

#include "coordinator/core/core.h"

// What the core says must be carried out; when there is no memory for it, nothing that is left to
// do would be right. Returns `memory`; NULL ends the process with one line.
void *effects_must(void *memory);

// Zeroed but for its kind. Valid until the next one is added.
core_effect *effects_add(core_effects *e, core_effect_kind kind);

void *effects_alloc(core_effects *e, size_t size);
void *effects_copy(core_effects *e, const void *bytes, size_t size);
const char *effects_text(core_effects *e, const char *text);

// `level` is a log_level.
void effects_log(core_effects *e, int level, const char *subject, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
