#include "client/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"

static _Noreturn void become(char *const argv[], int log_fd, int error_fd, pid_t parent) {
    setpgid(0, 0);
    // SIGTERM, not SIGKILL: mpirun must still be able to end its ranks, which are in groups of
    // their own.
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(127); // it died before the line above
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, STDIN_FILENO);
    dup2(log_fd, STDOUT_FILENO);
    dup2(log_fd, STDERR_FILENO);
    execvp(argv[0], argv);
    int error = errno;
    ssize_t ignored = write(error_fd, &error, sizeof error);
    (void)ignored;
    _exit(127);
}

status process_start(process *p, const char *name, char *const argv[], const char *log_path) {
    *p = (process){.name = name};
    int log_fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log_fd < 0)
        return status_error(STATUS_UNAVAILABLE, "%s: cannot write its log: %s", log_path,
                            strerror(errno));
    int report[2]; // closed by a successful exec, else carries errno
    if (pipe2(report, O_CLOEXEC) != 0) {
        close(log_fd);
        return status_error(STATUS_RESOURCE_EXHAUSTED, "%s: no pipe: %s", name, strerror(errno));
    }
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) become(argv, log_fd, report[1], parent);
    int fork_error = errno, exec_error = 0;
    close(log_fd);
    close(report[1]);
    ssize_t got = pid > 0 ? read(report[0], &exec_error, sizeof exec_error) : 0;
    close(report[0]);
    if (pid < 0)
        return status_error(STATUS_RESOURCE_EXHAUSTED, "%s: cannot start a process: %s", name,
                            strerror(fork_error));
    if (got > 0) {
        waitpid(pid, NULL, 0);
        return status_error(STATUS_NOT_FOUND, "%s: cannot run %s: %s", name, argv[0],
                            strerror(exec_error));
    }
    p->pid = pid;
    return status_ok();
}

bool process_poll(process *p) {
    if (p->pid == 0) return false;
    if (waitpid(p->pid, &p->exit_status, WNOHANG) == p->pid) p->pid = 0;
    return p->pid != 0;
}

void process_ask_to_stop(process *p) {
    if (process_poll(p)) kill(-p->pid, SIGTERM);
}

void process_wait_end(process *p, int64_t deadline_ns) {
    while (process_poll(p)) {
        int64_t now = clock_now_ns();
        if (now >= deadline_ns) break;
        clock_sleep_until(now + 5 * CLOCK_MS);
    }
    if (!process_poll(p)) return;
    kill(-p->pid, SIGKILL);
    waitpid(p->pid, &p->exit_status, 0);
    p->pid = 0;
}

const char *process_describe(const process *p, char text[64]) {
    if (WIFSIGNALED(p->exit_status))
        snprintf(text, 64, "was killed by signal %d (%s)", WTERMSIG(p->exit_status),
                 strsignal(WTERMSIG(p->exit_status)));
    else
        snprintf(text, 64, "exited with %d", WEXITSTATUS(p->exit_status));
    return text;
}

enum { TAIL = 8192 };

// The file's last bytes as a text; "" when there are none.
static void read_tail(const char *log_path, char tail[TAIL + 1]) {
    tail[0] = 0;
    FILE *file = fopen(log_path, "r");
    if (!file) return;
    if (fseek(file, -TAIL, SEEK_END) != 0) rewind(file);
    tail[fread(tail, 1, TAIL, file)] = 0;
    fclose(file);
}

// "TIME error COMPONENT AREA: MESSAGE" (common/base/log.h) or "octant-NAME: MESSAGE".
static const char *error_in(const char *line) {
    if (strncmp(line, "octant-", 7) == 0) {
        const char *colon = strstr(line, ": ");
        return colon ? colon + 2 : NULL;
    }
    const char *level = strchr(line, ' '), *colon = level ? strstr(level, ": ") : NULL;
    return colon && strncmp(level, " error ", 7) == 0 ? colon + 2 : NULL;
}

bool process_last_error(const char *log_path, char *message, size_t room) {
    char tail[TAIL + 1], *rest = NULL;
    read_tail(log_path, tail);
    bool found = false;
    for (char *line = strtok_r(tail, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        const char *error = error_in(line);
        if (error) snprintf(message, room, "%s", error);
        found = found || error;
    }
    return found;
}

void process_print_tail(const char *log_path, int lines) {
    char tail[TAIL + 1];
    read_tail(log_path, tail);
    size_t size = strlen(tail);
    const char *start = tail + size;
    for (int seen = 0; start > tail; start--)
        if (start[-1] == '\n' && start < tail + size && ++seen == lines) break;
    for (const char *line = start; *line;) {
        size_t length = strcspn(line, "\n");
        fprintf(stderr, "  %.*s\n", (int)length, line);
        line += length + (line[length] == '\n');
    }
}
