// comm: how the ranks of one group talk to each other. Few verbs, all collective: every rank calls
// the same ones in the same order, from one thread. A group of one rank does nothing and costs
// nothing.
//
// Sums are of doubles, each element added in rank order 0, 1, ... n-1 whatever the message's
// length, the transport or the number of hosts, so all ranks hold the same bits. (MPI_Allreduce
// promises neither: it changes its algorithm with the size.) Of values on the grid of
// kernels_matmul_sums the sums are exact, and so the same for any number of ranks.
//
// Transports: local (one rank), shm (all ranks on one host: a shared segment, futexes), mpi
// (several hosts). Every wait has a deadline; an error means that the group cannot go on: report it
// and comm_abort.
//
// Neighbouring ranks can have a communicator of their own beside the whole group's (the stages of
// pipeline parallelism); and where that was asked for, one rank can send to another, by verbs of
// these two alone.
#ifndef OCTANT_WORKER_COMM_H
#define OCTANT_WORKER_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"
#include "common/model/shard_plan.h"

enum { COMM_HOST_MAX = 255 };

typedef struct comm comm;

typedef enum comm_transport {
    COMM_AUTO, // local for one rank, shm where all ranks share a host, else mpi
    COMM_SHM,  // FAILED_PRECONDITION where it cannot work
    COMM_MPI,
} comm_transport;

// A group of one rank without MPI, for tests and benches.
status comm_open_local(comm **out);

// Starts MPI and joins the group that mpirun or srun started; a process started without either is a
// group of one. Call once, from the thread that will make all other calls.
status comm_open(int *argc, char ***argv, comm_transport transport, comm **out);

// A communicator of ranks [first, first + count) of `whole`, numbered from 0, for each of whom this
// is called with the same range; the other ranks call it with theirs, at the same time. The best
// transport for those ranks, if `whole` was opened with COMM_AUTO. `whole` outlives it. Errors of
// either name ranks by their numbers in `whole`.
status comm_open_part(comm *whole, int first, int count, int64_t deadline_ns, comm **out);

// Leaves the group in order; all ranks call it. NULL is allowed.
void comm_close(comm *c);

// Ends the processes of all ranks now, with this exit code. Does not return.
void comm_abort(comm *c, int exit_code) __attribute__((noreturn));

int comm_rank(const comm *c);
int comm_size(const comm *c);
const char *comm_name(const comm *c);     // "local", "shm", "mpi"
int comm_number(const comm *c, int rank); // of `rank` in the whole group
const char *comm_host(const comm *c);     // this rank's host name

// Where this rank stands among those on its host. cores_shared: the ranks of this host may run on
// the same set of cores (mpirun --bind-to none), as opposed to one set each.
int comm_local_rank(const comm *c);
int comm_local_size(const comm *c);
bool comm_cores_shared(const comm *c);

// Whether waits may spin for a short while before they sleep: true when every thread of every rank
// has a core.
void comm_set_spin(comm *c, bool spin);

// x[count] = the sum over ranks, in rank order, on every rank.
status comm_allreduce_sum(comm *c, double *x, size_t count, int64_t deadline_ns);

// bytes[count] of rank 0, on every rank. Waiting for it costs next to no processor time: this is
// where idle ranks stand.
status comm_broadcast(comm *c, void *bytes, size_t count, int64_t deadline_ns);

// all[size][count] on rank 0 = mine[count] of every rank; `all` is not touched elsewhere and may be
// NULL there.
status comm_gather(comm *c, const void *mine, size_t count, void *all, int64_t deadline_ns);

status comm_barrier(comm *c, int64_t deadline_ns);

// From rank to rank, in order on each line. All ranks open the lines once, together. comm_send
// returns when `bytes` may be used again, most often before they have arrived; on the last two
// lines always so, while fewer than COMM_MESSAGES messages of at most COMM_WORDS_BYTES lie there
// unread. DEADLINE_EXCEEDED names the other rank.
typedef enum comm_line {
    COMM_ROWS,    // a rank receives from one other, always the same, and sends to any number
    COMM_WORDS,   // from rank 0 to every other
    COMM_REPORTS, // from every other to rank 0
    COMM_LINES,
} comm_line;
enum { COMM_MESSAGES = 8, COMM_WORDS_BYTES = 64 << 10 };
status comm_open_lines(comm *c, int64_t deadline_ns);
status comm_send(comm *c, comm_line line, int to, const void *bytes, size_t count,
                 int64_t deadline_ns);
status comm_receive(comm *c, comm_line line, int from, void *bytes, size_t count,
                    int64_t deadline_ns);

// Whether something lies there that comm_receive would take, or begin to.
bool comm_has_come(comm *c, comm_line line, int from);

// Moves on what was sent, in the whole group; costs next to nothing. For those who compute long
// between two calls of the others.
void comm_progress(comm *c);

// Whether any rank has an error, agreed by all: OK on all, or an error on all, the first failed
// rank's named.
status comm_agree(comm *c, status mine, int64_t deadline_ns);

// The rank (its number in the whole group) that did not come to what failed with DEADLINE_EXCEEDED,
// in the whole group or a part of it; -1: not known.
int comm_missing(const comm *c);

// Time spent in collectives and between two ranks since the last call [ns], in the whole group and
// in its parts, waiting for other ranks included. For StepResult.comm_us.
int64_t comm_take_time(comm *c);

#endif
