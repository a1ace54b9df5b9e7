// A server with health, reflection and one echo service, for the tests that official gRPC packages
// run against it. Prints its port; serves until standard input ends. A line on standard input turns
// health on or off.
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "proto/rpc_health.h"
#include "proto/rpc_reflection.h"
#include "proto/rpc_server.h"

static void say(void *owner, rpc_call *call, const void *bytes, size_t size) {
    (void)owner;
    rpc_call_reply(call, bytes, size);
}

// The request, a hundred times.
static void repeat(void *owner, rpc_call *call, const void *bytes, size_t size) {
    (void)owner;
    for (int i = 0; i < 100; i++) rpc_call_send(call, bytes, size);
    rpc_call_finish(call, status_ok(), NULL, 0);
}

static void refuse(void *owner, rpc_call *call, const void *bytes, size_t size) {
    (void)owner;
    rpc_metadata trailer = {"retry-after-ms", "1500"};
    rpc_call_finish(call, status_error(STATUS_UNAVAILABLE, "%.*s", (int)size, (const char *)bytes),
                    &trailer, 1);
}

static void hold(void *owner, rpc_call *call, const void *bytes, size_t size) {
    (void)owner, (void)call, (void)bytes, (void)size;
}

static void closed(void *owner, rpc_call *call, bool completed) {
    (void)owner, (void)call;
    printf("closed %d\n", completed);
    fflush(stdout);
}

static bool serving(void *owner) {
    return atomic_load((atomic_bool *)owner);
}

int main(void) {
    static const rpc_method methods[] = {
        {.path = "/test.Echo/Say", .request_max = 1000, .on_open = say},
        {.path = "/test.Echo/Repeat",
         .kind = RPC_SERVER_STREAM,
         .run = RPC_RUN_POOL,
         .request_max = 1000,
         .on_open = repeat},
        {.path = "/test.Echo/Refuse", .request_max = 1000, .on_open = refuse},
        {.path = "/test.Echo/Hold",
         .kind = RPC_SERVER_STREAM,
         .request_max = 1000,
         .on_open = hold,
         .on_closed = closed},
    };
    static const char *const names[] = {"octant.v1.Inference"};
    atomic_bool healthy = true;
    const rpc_service echo = {.name = "test.Echo", .methods = methods, .method_count = 4};
    const rpc_service *services[4];
    rpc_health *health = rpc_health_create(names, 1, serving, &healthy);
    rpc_reflection *reflection = rpc_reflection_create(services, 4);
    if (health == NULL || reflection == NULL) return 1;
    services[0] = &echo;
    services[1] = rpc_health_service(health);
    services[2] = rpc_reflection_v1(reflection);
    services[3] = rpc_reflection_v1alpha(reflection);
    rpc_server_options options = {.address = "127.0.0.1:0", .message_max = 1 << 20};
    rpc_server *server = NULL;
    status s = rpc_server_create(&options, services, 4, &server);
    if (s.code != STATUS_OK) {
        fprintf(stderr, "%s\n", s.message);
        return 1;
    }
    printf("%d\n", rpc_server_port(server));
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) atomic_store(&healthy, strcmp(line, "on\n") == 0);
    rpc_server_stop(server, clock_now_ns() + CLOCK_SECOND);
    rpc_server_destroy(server);
    rpc_health_destroy(health);
    rpc_reflection_destroy(reflection);
    return 0;
}
