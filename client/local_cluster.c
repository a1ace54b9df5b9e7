#include "client/local_cluster.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

enum {
    PATH_SPACE = PATH_MAX,
    ARGUMENTS_MAX = 40,
    LISTEN_SECONDS = 15, // from the coordinator's start to its address file
    GRACE_SECONDS = 3,   // beyond the drain, for last words
    LOOK_MS = 200,       // between two questions while a group is away
    ANSWER_SECONDS = 2,  // for the answer
    ANCESTORS_MAX = 4,   // from a rank to its mpirun: launchers put few between them
    KEY_LINE_MAX = 1024,
};

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

// Arguments of a program that is to be started.
typedef struct arguments {
    const char *words[ARGUMENTS_MAX + 1];
    int count;
} arguments;

static void add(arguments *a, const char *word) {
    if (a->count < ARGUMENTS_MAX) a->words[a->count++] = word;
}

static void add_option(arguments *a, const char *flag, const char *value) {
    if (!value) return;
    add(a, flag);
    add(a, value);
}

static int cores(void) {
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (int)count : 1;
}

// No other user of this machine may register a group: the folder is this user's alone.
static status make_key(local_cluster *c) {
    unsigned char bytes[32];
    char path[128];
    FILE *file = fopen(in_directory(c, "cluster-key", path), "wex");
    bool good = file && getrandom(bytes, sizeof bytes, 0) == sizeof bytes;
    for (size_t i = 0; good && i < sizeof bytes; i++) good = fprintf(file, "%02x", bytes[i]) == 2;
    good = (!file || !fclose(file)) && good;
    if (good) return status_ok();
    return status_error(STATUS_UNAVAILABLE, "cannot make a key in %s: %s", path, strerror(errno));
}

static status start_group(local_cluster *c, int index) {
    const local_cluster_options *o = &c->options;
    char worker[PATH_SPACE], key[128], ranks[16], stages[16], threads[16], log_path[128],
        part[LOCAL_CARDS_TEXT_MAX];
    char cards[LOCAL_CARDS_TEXT_MAX + 32];
    TRY(sibling("octant-worker", worker));
    int per_rank = o->threads ? o->threads : cores() / (o->ranks * c->group_count);
    snprintf(ranks, sizeof ranks, "%d", o->ranks);
    snprintf(stages, sizeof stages, "%d", o->stages);
    snprintf(threads, sizeof threads, "%d", per_rank > 0 ? per_rank : 1);
    arguments a = {.count = 0};
    // Ranks pin their own threads; mpirun's binding would put all threads of a rank on one core.
    // More ranks than cores are fine: they yield.
    static const char *const launch[] = {"mpirun", "--oversubscribe", "--bind-to", "none"};
    for (size_t i = 0; i < sizeof launch / sizeof *launch; i++) add(&a, launch[i]);
    add_option(&a, "-n", ranks);
    if (geteuid() == 0) add(&a, "--allow-run-as-root"); // containers and CI
    if (local_cards_share(c->cards, index, c->group_count, part)) {
        snprintf(cards, sizeof cards, "CUDA_VISIBLE_DEVICES=%s", part);
        add_option(&a, "-x", cards);
    }
    add(&a, worker);
    add_option(&a, "--coordinator", c->grpc);
    add_option(&a, "--cluster-key", in_directory(c, "cluster-key", key));
    add_option(&a, "--model", o->model);
    add_option(&a, "--threads", threads);
    if (o->stages > 1) add_option(&a, "--stages", stages);
    add_option(&a, "--name", o->name);
    add_option(&a, "--kv-memory", o->kv_memory);
    if (index >= o->groups) add(&a, "--spare");
    local_child *g = &c->groups[index];
    return local_child_start(g, (char *const *)a.words, in_directory(c, g->log, log_path));
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

// Where it listened before, if it did: there its groups look for it.
static status start_coordinator(local_cluster *c) {
    const local_cluster_options *o = &c->options;
    char coordinator[PATH_SPACE], addresses[128], key[128], log_path[128], drain[24];
    TRY(sibling("octant-coordinator", coordinator));
    snprintf(drain, sizeof drain, "%ds", o->drain_seconds);
    unlink(in_directory(c, "addresses", addresses));
    arguments a = {.count = 0};
    add(&a, coordinator);
    add_option(&a, "--http", c->http[0] ? c->http : o->http);
    add_option(&a, "--grpc", c->grpc[0] ? c->grpc : o->grpc);
    add_option(&a, "--address-file", addresses);
    add_option(&a, "--cluster-key", in_directory(c, "cluster-key", key));
    add_option(&a, "--drain-timeout", drain);
    add_option(&a, "--api-keys", o->api_keys);
    add_option(&a, "--routing", o->routing);
    add_option(&a, "--data-dir", o->data_dir);
    add_option(&a, "--prices", o->prices);
    add_option(&a, "--event-log", o->event_log);
    return local_child_start(&c->coordinator, (char *const *)a.words,
                             in_directory(c, c->coordinator.log, log_path));
}

static status wait_for_coordinator(local_cluster *c) {
    char log_path[128];
    in_directory(c, c->coordinator.log, log_path);
    int64_t deadline = clock_now_ns() + LISTEN_SECONDS * CLOCK_SECOND;
    while (!read_addresses(c)) {
        if (!process_poll(&c->coordinator.process))
            return local_child_why_ended(&c->coordinator, log_path);
        if (clock_now_ns() > deadline)
            return status_error(STATUS_DEADLINE_EXCEEDED,
                                "the coordinator does not listen after %d s; see %s",
                                LISTEN_SECONDS, log_path);
        clock_sleep_until(clock_now_ns() + 5 * CLOCK_MS);
    }
    local_child_set_serves(&c->coordinator, true);
    return status_ok();
}

// Watching the groups needs a key where all who ask need one: the file's first, "KEY" or "NAME
// KEY".
static status use_key(local_cluster *c) {
    char line[KEY_LINE_MAX], key[KEY_LINE_MAX] = "";
    FILE *file = c->options.api_keys ? fopen(c->options.api_keys, "re") : NULL;
    while (file && !key[0] && fgets(line, sizeof line, file)) {
        line[strcspn(line, "#\r\n")] = 0;
        char *rest = NULL;
        for (char *word = strtok_r(line, " \t", &rest); word; word = strtok_r(NULL, " \t", &rest))
            snprintf(key, sizeof key, "%s", word);
    }
    if (file) fclose(file);
    if (!octant_set_api_key(c->client, key[0] ? key : NULL))
        return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a key");
    return status_ok();
}

static void name_children(local_cluster *c) {
    const local_cluster_options *o = &c->options;
    c->group_count = o->groups + o->spares;
    c->coordinator = (local_child){.label = "the coordinator", .log = "coordinator.log"};
    for (int i = 0; i < c->group_count; i++) {
        local_child *g = &c->groups[i];
        bool spare = i >= o->groups;
        int number = spare ? i - o->groups + 1 : i + 1;
        snprintf(g->label, sizeof g->label, "%s %d", spare ? "spare" : "group", number);
        snprintf(g->log, sizeof g->log, "%s-%d.log", spare ? "spare" : "group", number);
    }
    if (c->group_count == 1) strcpy(c->groups[0].label, "the group");
}

static status make_directory(local_cluster *c) {
    const char *base = getenv("TMPDIR");
    int size = snprintf(c->directory, sizeof c->directory, "%s/octant-XXXXXX",
                        base && *base ? base : "/tmp");
    if (size < (int)sizeof c->directory && mkdtemp(c->directory)) return status_ok();
    status s = status_error(STATUS_UNAVAILABLE, "cannot make a folder for logs in %s: %s",
                            base ? base : "/tmp", strerror(errno));
    c->directory[0] = 0;
    return s;
}

status local_cluster_start(local_cluster *c, const local_cluster_options *options) {
    *c = (local_cluster){.options = *options};
    name_children(c);
    local_cards_list(c->cards);
    // For mpirun, as worker/comm_mpi.c has it for the ranks: do not look for GPUs behind X
    // displays.
    setenv("HWLOC_COMPONENTS", "-gl", 0);
    // When one rank died the others hold nothing that a second of grace could save.
    setenv("OMPI_MCA_odls_base_sigkill_timeout", "0", 0);
    status s = make_directory(c);
    if (status_is_ok(&s)) s = make_key(c);
    if (status_is_ok(&s)) s = start_coordinator(c);
    if (status_is_ok(&s)) s = wait_for_coordinator(c);
    if (status_is_ok(&s) && !(c->client = octant_connect(c->grpc)))
        s = status_error(STATUS_RESOURCE_EXHAUSTED, "no memory for a client");
    if (status_is_ok(&s)) s = use_key(c);
    for (int i = 0; i < c->group_count && status_is_ok(&s); i++) s = start_group(c, i);
    if (!status_is_ok(&s)) local_cluster_stop(c, true);
    return s;
}

// The parent of a process of this machine; 0 when there is none.
static int parent_of(int pid) {
    char path[32], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    size_t size = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file) fclose(file);
    text[size] = 0;
    // "PID (name) state parent ...": the name may hold anything, parentheses too.
    const char *after = strrchr(text, ')');
    int parent = 0;
    return after && sscanf(after + 1, " %*c %d", &parent) == 1 ? parent : 0;
}

// Whether the ranks that the server knows stem from this mpirun.
static bool stems_from(const octant_group *g, int mpirun) {
    int pid = g->rank_count > 0 ? g->ranks[0].pid : 0;
    for (int i = 0; i < ANCESTORS_MAX && pid > 1; i++)
        if ((pid = parent_of(pid)) == mpirun) return true;
    return false;
}

// What the server says of each of our groups: `out` has room for all, NULL for one that it does not
// have. Free what is returned after use; NULL: no answer.
static octant_server_info *look(local_cluster *c, const octant_group *out[]) {
    octant_error error;
    for (int i = 0; i < c->group_count; i++) out[i] = NULL;
    c->looked_ns = clock_now_ns();
    octant_server_info *info = octant_get_server_info(c->client, ANSWER_SECONDS, &error);
    for (int i = 0; i < c->group_count; i++) {
        const process *p = &c->groups[i].process;
        for (int j = info && p->pid ? info->group_count - 1 : -1; j >= 0 && !out[i]; j--) {
            const octant_group *g = &info->groups[j];
            if (strcmp(g->state, "LOST") != 0 && stems_from(g, p->pid)) out[i] = g;
        }
        bool ready = out[i] && strcmp(out[i]->state, "READY") == 0;
        local_child_set_serves(&c->groups[i], ready);
    }
    return info;
}

// The first program that runs no more; NULL: all run.
static const local_child *first_ended(local_cluster *c) {
    if (!process_poll(&c->coordinator.process)) return &c->coordinator;
    for (int i = 0; i < c->group_count; i++)
        if (!process_poll(&c->groups[i].process)) return &c->groups[i];
    return NULL;
}

// The first group that does not serve; NULL: all do.
static const local_child *first_away(const local_cluster *c) {
    for (int i = 0; i < c->group_count; i++)
        if (!c->groups[i].serves) return &c->groups[i];
    return NULL;
}

status local_cluster_wait_ready(local_cluster *c, int64_t deadline_ns, local_cluster_show show,
                                void *user) {
    for (;;) {
        const octant_group *groups[2 * LOCAL_CLUSTER_GROUPS_MAX];
        octant_server_info *info = look(c, groups);
        if (show) show(user, c, groups);
        octant_server_info_free(info);
        const local_child *away = first_away(c);
        if (!away) return status_ok();
        char path[128];
        const local_child *ended = first_ended(c);
        if (ended) return local_child_why_ended(ended, in_directory(c, ended->log, path));
        if (clock_now_ns() > deadline_ns)
            return status_error(STATUS_DEADLINE_EXCEEDED, "%s is not ready in time; see %s",
                                away->label, in_directory(c, away->log, path));
        clock_sleep_until(clock_now_ns() + 50 * CLOCK_MS);
    }
}

static void tell_back(const local_child *g) {
    log_info("up", "%s serves again after %.1f s", g->label,
             (double)(clock_now_ns() - g->away_since_ns) / 1e9);
}

static void log_failure(const local_child *k, status s) {
    if (!status_is_ok(&s)) log_error("up", "%s cannot be started: %s", k->label, s.message);
}

static status tend_coordinator(local_cluster *c) {
    local_child *k = &c->coordinator;
    char path[128];
    bool served = k->serves, due = local_child_is_due(k);
    if (k->ends_in_a_row >= LOCAL_CHILD_ENDS_MAX)
        return local_child_why_ended(k, in_directory(c, k->log, path));
    // Its groups have to register again; until then they are away, too.
    for (int i = 0; i < c->group_count && served && !k->serves; i++)
        local_child_set_serves(&c->groups[i], false);
    if (due) log_failure(k, start_coordinator(c));
    if (k->ended || k->serves || !read_addresses(c)) return status_ok();
    local_child_set_serves(k, true);
    tell_back(k);
    return status_ok();
}

// A group that cannot start is tried as long as another one does.
static status tend_groups(local_cluster *c) {
    const local_child *hopeless = NULL;
    int hopeless_count = 0;
    for (int i = 0; i < c->group_count; i++) {
        local_child *g = &c->groups[i];
        bool due = local_child_is_due(g);
        if (g->ends_in_a_row >= LOCAL_CHILD_ENDS_MAX) hopeless = g, hopeless_count++;
        if (due && hopeless_count < c->group_count) log_failure(g, start_group(c, i));
    }
    if (hopeless_count < c->group_count) return status_ok();
    return status_error(STATUS_UNAVAILABLE, "%s ended %d times in a row%s; its log is %s/%s",
                        hopeless->label, hopeless->ends_in_a_row,
                        c->group_count > 1 ? ", the others too" : "", c->directory, hopeless->log);
}

status local_cluster_tend(local_cluster *c) {
    TRY(tend_coordinator(c));
    TRY(tend_groups(c));
    bool ask = first_away(c) && clock_now_ns() - c->looked_ns >= LOOK_MS * CLOCK_MS;
    if (!ask || !c->coordinator.serves) return status_ok();
    bool served[2 * LOCAL_CLUSTER_GROUPS_MAX];
    const octant_group *groups[2 * LOCAL_CLUSTER_GROUPS_MAX];
    for (int i = 0; i < c->group_count; i++) served[i] = c->groups[i].serves;
    octant_server_info_free(look(c, groups));
    for (int i = 0; i < c->group_count; i++)
        if (c->groups[i].serves && !served[i]) tell_back(&c->groups[i]);
    return status_ok();
}

void local_cluster_stop(local_cluster *c, bool keep_logs) {
    octant_close(c->client);
    c->client = NULL;
    int64_t drained = clock_now_ns() + (c->options.drain_seconds + GRACE_SECONDS) * CLOCK_SECOND;
    process_ask_to_stop(&c->coordinator.process);
    process_wait_end(&c->coordinator.process, drained);
    // A coordinator that drained has told the ranks to end; SIGTERM to mpirun ends those of one
    // that did not.
    int64_t ended = clock_now_ns() + GRACE_SECONDS * CLOCK_SECOND;
    for (int i = 0; i < c->group_count; i++) process_ask_to_stop(&c->groups[i].process);
    for (int i = 0; i < c->group_count; i++) process_wait_end(&c->groups[i].process, ended);
    if (keep_logs || !c->directory[0]) return;
    char path[128];
    unlink(in_directory(c, "addresses", path));
    unlink(in_directory(c, "cluster-key", path));
    unlink(in_directory(c, c->coordinator.log, path));
    for (int i = 0; i < c->group_count; i++) unlink(in_directory(c, c->groups[i].log, path));
    rmdir(c->directory);
}
