// protobuf: how *_msg.c use protobuf-c: decoding into an arena of bounded size, encoding into a
// buf. For proto/*_msg.c alone.
#ifndef OCTANT_PROTO_PROTOBUF_H
#define OCTANT_PROTO_PROTOBUF_H

#include <protobuf-c/protobuf-c.h>

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/status.h"

// A decoded message takes more memory than its bytes (a sub-message of 2 bytes becomes a struct of
// 100): an honest message stays far below this factor, a hostile one is refused by it.
enum { PROTOBUF_GROWTH = 32, PROTOBUF_SLACK = 1 << 16 };

// Decodes into a fresh arena, which the caller destroys; `what` names the message in errors.
// INVALID_ARGUMENT for bytes that are no such message or too large when decoded. *memory is NULL
// after an error.
status protobuf_decode(const ProtobufCMessageDescriptor *type, const char *what, const void *bytes,
                       size_t size, arena **memory, ProtobufCMessage **out);

// Appends the message's bytes. RESOURCE_EXHAUSTED when they do not fit.
status protobuf_encode(const ProtobufCMessage *message, const char *what, buf *out);

#endif
