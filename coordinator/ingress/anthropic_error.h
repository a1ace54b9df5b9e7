// anthropic_error: Octant's errors in the body that Anthropic's clients expect.
#ifndef OCTANT_COORDINATOR_INGRESS_ANTHROPIC_ERROR_H
#define OCTANT_COORDINATOR_INGRESS_ANTHROPIC_ERROR_H

#include "common/base/buf.h"

// Appends {"type":"error","error":{"type","message"}} (an http_error_form). `param` and `code` have
// no place in it: messages name what is wrong.
void anthropic_error_append(buf *out, int http_status, const char *message, const char *param,
                            const char *code);

#endif
