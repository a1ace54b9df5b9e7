// octant: the command line of a cluster. Each command lives in its own file, command_NAME.c.
#include <stdio.h>
#include <string.h>

#include "client/commands.h"
#include "client/interrupt.h"

static const struct {
    const char *name, *about;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"up", "start a coordinator and worker groups on this machine", command_up},
    {"chat", "talk with a model", command_chat},
    {"run", "answer one prompt", command_run},
    {"status", "what the cluster is doing", command_status},
    {"top", "the same, again and again", command_top},
    {"plan", "what a model needs and can at best do on given cards", command_plan},
    {"route", "where a request would go, and why", command_route},
    {"cost", "what requests cost, here and outside", command_cost},
    {"audit", "whether the record of what left the site is whole", command_audit},
};

static void print_usage(FILE *out) {
    fprintf(out, "usage: octant COMMAND [options]\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(out, "  %-8s %s\n", commands[i].name, commands[i].about);
    fprintf(out, "\noctant COMMAND --help tells its options; octant --version the version.\n");
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_usage(argc > 1 ? stdout : stderr);
        return argc > 1 ? 0 : 2;
    }
    if (strcmp(name, "--version") == 0) return printf("octant %s\n", OCTANT_VERSION) < 0;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(name, commands[i].name) != 0) continue;
        status s = interrupt_start();
        if (status_is_ok(&s)) return commands[i].run(argc - 1, argv + 1);
        fprintf(stderr, "octant: %s\n", s.message);
        return 1;
    }
    fprintf(stderr, "octant: there is no command '%s'\n", name);
    print_usage(stderr);
    return 2;
}
