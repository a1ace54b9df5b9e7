#include "common/base/config.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/config_file.h"

typedef struct unit {
    const char *suffix;
    double factor;
} unit;

static const unit byte_units[] = {{"KiB", 1024.0},
                                  {"MiB", 1024.0 * 1024},
                                  {"GiB", 1024.0 * 1024 * 1024},
                                  {"TiB", 1024.0 * 1024 * 1024 * 1024},
                                  {"KB", 1e3},
                                  {"MB", 1e6},
                                  {"GB", 1e9},
                                  {"TB", 1e12},
                                  {"B", 1},
                                  {"", 1},
                                  {NULL, 0}};
static const unit time_units[] = {{"ns", 1},   {"us", 1e3},   {"ms", 1e6}, {"s", 1e9},
                                  {"m", 60e9}, {"h", 3600e9}, {NULL, 0}};
static const unit no_units[] = {{"", 1}, {NULL, 0}};

// A finite number and a unit from the list; false when the text is anything else.
static bool read_number(const char *text, const unit *units, double *out) {
    char *end;
    errno = 0;
    double number = strtod(text, &end);
    if (end == text || errno == ERANGE || !isfinite(number) || strpbrk(text, "xX")) return false;
    while (*end == ' ') end++;
    for (; units->suffix; units++) {
        if (strcmp(end, units->suffix) == 0) {
            *out = number * units->factor;
            return true;
        }
    }
    return false;
}

static const char *expected(config_type type) {
    switch (type) {
    case CONFIG_INT:
        return "a whole number";
    case CONFIG_FLOAT:
        return "a number";
    case CONFIG_BOOL:
        return "true or false";
    case CONFIG_BYTES:
        return "a size such as 512MiB or 4GiB";
    case CONFIG_DURATION:
        return "a duration such as 250ms, 1s or 10m";
    default:
        return "a text";
    }
}

// A bound as a person would write it.
static void format_value(const config_option *o, double value, char text[48]) {
    if (o->type == CONFIG_DURATION) {
        if (fmod(value, 1e9) == 0)
            snprintf(text, 48, "%.0fs", value / 1e9);
        else if (fmod(value, 1e6) == 0)
            snprintf(text, 48, "%.0fms", value / 1e6);
        else
            snprintf(text, 48, "%.0fns", value);
    } else if (o->type == CONFIG_BYTES) {
        int i = 3;
        while (i >= 0 && (value < byte_units[i].factor || fmod(value, byte_units[i].factor) != 0))
            i--;
        if (i >= 0 && value > 0)
            snprintf(text, 48, "%.0f%s", value / byte_units[i].factor, byte_units[i].suffix);
        else
            snprintf(text, 48, "%.0f", value);
    } else
        snprintf(text, 48, "%.15g", value);
}

static status set_number(const config_option *o, const char *text) {
    const unit *units = o->type == CONFIG_BYTES      ? byte_units
                        : o->type == CONFIG_DURATION ? time_units
                                                     : no_units;
    double number;
    bool whole = o->type != CONFIG_FLOAT;
    if (!read_number(text, units, &number) || (o->type == CONFIG_INT && number != floor(number)))
        return status_error(STATUS_INVALID_ARGUMENT, "'%s' is not %s", text, expected(o->type));
    if (number < o->min || number > o->max) {
        char low[48], high[48];
        format_value(o, o->min, low);
        format_value(o, o->max, high);
        return status_error(STATUS_INVALID_ARGUMENT, "%s is out of range; it must be %s to %s",
                            text, low, high);
    }
    if (whole)
        *(int64_t *)o->value = (int64_t)llround(number);
    else
        *(double *)o->value = number;
    return status_ok();
}

static status set_choice(const config_option *o, const char *text, arena *memory) {
    size_t length = strlen(text);
    for (const char *c = o->choices; *c;) {
        size_t size = strcspn(c, "|");
        if (size == length && memcmp(c, text, size) == 0) {
            *(const char **)o->value = arena_copy(memory, c, size);
            return status_ok();
        }
        c += size + (c[size] == '|');
    }
    return status_error(STATUS_INVALID_ARGUMENT, "'%s' is not one of %s", text, o->choices);
}

status config_set(const config_option *o, const char *text, arena *memory) {
    switch (o->type) {
    case CONFIG_STRING:
        *(const char **)o->value = arena_copy_string(memory, text);
        return status_ok();
    case CONFIG_CHOICE:
        return set_choice(o, text, memory);
    case CONFIG_BOOL:
        if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0) {
            *(bool *)o->value = text[0] == 't';
            return status_ok();
        }
        return status_error(STATUS_INVALID_ARGUMENT, "'%s' is not true or false", text);
    default:
        return set_number(o, text);
    }
}

status config_split_address(const char *address, char host[256], int *port) {
    const char *colon = strrchr(address, ':');
    size_t size = colon ? (size_t)(colon - address) : 0;
    if (!colon || size == 0 || size > 255)
        return status_error(STATUS_INVALID_ARGUMENT, "'%s' is not HOST:PORT", address);
    char *end;
    long number = strtol(colon + 1, &end, 10);
    if (end == colon + 1 || *end || number < 0 || number > 65535)
        return status_error(STATUS_INVALID_ARGUMENT, "'%s' has no port from 0 to 65535", address);
    bool bracketed = address[0] == '[' && address[size - 1] == ']' && size > 2;
    memcpy(host, address + bracketed, size - 2 * bracketed);
    host[size - 2 * bracketed] = 0;
    *port = (int)number;
    return status_ok();
}

static const config_option *find(const config_program *p, const char *name, size_t size) {
    for (int i = 0; i < p->option_count; i++)
        if (strncmp(p->options[i].name, name, size) == 0 && !p->options[i].name[size])
            return &p->options[i];
    return NULL;
}

// Levenshtein distance, for "did you mean"; names are short.
static int distance(const char *a, const char *b) {
    enum { NAME_MAX_LENGTH = 40 };
    int row[NAME_MAX_LENGTH + 1], m = (int)strlen(a), n = (int)strlen(b);
    if (m > NAME_MAX_LENGTH || n > NAME_MAX_LENGTH) return NAME_MAX_LENGTH;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; i <= m; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            int least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = replaced < least ? replaced : least;
        }
    }
    return row[n];
}

const char *config_nearest(const config_program *p, const char *name) {
    const char *best = NULL;
    int least = 4; // farther than that is no help
    for (int i = 0; i < p->option_count; i++) {
        int d = distance(name, p->options[i].name);
        if (d < least) least = d, best = p->options[i].name;
    }
    return best;
}

const config_option *config_find(const config_program *p, const char *name) {
    return find(p, name, strlen(name));
}

static status unknown_flag(const config_program *p, const char *flag) {
    const char *near = config_nearest(p, flag + 2);
    if (near)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "unknown option %s; did you mean --%s? See %s --help", flag, near,
                            p->name);
    return status_error(STATUS_INVALID_ARGUMENT, "unknown option %s; see %s --help", flag, p->name);
}

// One flag at argv[*i]; takes the next word as its value where it needs one.
static status set_flag(const config_program *p, int argc, char **argv, int *i, arena *memory) {
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    const config_option *o = find(p, name, equals ? (size_t)(equals - name) : strlen(name));
    if (!o) return unknown_flag(p, argv[*i]);
    const char *value = equals ? equals + 1 : NULL;
    if (!value && o->type == CONFIG_BOOL) value = "true";
    if (!value && ++*i == argc)
        return status_error(STATUS_INVALID_ARGUMENT, "--%s needs a value: %s", o->name,
                            expected(o->type));
    if (!value) value = argv[*i];
    return status_context(config_set(o, value, memory), "--%s", o->name);
}

// The file is read before the flags, wherever --config stands among them.
static status read_config_file(const config_program *p, int argc, char **argv, arena *memory) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strncmp(argv[i], "--config=", 9) == 0) return config_file_read(p, argv[i] + 9, memory);
        if (strcmp(argv[i], "--config") != 0) continue;
        if (i + 1 == argc) return status_error(STATUS_INVALID_ARGUMENT, "--config needs a file");
        return config_file_read(p, argv[i + 1], memory);
    }
    return status_ok();
}

status config_parse(const config_program *p, int argc, char **argv, arena *memory,
                    const char **words, int *word_count, config_action *action) {
    *action = CONFIG_RUN;
    *word_count = 0;
    bool print = false;
    if (p->section) TRY(read_config_file(p, argc, argv, memory));
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (strcmp(word, "--") == 0) {
            while (++i < argc) words[(*word_count)++] = argv[i];
        } else if (word[0] != '-' || !word[1]) {
            words[(*word_count)++] = word;
        } else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            config_print_help(p, stdout);
            *action = CONFIG_EXIT;
            return status_ok();
        } else if (strcmp(word, "--version") == 0) {
            printf("%s %s\n", p->name, OCTANT_VERSION);
            *action = CONFIG_EXIT;
            return status_ok();
        } else if (strcmp(word, "--print-config") == 0) {
            print = true;
        } else if (p->section && strncmp(word, "--config", 8) == 0 &&
                   (!word[8] || word[8] == '=')) {
            i += !word[8];
        } else if (word[1] != '-') {
            return status_error(STATUS_INVALID_ARGUMENT,
                                "unknown option %s; options begin with two dashes, see %s --help",
                                word, p->name);
        } else {
            TRY(set_flag(p, argc, argv, &i, memory));
        }
    }
    if (print) {
        config_print(p, stdout);
        *action = CONFIG_EXIT;
    }
    return status_ok();
}

static void print_value(const config_option *o, FILE *out) {
    char text[48];
    switch (o->type) {
    case CONFIG_STRING:
    case CONFIG_CHOICE: {
        const char *value = *(const char **)o->value;
        fprintf(out, "\"");
        for (const char *c = value ? value : ""; *c; c++) {
            if (*c == '"' || *c == '\\') fputc('\\', out);
            fputc(*c, out);
        }
        fprintf(out, "\"");
        return;
    }
    case CONFIG_BOOL:
        fputs(*(bool *)o->value ? "true" : "false", out);
        return;
    case CONFIG_FLOAT:
        format_value(o, *(double *)o->value, text);
        break;
    default:
        format_value(o, (double)*(int64_t *)o->value, text);
    }
    fputs(text, out);
}

void config_print(const config_program *p, FILE *out) {
    fprintf(out, "%s:\n", p->section ? p->section : p->name);
    for (int i = 0; i < p->option_count; i++) {
        fprintf(out, "  %s: ", p->options[i].name);
        print_value(&p->options[i], out);
        fputc('\n', out);
    }
}

static const char *metavar(const config_option *o) {
    static const char *const names[] = {
        [CONFIG_STRING] = "TEXT",  [CONFIG_CHOICE] = "WORD", [CONFIG_INT] = "N",
        [CONFIG_FLOAT] = "X",      [CONFIG_BOOL] = "",       [CONFIG_BYTES] = "SIZE",
        [CONFIG_DURATION] = "TIME"};
    return o->metavar ? o->metavar : o->type == CONFIG_CHOICE ? o->choices : names[o->type];
}

static void help_line(FILE *out, const char *name, const char *value, const char *help) {
    enum { COLUMN = 27 };
    int width = fprintf(out, "  --%s%s%s", name, *value ? " " : "", value);
    if (width > COLUMN + 1) width = 0, fputc('\n', out);
    fprintf(out, "%*s%s", COLUMN + 3 - width, "", help);
}

void config_print_help(const config_program *p, FILE *out) {
    fprintf(out, "usage: %s %s\n\n%s\n\n", p->name, p->synopsis, p->about);
    for (int i = 0; i < p->option_count; i++) {
        const config_option *o = &p->options[i];
        help_line(out, o->name, metavar(o), o->help);
        bool empty =
            (o->type == CONFIG_STRING || o->type == CONFIG_CHOICE) && !*(const char **)o->value;
        if (!empty && o->type != CONFIG_BOOL) {
            fputs(" (default ", out);
            print_value(o, out);
            fputs(")", out);
        }
        fputc('\n', out);
    }
    if (p->section) {
        help_line(out, "config", "FILE", "read the section '");
        fprintf(out, "%s' of this YAML file first\n", p->section);
        help_line(out, "print-config", "", "print the values in force as YAML and exit\n");
    }
    help_line(out, "version", "", "print the version and exit\n");
    help_line(out, "help", "", "print this and exit\n");
}
