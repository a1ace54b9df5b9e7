// rpc_reflection: answers from the embedded descriptor set. The set is walked at each question (it
// has a few kilobytes): field numbers are those of google/protobuf/descriptor.proto. Octant's files
// import nothing, so a file is its own closure.
#include "proto/rpc_reflection.h"

#include <stdlib.h>
#include <string.h>

#include "proto/descriptors.h"
#include "proto/protobuf.h"
#include "reflection.pb-c.h"

enum {
    REQUEST_MAX = 1 << 12,
    REPLY_MAX = 1 << 20,
    SERVICES_MAX = 32,
    SET_FILE = 1,
    FILE_PACKAGE = 2,
    FILE_MESSAGE = 4,
    FILE_ENUM = 5,
    FILE_SERVICE = 6,
    ANY_NAME = 1, // of files, messages, enums, services, methods, fields, values
    MESSAGE_FIELD = 2,
    MESSAGE_NESTED = 3,
    MESSAGE_ENUM = 4,
    ENUM_VALUE = 2,
    SERVICE_METHOD = 2,
};

typedef Grpc__Reflection__V1__ServerReflectionRequest pb_request;
typedef Grpc__Reflection__V1__ServerReflectionResponse pb_response;
#define RESPONSE(kind) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##kind
#define REQUEST(kind) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##kind

struct rpc_reflection {
    const rpc_service *const *services;
    int count;
    rpc_service v1, v1alpha;
};

// ---- the descriptor set ----

typedef struct span {
    const uint8_t *at, *end;
} span;

static bool get_varint(span *s, uint64_t *out) {
    *out = 0;
    for (int shift = 0; shift < 64 && s->at < s->end; shift += 7) {
        uint8_t byte = *s->at++;
        *out |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return true;
    }
    return false;
}

// The next length-delimited field; others are passed over. False: no more.
static bool next_field(span *s, uint64_t *field, span *content) {
    uint64_t key, value;
    while (get_varint(s, &key)) {
        size_t left = (size_t)(s->end - s->at);
        switch (key & 7) {
        case 0:
            if (!get_varint(s, &value)) return false;
            break;
        case 1:
        case 5:
            value = (key & 7) == 1 ? 8 : 4;
            if (value > left) return false;
            s->at += value;
            break;
        case 2:
            if (!get_varint(s, &value) || value > (uint64_t)(s->end - s->at)) return false;
            *field = key >> 3;
            *content = (span){s->at, s->at + value};
            s->at += value;
            return true;
        default:
            return false;
        }
    }
    return false;
}

static bool same(span s, const char *text, size_t size) {
    return (size_t)(s.end - s.at) == size && memcmp(s.at, text, size) == 0;
}

static span name_of(span s) {
    uint64_t field;
    span content;
    while (next_field(&s, &field, &content))
        if (field == ANY_NAME) return content;
    return (span){NULL, NULL};
}

// A sub-descriptor of this name stands in `s` under the field.
static bool has_member(span s, uint64_t member, const char *name) {
    uint64_t field;
    span content;
    while (next_field(&s, &field, &content))
        if (field == member && same(name_of(content), name, strlen(name))) return true;
    return false;
}

// `path` is "Name" or "Name.rest"; descends into messages.
static bool has_message(span s, const char *path) {
    size_t size = strcspn(path, ".");
    if (!same(name_of(s), path, size)) return false;
    if (path[size] == 0) return true;
    const char *rest = path + size + 1;
    uint64_t field;
    span content;
    if (has_member(s, MESSAGE_FIELD, rest) || has_member(s, MESSAGE_ENUM, rest)) return true;
    while (next_field(&s, &field, &content))
        if (field == MESSAGE_NESTED && has_message(content, rest)) return true;
    return false;
}

// A service or an enum, or one of its methods or values.
static bool has_simple(span s, uint64_t member, const char *path) {
    size_t size = strcspn(path, ".");
    if (!same(name_of(s), path, size)) return false;
    return path[size] == 0 || has_member(s, member, path + size + 1);
}

static bool file_has_symbol(span file, const char *symbol) {
    uint64_t field;
    span content, walk = file;
    while (next_field(&walk, &field, &content)) {
        if (field != FILE_PACKAGE) continue;
        size_t size = (size_t)(content.end - content.at);
        if (strlen(symbol) <= size || !same(content, symbol, size) || symbol[size] != '.')
            return false;
        symbol += size + 1;
    }
    walk = file;
    while (next_field(&walk, &field, &content)) {
        if (field == FILE_MESSAGE && has_message(content, symbol)) return true;
        if (field == FILE_ENUM && has_simple(content, ENUM_VALUE, symbol)) return true;
        if (field == FILE_SERVICE && has_simple(content, SERVICE_METHOD, symbol)) return true;
    }
    return false;
}

// By file name, or by symbol.
static bool find_file(const char *name, const char *symbol, span *out) {
    size_t size;
    const uint8_t *bytes = descriptors_bytes(&size);
    span set = {bytes, bytes + size};
    uint64_t field;
    while (next_field(&set, &field, out)) {
        if (field != SET_FILE) continue;
        if (name != NULL ? same(name_of(*out), name, strlen(name)) : file_has_symbol(*out, symbol))
            return true;
    }
    return false;
}

// ---- questions ----

static void send(rpc_call *call, pb_response *response) {
    buf bytes = buf_make(REPLY_MAX);
    status s = protobuf_encode(&response->base, "ServerReflectionResponse", &bytes);
    if (s.code == STATUS_OK) s = rpc_call_send(call, buf_string(&bytes), bytes.size);
    if (s.code != STATUS_OK) rpc_call_finish(call, s, NULL, 0);
    buf_free(&bytes);
}

static void send_error(rpc_call *call, pb_response *response, status_code code, const char *text) {
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    error.error_code = (int32_t)code;
    error.error_message = (char *)text;
    response->message_response_case = RESPONSE(ERROR_RESPONSE);
    response->error_response = &error;
    send(call, response);
}

static void send_file(rpc_call *call, pb_response *response, const char *name, const char *symbol) {
    span file;
    if (!find_file(name, symbol, &file)) {
        send_error(call, response, STATUS_NOT_FOUND,
                   name != NULL ? "no such file" : "no such symbol");
        return;
    }
    Grpc__Reflection__V1__FileDescriptorResponse found =
        GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    ProtobufCBinaryData bytes = {(size_t)(file.end - file.at), (uint8_t *)file.at};
    found.n_file_descriptor_proto = 1;
    found.file_descriptor_proto = &bytes;
    response->message_response_case = RESPONSE(FILE_DESCRIPTOR_RESPONSE);
    response->file_descriptor_response = &found;
    send(call, response);
}

static void send_list(const rpc_reflection *r, rpc_call *call, pb_response *response) {
    Grpc__Reflection__V1__ListServiceResponse list =
        GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    Grpc__Reflection__V1__ServiceResponse items[SERVICES_MAX], *pointers[SERVICES_MAX];
    for (int i = 0; i < r->count && i < SERVICES_MAX; i++) {
        grpc__reflection__v1__service_response__init(&items[i]);
        items[i].name = (char *)r->services[i]->name;
        pointers[i] = &items[i];
        list.n_service++;
    }
    list.service = pointers;
    response->message_response_case = RESPONSE(LIST_SERVICES_RESPONSE);
    response->list_services_response = &list;
    send(call, response);
}

static void answer(const rpc_reflection *r, rpc_call *call, pb_request *request) {
    pb_response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    response.valid_host = request->host;
    response.original_request = request;
    switch (request->message_request_case) {
    case REQUEST(FILE_BY_FILENAME):
        send_file(call, &response, request->file_by_filename, NULL);
        break;
    case REQUEST(FILE_CONTAINING_SYMBOL):
        send_file(call, &response, NULL, request->file_containing_symbol);
        break;
    case REQUEST(LIST_SERVICES):
        send_list(r, call, &response);
        break;
    case REQUEST(FILE_CONTAINING_EXTENSION):
    case REQUEST(ALL_EXTENSION_NUMBERS_OF_TYPE):
        send_error(call, &response, STATUS_NOT_FOUND, "there are no extensions");
        break;
    default:
        send_error(call, &response, STATUS_UNIMPLEMENTED, "unknown question");
        break;
    }
}

static void on_open(void *owner, rpc_call *call, const void *bytes, size_t size) {
    (void)owner, (void)call, (void)bytes, (void)size;
}

static void on_message(void *owner, rpc_call *call, const void *bytes, size_t size) {
    arena *memory;
    ProtobufCMessage *message;
    status s = protobuf_decode(&grpc__reflection__v1__server_reflection_request__descriptor,
                               "ServerReflectionRequest", bytes, size, &memory, &message);
    if (s.code == STATUS_OK)
        answer(owner, call, (pb_request *)message);
    else
        rpc_call_finish(call, s, NULL, 0);
    arena_destroy(memory);
}

static const rpc_method v1_methods[] = {
    {.path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
     .kind = RPC_BIDI_STREAM,
     .run = RPC_RUN_SHORT,
     .request_max = REQUEST_MAX,
     .on_open = on_open,
     .on_message = on_message},
};
static const rpc_method v1alpha_methods[] = {
    {.path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
     .kind = RPC_BIDI_STREAM,
     .run = RPC_RUN_SHORT,
     .request_max = REQUEST_MAX,
     .on_open = on_open,
     .on_message = on_message},
};

rpc_reflection *rpc_reflection_create(const rpc_service *const *services, int count) {
    rpc_reflection *r = calloc(1, sizeof *r);
    if (r == NULL) return NULL;
    r->services = services;
    r->count = count;
    r->v1 = (rpc_service){.name = "grpc.reflection.v1.ServerReflection",
                          .methods = v1_methods,
                          .method_count = 1,
                          .owner = r};
    r->v1alpha = (rpc_service){.name = "grpc.reflection.v1alpha.ServerReflection",
                               .methods = v1alpha_methods,
                               .method_count = 1,
                               .owner = r};
    return r;
}

const rpc_service *rpc_reflection_v1(const rpc_reflection *r) {
    return &r->v1;
}

const rpc_service *rpc_reflection_v1alpha(const rpc_reflection *r) {
    return &r->v1alpha;
}

void rpc_reflection_destroy(rpc_reflection *r) {
    free(r);
}
