#include "common/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"debug", "info", "warn", "error"};

// The one process-wide state of Octant: where lines go is a property of the process.
static struct {
    log_level level;
    char component[32];
} logger = {LOG_INFO, "octant"};

void log_open(log_level level, const char *component) {
    logger.level = level;
    snprintf(logger.component, sizeof logger.component, "%s", component);
}

status log_level_parse(const char *text, log_level *out) {
    for (int i = LOG_DEBUG; i <= LOG_ERROR; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *out = (log_level)i;
            return status_ok();
        }
    }
    return status_error(STATUS_INVALID_ARGUMENT,
                        "log level '%s' is not one of debug, info, warn, error", text);
}

void log_write(log_level level, const char *subject, const char *format, ...) {
    if (level < logger.level) return;
    char line[1024];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm utc;
    gmtime_r(&now.tv_sec, &utc);
    size_t used = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
    used += (size_t)snprintf(line + used, sizeof line - used, ".%03ldZ %-5s %s %s: ",
                             now.tv_nsec / 1000000, level_names[level], logger.component, subject);
    if (used > sizeof line - 2) used = sizeof line - 2;
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(line + used, sizeof line - used - 1, format, args);
    va_end(args);
    size_t room = sizeof line - used - 2;
    size_t end = used + (wanted < 0 ? 0 : (size_t)wanted > room ? room : (size_t)wanted);
    for (size_t i = used; i < end; i++)
        if ((unsigned char)line[i] < 0x20) line[i] = ' ';
    line[end] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, end + 1);
    (void)ignored; // nobody to tell that standard error is gone
}
