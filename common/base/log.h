// log: one line per event on standard error: time, level, component, message.
//
//   2026-11-24T11:02:03.123Z info  group: g1 ready world_size=2 kv_blocks=4096
//
// Rule: no prompt, answer or secret is ever passed to these functions; a request is named by its id.
#ifndef OCTANT_BASE_LOG_H
#define OCTANT_BASE_LOG_H

#include "common/base/status.h"

typedef enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR } log_level;

// Lines below `level` are dropped. `component` prefixes every line of this process ("coordinator",
// "worker 3"); it is copied, 31 characters at most. Call once, before threads start.
void log_open(log_level level, const char *component);

// "debug", "info", "warn" or "error" to a level; INVALID_ARGUMENT names the four.
status log_level_parse(const char *text, log_level *out);

// Writes one line with a single write(2), so that lines of several threads and processes do not mix.
void log_write(log_level level, const char *subject, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(subject, ...) log_write(LOG_DEBUG, subject, __VA_ARGS__)
#define log_info(subject, ...) log_write(LOG_INFO, subject, __VA_ARGS__)
#define log_warn(subject, ...) log_write(LOG_WARN, subject, __VA_ARGS__)
#define log_error(subject, ...) log_write(LOG_ERROR, subject, __VA_ARGS__)

#endif
