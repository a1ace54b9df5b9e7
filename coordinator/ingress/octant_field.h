// octant_field: the field "octant" that answers carry beside the fields of the format they are in:
// who serves, and at the end who served which part. Clients of those formats skip what they do not
// know.
#ifndef OCTANT_COORDINATOR_INGRESS_OCTANT_FIELD_H
#define OCTANT_COORDINATOR_INGRESS_OCTANT_FIELD_H

#include "common/base/buf.h"
#include "coordinator/answer.h"

// Appends ,"octant":{"served_by":...}: so far (`usage` NULL) or at the end, with the segments;
// nothing when the end does not say who served.
void octant_field_append(buf *out, const char *served_by, const answer_usage *usage);

#endif
