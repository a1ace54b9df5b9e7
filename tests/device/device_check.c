// device_check: runs the groups of device checks and prints one line for each.
//
//   device_check_NAME [--group NAME]... [--seed N] [--order fifo|reverse|warp:SEED|all] [--copies
//   late|early]
//       [--streams immediate|deferred|background] [--small] [--quick] [--list]
//
// --small takes an emulated device's shapes on a real one too, for tools that slow a card down;
// --quick a sample of the shapes, for builds that slow the emulated one down;
// --list names the groups.
// Without --group: all of them. `--order all` runs each group once per order of an emulated
// device's threads, where a missing barrier shows in some and not in others. The seed is printed; a
// failure comes again with it.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "tests/device/check.h"

#define CHECK_GROUP(name) int check_##name(check *c);
#include "check_groups.h"
#undef CHECK_GROUP

static const struct group {
    const char *name;
    int (*run)(check *c);
} groups[] = {
#define CHECK_GROUP(name) {#name, check_##name},
#include "check_groups.h"
#undef CHECK_GROUP
    {NULL, NULL},
};

// fifo with late copies and reverse with early ones show most; three random warp priorities the
// rest.
static const struct order {
    const char *order, *copies, *streams;
} all_orders[] = {{"fifo", "late", "immediate"},
                  {"reverse", "early", "deferred"},
                  {"warp:1", "late", "deferred"},
                  {"warp:2", "early", "background"},
                  {"warp:3", "late", "deferred"}};

typedef struct run {
    const char *only[16];
    int only_count;
    uint64_t seed;
    const char *order, *copies, *streams;
    bool small, quick, list;
    int failed;
} run;

static void usage(void) {
    fprintf(stderr, "usage: device_check [--group NAME]... [--seed N] [--order "
                    "fifo|reverse|warp:SEED|all] [--copies late|early] [--streams "
                    "immediate|deferred|background] [--small] [--quick] [--list]\ngroups:");
    for (const struct group *g = groups; g->name; g++) fprintf(stderr, " %s", g->name);
    fprintf(stderr, "\n");
    exit(2);
}

static void run_group(run *r, const struct group *g, const struct order *o, bool thorough) {
    if (!check_target_set(o->order, o->copies, o->streams)) usage();
    static check c; // its table of memory is large
    c = (check){.seed = r->seed,
                .random = rng_make(r->seed),
                .emulated = check_target_emulated() || r->small,
                .thorough = thorough};
    int64_t begin = clock_now_ns();
    int races = check_target_races();
    g->run(&c);
    check_close(&c);
    races = check_target_races() - races;
    if (races > 0) printf("FAILED %s: %d races\n", g->name, races);
    c.failed += races;
    printf("%-6s %s (%s, %s, %s, seed %llu): %d passed, %d failed, %.2f s\n",
           c.failed ? "FAILED" : "ok", g->name, o->order, o->copies, o->streams,
           (unsigned long long)r->seed, c.passed, c.failed,
           (double)(clock_now_ns() - begin) / (double)CLOCK_SECOND);
    fflush(stdout);
    r->failed += c.failed > 0;
}

static void run_orders(run *r, const struct group *g) {
    if (strcmp(r->order, "all") != 0 || !check_target_emulated()) {
        run_group(r, g, &(struct order){r->order, r->copies, r->streams}, !r->quick);
        return;
    }
    for (size_t i = 0; i < sizeof all_orders / sizeof *all_orders; i++)
        run_group(r, g, &all_orders[i], i == 0 && !r->quick);
}

static bool wanted(const run *r, const char *name) {
    for (int i = 0; i < r->only_count; i++)
        if (strcmp(r->only[i], name) == 0) return true;
    return r->only_count == 0;
}

static void parse(run *r, int argc, char **argv) {
    static const struct option options[] = {{"group", required_argument, NULL, 'g'},
                                            {"seed", required_argument, NULL, 's'},
                                            {"order", required_argument, NULL, 'o'},
                                            {"copies", required_argument, NULL, 'c'},
                                            {"streams", required_argument, NULL, 't'},
                                            {"small", no_argument, NULL, 'm'},
                                            {"quick", no_argument, NULL, 'q'},
                                            {"list", no_argument, NULL, 'l'},
                                            {NULL, 0, NULL, 0}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'g' && r->only_count < (int)(sizeof r->only / sizeof *r->only))
            r->only[r->only_count++] = optarg;
        else if (option == 's')
            r->seed = strtoull(optarg, NULL, 10);
        else if (option == 'o')
            r->order = optarg;
        else if (option == 'c')
            r->copies = optarg;
        else if (option == 't')
            r->streams = optarg;
        else if (option == 'm')
            r->small = true;
        else if (option == 'q')
            r->quick = true;
        else if (option == 'l')
            r->list = true;
        else
            usage();
    }
    if (optind != argc) usage();
    for (int i = 0; i < r->only_count; i++) {
        const struct group *g = groups;
        while (g->name && strcmp(g->name, r->only[i]) != 0) g++;
        if (!g->name) usage();
    }
}

int main(int argc, char **argv) {
    run r = {.seed = 1, .order = "fifo", .copies = "late", .streams = "immediate"};
    parse(&r, argc, argv);
    for (const struct group *g = groups; g->name; g++) {
        if (r.list)
            printf("%s\n", g->name);
        else if (wanted(&r, g->name))
            run_orders(&r, g);
    }
    return r.failed ? 1 : 0;
}
