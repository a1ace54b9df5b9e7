#include "proto/protobuf.h"

static void *allocate(void *memory, size_t size) {
    return arena_alloc(memory, size);
}

static void release(void *memory, void *pointer) {
    (void)memory, (void)pointer; // with the arena
}

status protobuf_decode(const ProtobufCMessageDescriptor *type, const char *what, const void *bytes,
                       size_t size, arena **memory, ProtobufCMessage **out) {
    *memory = arena_create(size * PROTOBUF_GROWTH + PROTOBUF_SLACK);
    if (!*memory) return status_error(STATUS_RESOURCE_EXHAUSTED, "%s: no memory", what);
    ProtobufCAllocator allocator = {allocate, release, *memory};
    *out = protobuf_c_message_unpack(type, &allocator, size, bytes);
    if (*out) return status_ok();
    arena_destroy(*memory);
    *memory = NULL;
    return status_error(STATUS_INVALID_ARGUMENT, "%s: %zu bytes are not a valid message", what,
                        size);
}

status protobuf_encode(const ProtobufCMessage *message, const char *what, buf *out) {
    size_t size = protobuf_c_message_get_packed_size(message);
    char *place = buf_extend(out, size);
    if (!place)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "%s: %zu bytes do not fit", what, size);
    protobuf_c_message_pack(message, (uint8_t *)place);
    return status_ok();
}
