// tensor_table: from the names that a file gives its tensors to the roles that a step uses, with
// every shape checked against the config. Strict in both directions: a tensor that the config needs
// and the file lacks is an error, and so is a tensor in the file that nobody would use, because
// then the model is not the one that would be computed.
#ifndef OCTANT_MODEL_TENSOR_TABLE_H
#define OCTANT_MODEL_TENSOR_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/status.h"
#include "common/model/model.h"

typedef enum tensor_naming { TENSOR_NAMES_GGUF, TENSOR_NAMES_HF, TENSOR_NAMES_COUNT } tensor_naming;

// One tensor of a file. data is NULL when only a header is at hand.
typedef struct named_tensor {
    const char *name; // no NUL
    size_t name_size;
    int dims;         // 3: the matrices of all experts, one after another; more fits no role
    tensor value;     // rows 1 for one dimension; of each matrix
    int64_t matrices; // with 3 dimensions
    int64_t bytes;
} named_tensor;

typedef struct tensor_list {
    named_tensor *items; // sorted by name (bytewise, a prefix first)
    size_t count;
} tensor_list;

typedef struct tensor_table tensor_table;

// INVALID_ARGUMENT or UNIMPLEMENTED with the tensor's name. The list may go afterwards.
status tensor_table_build(const model_config *config, tensor_naming naming, const tensor_list *list,
                          tensor_table **out);
void tensor_table_free(tensor_table *t); // NULL is allowed

// As model_expert_tensor().
bool tensor_table_get(const tensor_table *t, tensor_role role, int layer, int expert, tensor *out);

#endif
