#include "common/base/config_file.h"

#include <errno.h>
#include <string.h>
#include <yaml.h>

// Sections that some program of Octant reads; a misspelt one must not be passed over in silence.
// Those behind the first two are the coordinator's too, by coordinator/route/policy_file.h.
static const char *const sections[] = {"coordinator",    "worker",  "models",     "upstreams",
                                       "upstream-rules", "privacy", "complexity", "routes",
                                       "maintenance",    "budgets", "local-cost"};

typedef struct reader {
    yaml_parser_t parser;
    yaml_event_t event;
    const config_program *program;
    const char *path;
    arena *memory;
} reader;

static status at_event(const reader *r, status_code code, const char *what, const char *name) {
    return status_error(code, "%s:%zu:%zu: %s%s", r->path, r->event.start_mark.line + 1,
                        r->event.start_mark.column + 1, what, name);
}

// Replaces the current event by the next.
static status next(reader *r) {
    yaml_event_delete(&r->event);
    if (yaml_parser_parse(&r->parser, &r->event)) return status_ok();
    return status_error(STATUS_INVALID_ARGUMENT, "%s:%zu:%zu: %s", r->path,
                        r->parser.problem_mark.line + 1, r->parser.problem_mark.column + 1,
                        r->parser.problem ? r->parser.problem : "invalid YAML");
}

// With the value's first event current: passes over it, however deep.
static status skip_value(reader *r) {
    int depth = 0;
    for (;;) {
        yaml_event_type_t type = r->event.type;
        depth += type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT;
        depth -= type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT;
        if (depth == 0) return status_ok();
        TRY(next(r));
    }
}

static status read_option(reader *r) {
    char key[64];
    snprintf(key, sizeof key, "%s", (const char *)r->event.data.scalar.value);
    const config_option *o = config_find(r->program, key);
    if (!o) {
        const char *near = config_nearest(r->program, key);
        char what[160];
        snprintf(what, sizeof what, "unknown option '%s'%s%s", key, near ? "; did you mean " : "",
                 near ? near : "");
        return at_event(r, STATUS_INVALID_ARGUMENT, what, "");
    }
    TRY(next(r));
    if (r->event.type != YAML_SCALAR_EVENT)
        return at_event(r, STATUS_INVALID_ARGUMENT, "a single value is expected for ", o->name);
    status s = config_set(o, (const char *)r->event.data.scalar.value, r->memory);
    if (status_is_ok(&s)) return s;
    return status_context(s, "%s:%zu:%zu: %s", r->path, r->event.start_mark.line + 1,
                          r->event.start_mark.column + 1, o->name);
}

// With the section's MAPPING-START current.
static status read_section(reader *r) {
    if (r->event.type != YAML_MAPPING_START_EVENT)
        return at_event(r, STATUS_INVALID_ARGUMENT, "options, one a line, are expected in section ",
                        r->program->section);
    for (;;) {
        TRY(next(r));
        if (r->event.type == YAML_MAPPING_END_EVENT) return status_ok();
        if (r->event.type != YAML_SCALAR_EVENT)
            return at_event(r, STATUS_INVALID_ARGUMENT, "an option's name is expected", "");
        TRY(read_option(r));
    }
}

static status read_top(reader *r) {
    for (;;) {
        TRY(next(r));
        if (r->event.type == YAML_MAPPING_END_EVENT) return status_ok();
        if (r->event.type != YAML_SCALAR_EVENT)
            return at_event(r, STATUS_INVALID_ARGUMENT, "a section's name is expected", "");
        char name[64];
        snprintf(name, sizeof name, "%s", (const char *)r->event.data.scalar.value);
        bool known = false;
        for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
            known |= strcmp(name, sections[i]) == 0;
        if (!known)
            return at_event(r, STATUS_INVALID_ARGUMENT,
                            "unknown section; there are coordinator, worker, models, upstreams, "
                            "upstream-rules, privacy, complexity, routes, maintenance, budgets and "
                            "local-cost, not ",
                            name);
        TRY(next(r));
        TRY(strcmp(name, r->program->section) == 0 ? read_section(r) : skip_value(r));
    }
}

static status read_document(reader *r) {
    TRY(next(r)); // stream start
    TRY(next(r));
    if (r->event.type == YAML_STREAM_END_EVENT) return status_ok(); // an empty file
    TRY(next(r));
    if (r->event.type != YAML_MAPPING_START_EVENT)
        return at_event(r, STATUS_INVALID_ARGUMENT,
                        "the file must be sections with options in them", "");
    return read_top(r);
}

status config_file_read(const config_program *program, const char *path, arena *memory) {
    FILE *file = fopen(path, "r");
    if (!file) return status_error(STATUS_NOT_FOUND, "%s: %s", path, strerror(errno));
    reader r = {.program = program, .path = path, .memory = memory};
    status s;
    if (yaml_parser_initialize(&r.parser)) {
        yaml_parser_set_input_file(&r.parser, file);
        s = read_document(&r);
        yaml_event_delete(&r.event);
        yaml_parser_delete(&r.parser);
    } else {
        s = status_error(STATUS_RESOURCE_EXHAUSTED, "%s: no memory for the YAML parser", path);
    }
    fclose(file);
    return s;
}
