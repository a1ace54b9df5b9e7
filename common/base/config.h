// config: the options of a program, from a table: flags (--name value, --name=value) over a YAML
// file (--config FILE) over defaults. The same names in both. Every value is checked where it
// enters; an error says which flag, or which line and column of the file, and what would be right.
//
// One octant.yaml serves all programs: each reads its own section (coordinator:, worker:) and
// passes over the others'.
//
//   coordinator:
//     http: 127.0.0.1:8080
//     max-queue: 1024
#ifndef OCTANT_BASE_CONFIG_H
#define OCTANT_BASE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/arena.h"
#include "common/base/status.h"

typedef enum config_type {
    CONFIG_STRING,   // const char *
    CONFIG_CHOICE,   // const char *, one of `choices`
    CONFIG_INT,      // int64_t in [min, max]
    CONFIG_FLOAT,    // double in [min, max]
    CONFIG_BOOL,     // bool; as a flag alone it means true; --name=false
    CONFIG_BYTES,    // int64_t [bytes] in [min, max]: "512MiB", "4GiB", "1000000"
    CONFIG_DURATION, // int64_t [ns] in [min, max]: "250ms", "1s", "10m", "2h"
} config_type;

typedef struct config_option {
    const char *name; // as on the command line, without the dashes
    config_type type;
    void *value;         // a variable of the type above; holds the default when parsing begins
    double min, max;     // of numbers, in the variable's unit
    const char *choices; // CONFIG_CHOICE: "auto|f32|f16"
    const char *metavar; // for --help: "HOST:PORT"; NULL: the type's name
    const char *help;    // one line; what it does, in which unit
} config_option;

typedef struct config_program {
    const char *name;     // "octant-coordinator"
    const char *section;  // its section of octant.yaml: "coordinator"; NULL: it reads no file and
                          // has no --config
    const char *synopsis; // what follows the name in the usage line: "[options] MODEL"
    const char *about;    // a paragraph for --help
    const config_option *options;
    int option_count;
} config_program;

typedef enum config_action { CONFIG_RUN, CONFIG_EXIT } config_action;

// Parses argv[1..]. Words that are no options are moved, in order, to the front of `words` (room
// for argc), *word_count of them; "--" ends the options. --help, --version and --print-config are
// answered on standard output, then *action is CONFIG_EXIT. Strings are kept in `memory` or in
// argv. INVALID_ARGUMENT / NOT_FOUND with one line.
status config_parse(const config_program *program, int argc, char **argv, arena *memory,
                    const char **words, int *word_count, config_action *action);

// The values in force, as a section of octant.yaml.
void config_print(const config_program *program, FILE *out);
void config_print_help(const config_program *program, FILE *out);

// Reads one value of an option's type from text into its variable: what flags and the file share.
status config_set(const config_option *option, const char *text, arena *memory);

// "HOST:PORT" or "[V6]:PORT" to its parts; `host` has room for 256 bytes. INVALID_ARGUMENT says
// what is wrong.
status config_split_address(const char *address, char host[256], int *port);

#endif
