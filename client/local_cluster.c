#include "client/local_cluster.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

enum { PATH_SPACE = PATH_MAX };

static const char *in_directory(const local_cluster *c, const char *file, char path[128]) {
    snprintf(path, 128, "%s/%s", c->directory, file);
    return path;
}

// The sibling of the running program: build/bin is not in PATH.
static status sibling(const char *name, char path[PATH_SPACE]) {
    ssize_t size = readlink("/proc/self/exe", path, PATH_SPACE - 1);
    if (size <= 0)
        return status_error(STATUS_INTERNAL, "cannot read /proc/self/exe: %s", strerror(errno));
    path[size] = 0;
    char *slash = strrchr(path, '/');
    size_t room = PATH_SPACE - (size_t)(slash + 1 - path);
    if (snprintf(slash + 1, room, "%s", name) >= (int)room)
        return status_error(STATUS_INTERNAL, "path of %s is too long", name);
    if (access(path, X_OK) != 0)
        return status_error(STATUS_NOT_FOUND, "%s: %s; build it first", path, strerror(errno));
    return status_ok();
}

static int cores(void) {
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (int)count : 1;
}

static status start_workers(local_cluster *c) {
    const local_cluster_options *o = &c->options;
    char worker[PATH_SPACE], ranks[16], threads[16], log_path[128];
    TRY(sibling("octant-worker", worker));
    int per_rank = o->threads ? o->threads : cores() / o->ranks;
    snprintf(ranks, sizeof ranks, "%d", o->ranks);
    snprintf(threads, sizeof threads, "%d", per_rank > 0 ? per_rank : 1);
    const char *argv[32];
    int n = 0;
    argv[n++] = "mpirun";
    // Ranks pin their own threads; mpirun's binding would put all threads of a rank on one core.
    // More ranks than cores are fine: they yield.
    static const char *const placement[] = {"--oversubscribe", "--bind-to", "none", "-n"};
    for (size_t i = 0; i < sizeof placement / sizeof *placement; i++) argv[n++] = placement[i];
    argv[n++] = ranks;
    if (geteuid() == 0) argv[n++] = "--allow-run-as-root"; // containers and CI
    argv[n++] = worker;
    argv[n++] = "--coordinator";
    argv[n++] = c->grpc;
    argv[n++] = "--model";
    argv[n++] = o->model;
    argv[n++] = "--threads";
    argv[n++] = threads;
    if (o->name) argv[n++] = "--name", argv[n++] = o->name;
    if (o->kv_memory) argv[n++] = "--kv-memory", argv[n++] = o->kv_memory;
    argv[n] = NULL;
    c->workers_started_ns = clock_now_ns();
    return process_start(&c->workers, "workers", (char *const *)argv,
                         in_directory(c, "workers.log", log_path));
}

// What it said itself; else how it ended, below its last lines.
static status why_ended(const process *p, const char *log_path) {
    char message[STATUS_MESSAGE_MAX], how[64];
    if (process_last_error(log_path, message, sizeof message))
        return status_error(STATUS_UNAVAILABLE, "%s", message);
    process_print_tail(log_path, 12);
    return status_error(STATUS_UNAVAILABLE, "the %s's process %s; its last lines are above",
                        p->name, process_describe(p, how));
}

// The coordinator writes its addresses when it listens: "http=HOST:PORT" and "grpc=HOST:PORT".
static bool read_addresses(local_cluster *c) {
    char path[128];
    FILE *file = fopen(in_directory(c, "addresses", path), "r");
    if (!file) return false;
    bool got = fscanf(file, "http=%299[^\n]\ngrpc=%299[^\n]\n", c->http, c->grpc) == 2;
    fclose(file);
    return got;
}

static status start_coordinator(local_cluster *c) {
    const local_cluster_options *o = &c->options;
    char coordinator[PATH_SPACE], addresses[128], log_path[128];
    TRY(sibling("octant-coordinator", coordinator));
    const char *argv[] = {coordinator,
                          "--http",
                          o->http,
                          "--grpc",
                          o->grpc,
                          "--address-file",
                          in_directory(c, "addresses", addresses),
                          NULL};
    in_directory(c, "coordinator.log", log_path);
    TRY(process_start(&c->coordinator, "coordinator", (char *const *)argv, log_path));
    int64_t deadline = clock_now_ns() + 15 * CLOCK_SECOND;
    while (!read_addresses(c)) {
        if (!process_poll(&c->coordinator)) {
            return why_ended(&c->coordinator, log_path);
        }
        if (clock_now_ns() > deadline)
            return status_error(STATUS_DEADLINE_EXCEEDED,
                                "the coordinator does not listen after 15 s; see %s", log_path);
        clock_sleep_until(clock_now_ns() + 5 * CLOCK_MS);
    }
    return status_ok();
}

status local_cluster_start(local_cluster *c, const local_cluster_options *options) {
    *c = (local_cluster){.options = *options};
    // For mpirun, as worker/comm_mpi.c has it for the ranks: do not look for GPUs behind X
    // displays.
    setenv("HWLOC_COMPONENTS", "-gl", 0);
    // When one rank died the others hold nothing that a second of grace could save.
    setenv("OMPI_MCA_odls_base_sigkill_timeout", "0", 0);
    const char *base = getenv("TMPDIR");
    int size = snprintf(c->directory, sizeof c->directory, "%s/octant-XXXXXX",
                        base && *base ? base : "/tmp");
    if (size >= (int)sizeof c->directory || !mkdtemp(c->directory)) {
        status s = status_error(STATUS_UNAVAILABLE, "cannot make a folder for logs in %s: %s",
                                base ? base : "/tmp", strerror(errno));
        c->directory[0] = 0;
        return s;
    }
    status s = start_coordinator(c);
    if (status_is_ok(&s)) s = start_workers(c);
    if (!status_is_ok(&s)) local_cluster_stop(c, 0, true);
    return s;
}

static bool is_ready(const octant_server_info *info) {
    for (int i = 0; info && i < info->group_count; i++)
        if (strcmp(info->groups[i].state, "READY") == 0) return true;
    return false;
}

status local_cluster_wait_ready(local_cluster *c, int64_t deadline_ns, local_cluster_show show,
                                void *user) {
    octant_client *client = octant_connect(c->grpc);
    if (!client) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a client");
    status s = status_ok();
    for (bool ready = false; !ready && status_is_ok(&s);) {
        octant_error error;
        octant_server_info *info = octant_get_server_info(client, 2, &error);
        ready = is_ready(info);
        if (show) show(user, info);
        octant_server_info_free(info);
        char path[128];
        if (ready)
            c->restarts_in_a_row = 0;
        else if (!process_poll(&c->workers)) {
            s = why_ended(&c->workers, in_directory(c, "workers.log", path));
        } else if (clock_now_ns() > deadline_ns)
            s = status_error(STATUS_DEADLINE_EXCEEDED, "the group is not ready in time; see %s",
                             in_directory(c, "workers.log", path));
        else
            clock_sleep_until(clock_now_ns() + 50 * CLOCK_MS);
    }
    octant_close(client);
    return s;
}

status local_cluster_tend(local_cluster *c) {
    char how[64];
    if (!process_poll(&c->coordinator))
        return status_error(STATUS_UNAVAILABLE, "the coordinator %s; its log is %s/coordinator.log",
                            process_describe(&c->coordinator, how), c->directory);
    if (process_poll(&c->workers)) return status_ok();
    if (clock_now_ns() - c->workers_started_ns > 60 * CLOCK_SECOND) c->restarts_in_a_row = 0;
    if (c->restarts_in_a_row >= LOCAL_CLUSTER_RESTARTS_MAX)
        return status_error(STATUS_UNAVAILABLE,
                            "the group ended %d times in a row; its log is %s/workers.log",
                            c->restarts_in_a_row, c->directory);
    int64_t pause = (200 * CLOCK_MS) << c->restarts_in_a_row;
    if (pause > 10 * CLOCK_SECOND) pause = 10 * CLOCK_SECOND;
    if (clock_now_ns() < c->workers_started_ns + pause) return status_ok();
    c->restarts_in_a_row++;
    log_warn("up", "the group's mpirun %s; starting it again", process_describe(&c->workers, how));
    return start_workers(c);
}

void local_cluster_stop(local_cluster *c, int drain_seconds, bool keep_logs) {
    int64_t now = clock_now_ns();
    process_stop(&c->coordinator, now + drain_seconds * CLOCK_SECOND);
    // A coordinator that drained has told the ranks to end; SIGTERM to mpirun ends those of one
    // that did not.
    process_stop(&c->workers, clock_now_ns() + 3 * CLOCK_SECOND);
    if (keep_logs || !c->directory[0]) return;
    static const char *const files[] = {"addresses", "coordinator.log", "workers.log"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[128];
        unlink(in_directory(c, files[i], path));
    }
    rmdir(c->directory);
}
