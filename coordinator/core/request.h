// request: from acceptance to its one end.
#ifndef OCTANT_COORDINATOR_CORE_REQUEST_H
#define OCTANT_COORDINATOR_CORE_REQUEST_H

#include "coordinator/core/state.h"

// Makes the request and its sequences, all HELD, in its arena. NULL when memory is short.
request *request_open(core *c, core_request *asked, lane *l, fair_client *client);

request *request_find(const core *c, uint64_t id);

// Ends it, whatever its sequences do now: they lose slots and places, the client gets CORE_END. The
// request must not be used afterwards.
void request_fail(request *r, core *c, status why);

// A token was sampled for a sequence: text, pieces, the end of the answer and, with the last
// answer, of the request. False: the sequence is done (and the request perhaps gone).
bool sequence_take_token(core *c, sequence *s, const seq_result *result);

// Prompt rows have their logprobs, from position `from` on.
void sequence_take_prompt_logprobs(core *c, sequence *s, int from, const seq_result *result);

// Who says what comes next: pieces tell it, and segments of the usage. `by` is copied.
void request_serve(request *r, const char *by);

// What an upstream says for a sequence that is AWAY. True: a stop text is complete, all that comes
// after it is nobody's.
bool sequence_say_away(core *c, sequence *s, const char *text, size_t size);
void sequence_call_tool(core *c, sequence *s, const answer_tool *tool);
void sequence_finish_away(core *c, sequence *s, answer_finish finish);

// The answer is complete.
void sequence_finish(core *c, sequence *s, answer_finish finish);

// Tokens whose values are known: the prompt's and the answer's.
static inline int sequence_known(const sequence *s) {
    return s->request->asked->prompt_count + s->answer_count;
}
// Copies the tokens of [from, from + count), all known.
void sequence_copy_tokens(const sequence *s, int from, int count, int32_t *out);
// All known tokens in one piece; valid until the next call.
const int32_t *sequence_tokens(core *c, const sequence *s);

// Lists are kept by arrival: older requests first, within one by index.
bool sequence_is_before(const sequence *a, const sequence *b);
void sequence_list_insert(sequence_list *list, sequence *s);
void sequence_list_remove(sequence_list *list, sequence *s);

#endif
