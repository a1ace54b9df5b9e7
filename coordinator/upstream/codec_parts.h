// codec_parts: what the files of the codec share, and nobody else includes: the prompt as a tree,
// and what the readers of the four APIs' events tell the codec.
#ifndef OCTANT_COORDINATOR_UPSTREAM_CODEC_PARTS_H
#define OCTANT_COORDINATOR_UPSTREAM_CODEC_PARTS_H

#include <jansson.h>

#include "coordinator/upstream/codec.h"

// ---- requests ----

// The prompt parsed and checked, the partial answer's turns appended.
typedef struct codec_prompt {
    const codec_ask *ask;
    upstream_mode mode; // FRESH when there is no partial answer
    json_t *messages;   // array of {role: system | user | assistant | tool, content: string, ...}
    json_t *tools, *tool_choice, *response_format, *stop; // NULL: none
    int64_t max_tokens;                                   // 0: not given
} codec_prompt;

// FAILED_PRECONDITION and INVALID_ARGUMENT as codec_body. Frees nothing of the caller's;
// codec_prompt_close after OK.
status codec_prompt_open(const codec_ask *ask, codec_prompt *out);
void codec_prompt_close(codec_prompt *p);

const char *codec_role(const json_t *message);
const json_t *codec_text(const json_t *message); // its content, a JSON string

// A tool call of an assistant's message: {id, name} and its arguments as text or as an object
// (new; an empty text is {}). NULL from codec_call_object: they are no object.
const char *codec_call_id(const json_t *call);
const char *codec_call_name(const json_t *call);
json_t *codec_call_text(const json_t *call);
json_t *codec_call_object(const json_t *call);

// "auto", "none", "required", or "function" with *name set; NULL: not given.
const char *codec_tool_choice(const codec_prompt *p, const char **name);
// "text", "json_object", "json_schema" of response_format, or NULL; and the latter's schema
// (borrowed), or NULL.
const char *codec_format(const codec_prompt *p);
const json_t *codec_schema(const codec_prompt *p);

// Whitespace that ends the partial answer: Anthropic refuses it at the end of a prefill, so it is
// not sent, and what the model then says of it again is dropped. Bytes.
size_t codec_partial_tail(const codec_ask *ask);

// The prompt's temperature and top_p where the model takes them, under the API's names.
void codec_set_sampling(const codec_prompt *p, json_t *object, const char *temperature,
                        const char *top_p);
// Sets `key` to a new value unless it is NULL.
void codec_set(json_t *object, const char *key, json_t *value);
void codec_set_text(json_t *object, const char *key, const char *text);

// Each API's body as a tree (new).
status codec_chat_body(const codec_prompt *p, json_t **out);
status codec_responses_body(const codec_prompt *p, json_t **out);
status codec_anthropic_body(const codec_prompt *p, json_t **out);
status codec_gemini_body(const codec_prompt *p, json_t **out);

// ---- responses ----

// What one event of a stream is. `data` is its JSON; false: it makes no sense.
typedef bool codec_event(codec *c, const json_t *data);
codec_event codec_chat_event, codec_responses_event, codec_anthropic_event, codec_gemini_event;

// What readers say. Text and tool parts go to the sink at once.
void codec_say_text(codec *c, const json_t *text);     // a JSON string, may be NULL or empty
void codec_say_progress(codec *c, const json_t *text); // reasoning: not for the client
// A tool call began, known by the API's `key`; id NULL or empty: one is made up. False: nonsense.
bool codec_tool_begin(codec *c, int64_t key, const char *id, const char *name);
bool codec_tool_is_open(const codec *c, int64_t key);
bool codec_tool_arguments(codec *c, int64_t key, const char *bytes, size_t size);
// No more arguments come: `all` (may be NULL) is what they are if none came in parts.
bool codec_tool_end(codec *c, int64_t key, const json_t *all);
int codec_tool_count(const codec *c);

// Each field: a count >= 0 or absent; later counts replace earlier ones (they are cumulative).
typedef enum codec_count {
    COUNT_INPUT,  // as the API counts it
    COUNT_CACHED, // read from a cache
    COUNT_WRITTEN,
    COUNT_OUTPUT,
    COUNT_THOUGHTS, // apart from COUNT_OUTPUT
    COUNT_KINDS,
} codec_count;
void codec_count_set(codec *c, codec_count kind, const json_t *number);
void codec_count_zero(codec *c, codec_count kind); // unless it was told

void codec_finish_reason(codec *c, answer_finish finish);
bool codec_has_finish(const codec *c);
void codec_filtered(codec *c);                    // the content filter ended the answer
void codec_failed(codec *c, const json_t *error); // an error object in the stream
void codec_nonsense(codec *c, const char *what);  // static text
void codec_complete(codec *c);                    // the end event came

#endif
