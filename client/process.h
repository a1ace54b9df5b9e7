// process: child processes that never outlive what started them. Each child leads its own process
// group (a Ctrl-C in the terminal reaches octant alone, which then stops them in order) and asks
// the kernel to be ended when octant dies, however.
#ifndef OCTANT_CLIENT_PROCESS_H
#define OCTANT_CLIENT_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/status.h"

typedef struct process {
    const char *name; // for messages; static text
    pid_t pid;        // 0: not running
    int exit_status;  // as waitpid gives it, once it has ended
} process;

// Starts argv[0] (looked up in PATH), its standard output and error appended to `log_path`,
// standard input empty. NOT_FOUND when it cannot be executed.
status process_start(process *p, const char *name, char *const argv[], const char *log_path);

// True while it runs; reaps it and keeps exit_status when it has ended.
bool process_poll(process *p);

// SIGTERM to its group, once: mpirun takes a second one as an order to leave its ranks.
void process_ask_to_stop(process *p);

// Waits until it has ended, after deadline_ns with SIGKILL to its group.
void process_wait_end(process *p, int64_t deadline_ns);

// "exited with 1", "was killed by signal 9 (Killed)": into `text`, which is returned.
const char *process_describe(const process *p, char text[64]);

// Why a program of ours ended: the message of the last error in its log, without the time, or of
// the last line with which it refused to start. False: its log names none.
bool process_last_error(const char *log_path, char *message, size_t room);

// Prints the last `lines` lines of a log file to standard error, each after two spaces.
void process_print_tail(const char *log_path, int lines);

#endif
