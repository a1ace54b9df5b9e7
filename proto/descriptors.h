// descriptors: the .proto files in binary form (a google.protobuf.FileDescriptorSet made by protoc
// at build time and embedded), for server reflection.
#ifndef OCTANT_PROTO_DESCRIPTORS_H
#define OCTANT_PROTO_DESCRIPTORS_H

#include <stddef.h>

// The set's bytes; *size gets their count. Lives as long as the program.
const void *descriptors_bytes(size_t *size);

#endif
