#include "tests/sim/sim_runner.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    JOBS_MAX = 64,
    CHUNK_SEEDS = 250,      // of one process
    SEED_SECONDS_MAX = 120, // a run that takes longer never ends
    LIST_MAX = 6000,
    PROGRESS_SECONDS = 30,
};

sim_place *sim_here;

// What a process and its starter both see.
typedef struct job {
    sim_place place;
    sim_sums sums;
    pid_t pid; // 0: none
    uint64_t first, count;
} job;

static job *share(size_t count) {
    void *memory =
        mmap(NULL, count * sizeof(job), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory != MAP_FAILED) return memory;
    perror("sim_core: mmap");
    exit(2);
}

static void start(job *j, const sim_orders *o, bool silent) {
    memset(&j->sums, 0, sizeof j->sums);
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        perror("sim_core: fork");
        exit(2);
    }
    if (pid > 0) {
        j->pid = pid; // not in the child: both see it
        return;
    }
    if (silent && !freopen("/dev/null", "w", stderr)) _exit(2);
    sim_here = &j->place;
    sim_here->trace = o->trace;
    sim_here->schedule.faults = o->faults;
    sim_here->schedule.clients = o->clients;
    for (uint64_t i = 0; i < j->count; i++) {
        alarm(SEED_SECONDS_MAX);
        sim_world_run(j->first + i, o->events, &j->sums);
    }
    exit(0);
}

static void add(sim_sums *sum, const sim_sums *more) {
    sum->events += more->events;
    sum->core.requests += more->core.requests;
    sum->core.ended_ok += more->core.ended_ok;
    sum->core.cached_tokens += more->core.cached_tokens;
    sum->core.preemptions += more->core.preemptions;
    sum->core.replays += more->core.replays;
    sum->core.groups_lost += more->core.groups_lost;
    sum->core.steps += more->core.steps;
    sum->calls.calls += more->calls.calls;
    sum->calls.faults += more->calls.faults;
    sum->calls.continued += more->calls.continued;
    sum->calls.cancelled += more->calls.cancelled;
    sum->blames.quarantined += more->blames.quarantined;
    sum->blames.unlucky += more->blames.unlucky;
}

// ---- shrinking ----

typedef struct shrinker {
    sim_orders orders; // one seed; the sets that still fail
    job *job;
    int trials, signal; // of the failure that is looked for
    char violation[sizeof((sim_place *)0)->violation];
} shrinker;

// The same violation with these sets?
static bool still_fails(shrinker *s, const sim_set *faults, const sim_set *clients) {
    sim_orders o = s->orders;
    o.faults = *faults;
    o.clients = *clients;
    s->trials++;
    start(s->job, &o, true);
    int result;
    waitpid(s->job->pid, &result, 0);
    if (WIFSIGNALED(result)) return s->signal == WTERMSIG(result);
    return WEXITSTATUS(result) == 1 && strcmp(s->violation, s->job->place.violation) == 0;
}

// Leaves out ever smaller parts of the list while it still fails (delta debugging; Zeller and
// Hildebrandt 2002, without its complements).
static void shrink(shrinker *s, sim_set *set, bool of_faults) {
    static int list[LIST_MAX], fewer[LIST_MAX];
    int count = sim_set_list(set, list, LIST_MAX);
    for (int part = (count + 1) / 2; part >= 1 && count > 0; part = part == 1 ? 0 : (part + 1) / 2)
        for (int at = 0; at < count && s->trials < s->orders.tries;) {
            int gone = part < count - at ? part : count - at;
            memcpy(fewer, list, (size_t)at * sizeof *list);
            memcpy(fewer + at, list + at + gone, (size_t)(count - at - gone) * sizeof *list);
            sim_set trial;
            sim_set_of(fewer, count - gone, &trial);
            bool fails = of_faults ? still_fails(s, &trial, &s->orders.clients)
                                   : still_fails(s, &s->orders.faults, &trial);
            if (!fails) {
                at += gone;
                continue;
            }
            memcpy(list, fewer, (size_t)(count - gone) * sizeof *list);
            count -= gone;
            *set = trial;
        }
}

static void print_smallest(const shrinker *s) {
    static char faults[LIST_MAX * 6], clients[LIST_MAX * 6];
    sim_set_print(&s->orders.faults, faults, sizeof faults);
    sim_set_print(&s->orders.clients, clients, sizeof clients);
    fprintf(stderr, "the smallest run that fails, after %d tries:\n", s->trials);
    fprintf(stderr, "SEED=%" PRIu64 " EVENTS=%" PRIu64 " FAULTS=%s CLIENTS=%s tests/sim/run.sh\n",
            s->orders.seed, s->orders.events, faults, clients);
}

static void explain(const sim_orders *o, job *failed, int result) {
    static shrinker s;
    s = (shrinker){.orders = *o, .job = failed};
    s.orders.seed = failed->first = failed->place.seed;
    failed->count = 1;
    s.signal = WIFSIGNALED(result) ? WTERMSIG(result) : 0;
    memcpy(s.violation, failed->place.violation, sizeof s.violation);
    if (s.signal)
        fprintf(stderr, "VIOLATION seed=%" PRIu64 " event=%" PRIu64 " t=%.3fs: ended by %s%s\n",
                s.orders.seed, failed->place.event, (double)failed->place.now_ns / 1e9,
                strsignal(s.signal), s.signal == SIGALRM ? ": a run that never ends" : "");
    bool loops = s.signal == SIGALRM; // each try would take so long
    if (loops) s.orders.tries = 0;
    s.orders.faults = failed->place.schedule.faults_met;
    s.orders.clients = failed->place.schedule.clients_met;
    s.orders.faults.limited = s.orders.clients.limited = true;
    shrink(&s, &s.orders.clients, false);
    shrink(&s, &s.orders.faults, true);
    shrink(&s, &s.orders.clients, false);
    print_smallest(&s);
    if (loops) return;
    failed->first = s.orders.seed;
    start(failed, &s.orders, false);
    waitpid(failed->pid, &result, 0);
}

// ---- running ----

typedef struct progress {
    uint64_t taken, done;
    int64_t began_ns, said_ns;
} progress;

static bool next(job *j, const sim_orders *o, progress *p) {
    if (p->taken == o->seeds) return false;
    uint64_t left = o->seeds - p->taken;
    j->first = o->seed + p->taken;
    j->count = left < CHUNK_SEEDS ? left : CHUNK_SEEDS;
    p->taken += j->count;
    start(j, o, false);
    return true;
}

static void say_progress(const sim_orders *o, progress *p) {
    int64_t now = clock_now_ns();
    if (!o->progress || now - p->said_ns < PROGRESS_SECONDS * CLOCK_SECOND) return;
    p->said_ns = now;
    printf("%" PRIu64 " of %" PRIu64 " seeds, %.0f per second\n", p->done, o->seeds,
           (double)p->done / ((double)(now - p->began_ns) / 1e9));
    fflush(stdout);
}

static void end_others(job *jobs, int count) {
    for (int i = 0; i < count; i++) {
        if (jobs[i].pid <= 0) continue;
        kill(jobs[i].pid, SIGKILL);
        waitpid(jobs[i].pid, NULL, 0);
    }
}

static job *job_of(job *jobs, int count, pid_t pid) {
    for (int i = 0; i < count; i++)
        if (jobs[i].pid == pid) return &jobs[i];
    return NULL;
}

bool sim_runner_run(const sim_orders *o, sim_sums *sums) {
    int count = o->jobs < 1 ? 1 : o->jobs > JOBS_MAX ? JOBS_MAX : o->jobs;
    job *jobs = share((size_t)count);
    progress p = {.began_ns = clock_now_ns(), .said_ns = clock_now_ns()};
    int running = 0;
    for (int i = 0; i < count; i++) running += next(&jobs[i], o, &p);
    while (running > 0) {
        int result;
        job *j = job_of(jobs, count, wait(&result));
        if (!j) continue;
        j->pid = 0;
        if (!WIFEXITED(result) || WEXITSTATUS(result) != 0) {
            end_others(jobs, count);
            explain(o, j, result);
            return false;
        }
        add(sums, &j->sums);
        p.done += j->count;
        say_progress(o, &p);
        running -= !next(j, o, &p);
    }
    munmap(jobs, (size_t)count * sizeof *jobs);
    return true;
}
