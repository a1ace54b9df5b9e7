// policy_parts: what the files that read octant.yaml's routing sections share; for policy_*.c
// alone.
#ifndef OCTANT_COORDINATOR_ROUTE_POLICY_PARTS_H
#define OCTANT_COORDINATOR_ROUTE_POLICY_PARTS_H

#include "common/base/yaml_tree.h"
#include "coordinator/route/routing_policy.h"

#define POLICY_COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

typedef struct policy_reader {
    yaml_tree tree;
    arena *memory;
    detectors *detectors;
    routing_policy *policy;
} policy_reader;

// One section each; `n` may be NULL: the file does not have it. `models` needs the upstreams.
status policy_read_upstreams(policy_reader *r, const yaml_node *n);
status policy_read_upstream_rules(policy_reader *r, const yaml_node *n);
status policy_read_models(policy_reader *r, const yaml_node *n);
status policy_read_privacy(policy_reader *r, const yaml_node *n);
status policy_read_complexity(policy_reader *r, const yaml_node *n);
status policy_read_routes(policy_reader *r, const yaml_node *n);
status policy_read_maintenance(policy_reader *r, const yaml_node *n);
status policy_read_budgets(policy_reader *r, const yaml_node *n);
status policy_read_local_cost(policy_reader *r, const yaml_node *n);

status policy_no_memory(const policy_reader *r);
// Room for `count` items (at least one byte), zeroed; an error when there are more than `most`.
status policy_array(policy_reader *r, const yaml_node *n, int most, size_t item, void *out);
// A list of names, or one. At most ROUTING_NAMES_MAX, none empty, none twice.
status policy_names(policy_reader *r, const yaml_node *n, const char *what, routing_names *out);
status policy_name(policy_reader *r, const yaml_node *at, const char *name, const char *what);
// A class by its name, from a text node.
status policy_class(policy_reader *r, const yaml_node *n, privacy_class *out);
// Windows, one or a list. n NULL: none.
status policy_windows(policy_reader *r, const yaml_node *n, const window **out, int *count);

// Fields that many maps have.
#define POLICY_NODE(name_, where)                                                                  \
    { .option = {.name = (name_)}, .node = (where) }
#define POLICY_FIELD(name_, type_, where, min_, max_)                                              \
    {                                                                                              \
        .option = {(name_), (type_), (where), (min_), (max_), NULL, NULL, NULL }                   \
    }
#define POLICY_CHOICE(name_, where, choices_)                                                      \
    {                                                                                              \
        .option = {(name_), CONFIG_CHOICE, (where), 0, 0, (choices_), NULL, NULL }                 \
    }

#define POLICY_CLASSES "local-only|redact-then-leave|may-leave"
enum { POLICY_DOLLARS_MAX = 1000000000 };
int64_t policy_microdollars(double dollars); // rounded up: what is above zero stays above zero

#endif
