// group_link: the coordinator's end of cluster.proto. Workers' calls become events for the core,
// the core's effects become messages; what a group may do is decided in the core, who is who (group
// id, epoch, stream) here.
//
// - Register: the card is opened, CORE_REGISTER posted; the core's reply answers the call and makes
//   a link.
// - Steps: first GroupReady, which names the link; then plans down, results up. Its end is
//   CORE_GROUP_CLOSED.
// - Heartbeat: CORE_HEARTBEAT for a living link; for any other the answer is "stop".
// - Drain: CORE_DRAIN; answered when the core says so.
//
// A call without the cluster's key is refused before it is read. Messages of a stranger, of another
// version, of an epoch that is gone are refused with a gRPC error and never reach the core.
#ifndef OCTANT_COORDINATOR_GROUP_GROUP_LINK_H
#define OCTANT_COORDINATOR_GROUP_GROUP_LINK_H

#include "common/base/status.h"
#include "coordinator/core_thread.h"
#include "coordinator/model_registry.h"
#include "proto/cluster_key.h"
#include "proto/rpc_server.h"

typedef struct group_links group_links;

// Where events go: core_thread_post, or a test's stand-in. As there: false means not taken, and the
// caller frees.
typedef struct group_links_options {
    void *core;
    bool (*post)(void *core, const core_event *event, int64_t deadline_ns);
    model_registry *models;
    cluster_key key; // who has it may call; empty: everybody
} group_links_options;

group_links *group_links_create(const group_links_options *options); // NULL when memory is short

// For rpc_server_create; lives as long as the links. The server's message_max must be
// CLUSTER_MESSAGE_MAX.
const rpc_service *group_links_service(const group_links *g);

// For core_thread_start.
group_port group_links_port(group_links *g);

// The server and the core's thread have stopped before. NULL is allowed.
void group_links_destroy(group_links *g);

#endif
