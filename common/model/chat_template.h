// chat_template: the model's own chat template, run by an interpreter of the Jinja subset that such
// templates use. Not a list of known templates: what the file says is what is rendered. The
// template is untrusted: its output, its steps, its nesting and its memory are bounded.
#ifndef OCTANT_MODEL_CHAT_TEMPLATE_H
#define OCTANT_MODEL_CHAT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/status.h"

typedef struct json_t json_t; // jansson.h, which machines that only bench kernels have not

typedef struct chat_template chat_template;

enum {
    CHAT_TEMPLATE_SOURCE_MAX = 1 << 20, // bytes of a template
    CHAT_TEMPLATE_STEPS_MAX = 4000000,  // evaluated nodes in one rendering
    CHAT_TEMPLATE_DEPTH_MAX = 100,      // nesting of expressions, blocks and macro calls
};

// Parses. INVALID_ARGUMENT with the line in the template and what was expected there.
status chat_template_parse(const char *source, size_t size, chat_template **out);
void chat_template_free(chat_template *t); // NULL is allowed

// Renders with transformers' environment (trim_blocks, lstrip_blocks, tojson as there,
// raise_exception, strftime_now). `messages` is the array of messages as the client sent it;
// `tools` an array or NULL; `extra` an object of further variables or NULL; bos and eos are the
// tokens' texts, or NULL where the model has none (they are then undefined in the template). `now`
// is the calendar time [s] that strftime_now shows. INVALID_ARGUMENT with the template's own words
// when it raises; RESOURCE_EXHAUSTED past a bound (*out is then as
// it was). Thread-safe; takes at most 256 KiB of stack.
status chat_template_render(const chat_template *t, const json_t *messages, const json_t *tools,
                            const json_t *extra, bool add_generation_prompt, const char *bos,
                            const char *eos, int64_t now, buf *out);

#endif
