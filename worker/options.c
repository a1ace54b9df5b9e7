// options: see options.h; the table is the documentation (--help prints it).
#include "worker/options.h"

#include <string.h>

#include "common/base/clock.h"
#include "common/base/config.h"

enum { WORDS_MAX = 256 };

static const char about[] =
    "One rank of a worker group: holds its part of a model and computes with the other ranks. "
    "Start as many as the "
    "model is to be split into, on one host or several, under mpirun or srun:\n"
    "\n"
    "  mpirun -n 2 --bind-to none octant-worker --coordinator 127.0.0.1:50051 --model model.gguf\n"
    "  mpirun --hostfile hosts octant-worker --coordinator head:50051 --model /models/llama\n"
    "\n"
    "Rank 0 registers the group with the coordinator. A lost rank or host ends the whole group "
    "with "
    "one line; whoever started it starts it again. When the coordinator is lost, the ranks keep "
    "their weights and register again.";

static options defaults(void) {
    return (options){
        .coordinator = "127.0.0.1:50051",
        .stages = 1,
        .pin = true,
        .kv_memory = INT64_C(1) << 30,
        .kv_type = "auto",
        .device = "auto",
        .isa = "auto",
        .sums = "bf16",
        .reduce = "auto",
        .multicast = true,
        .transport = "auto",
        .graphs = "all",
        .warm_shards = "off",
        .warm_memory = INT64_C(64) << 30,
        .step_timeout_ns = 60 * CLOCK_SECOND,
        .dial_timeout_ns = 30 * CLOCK_SECOND,
        .lost_timeout_ns = 10 * CLOCK_SECOND,
        .reconnect_timeout_ns = 600 * CLOCK_SECOND,
        .regroup_timeout_ns = 5 * CLOCK_SECOND,
        .log_level = "info",
    };
}

static status check(const options *o, int word_count, const char *const *words) {
    if (word_count > 0)
        return status_error(STATUS_INVALID_ARGUMENT, "'%s' is not an option; see --help", words[0]);
    if (!o->model)
        return status_error(STATUS_INVALID_ARGUMENT,
                            "--model is missing: a GGUF file or a model folder");
    char host[256];
    int port;
    return status_context(config_split_address(o->coordinator, host, &port), "--coordinator");
}

status options_parse(int argc, char **argv, arena *memory, options *out, bool *exit_now) {
    options *o = out;
    *o = defaults();
    const config_option table[] = {
        {"coordinator", CONFIG_STRING, &o->coordinator, 0, 0, NULL, "HOST:PORT",
         "gRPC address of the coordinator"},
        {"cluster-key", CONFIG_STRING, &o->cluster_key, 0, 0, NULL, "PATH",
         "file with the coordinator's key, on every host"},
        {"model", CONFIG_STRING, &o->model, 0, 0, NULL, "PATH",
         "GGUF file or Hugging Face folder; the same on every host"},
        {"name", CONFIG_STRING, &o->name, 0, 0, NULL, "NAME",
         "what clients call the model; default: from the files"},
        {"spare", CONFIG_BOOL, &o->spare, 0, 0, NULL, NULL,
         "stand by: take new work only while no other group of the model is ready"},
        {"stages", CONFIG_INT, &o->stages, 1, SHARD_STAGES_MAX, NULL, NULL,
         "cut the layers into so many stages, one after the other, each on its share of the ranks; "
         "for hosts without a fast network between them: as many as hosts"},
        {"threads", CONFIG_INT, &o->threads, 0, 1024, NULL, NULL,
         "threads of this rank; 0: its share of the host's cores"},
        {"pin", CONFIG_BOOL, &o->pin, 0, 0, NULL, NULL,
         "pin threads to cores where every thread has one"},
        {"kv-memory", CONFIG_BYTES, &o->kv_memory, 1 << 16, 1e14, NULL, NULL,
         "memory of this rank for KV blocks"},
        {"kv-type", CONFIG_CHOICE, &o->kv_type, 0, 0, "auto|f32|f16|bf16|f8|i8", NULL,
         "numbers in the KV cache; auto: f32 for F32 weights, else f16; f8 and i8: cuda"},
        {"isa", CONFIG_CHOICE, &o->isa, 0, 0, "auto|portable|avx2|avx512|reference", NULL,
         "instruction set; auto: the best that this processor has"},
        {"device", CONFIG_CHOICE, &o->device, 0, 0, "auto|cpu|cuda", NULL,
         "where to compute; auto: cuda where there is a card, else cpu"},
        {"sums", CONFIG_CHOICE, &o->sums, 0, 0, "exact|bf16", NULL,
         "cuda: how partial sums travel between ranks; exact: the same answer on any number of "
         "ranks"},
        {"reduce", CONFIG_CHOICE, &o->reduce, 0, 0, "auto|host|nccl|peer", NULL,
         "who adds partial sums; auto: host on cpu, the faster of nccl and peer memory on cuda"},
        {"one-shot", CONFIG_BYTES, &o->one_shot, 0, 1 << 20, NULL, NULL,
         "peer: sums up to this long go straight to every rank, longer ones by the NVSwitch where "
         "it adds right; 0: measured at the start"},
        {"multicast", CONFIG_BOOL, &o->multicast, 0, 0, NULL, NULL,
         "peer: let the NVSwitch add where it can and is faster (H100 and later; with --sums "
         "exact, "
         "or --fast)"},
        {"nccl", CONFIG_STRING, &o->nccl, 0, 0, NULL, "PATH",
         "file of NCCL's library; default: libnccl.so.2 where the loader finds it"},
        {"fast", CONFIG_BOOL, &o->fast, 0, 0, NULL, NULL,
         "cuda: allow what makes an answer depend on the other requests in its batch, and on sm_90 "
         "FP8 activations for FP8 weights"},
        {"graphs", CONFIG_CHOICE, &o->graphs, 0, 0, "all|decode|off", NULL,
         "cuda: record steps and replay them; decode: only those that decode, off: none. The "
         "numbers are the same"},
        {"transport", CONFIG_CHOICE, &o->transport, 0, 0, "auto|shm|mpi", NULL,
         "between ranks; auto: shared memory on one host, MPI across hosts"},
        {"warm-shards", CONFIG_STRING, &o->warm_shards, 0, 0, NULL, "DIR|off",
         "cuda: keep this rank's packed weights in DIR (/dev/shm), which a process started again "
         "loads at the speed of the bus; rm DIR/octant-*.shard frees the memory"},
        {"warm-memory", CONFIG_BYTES, &o->warm_memory, 1 << 20, 1e14, NULL, NULL,
         "cuda: weights of a rank that are larger than this are not kept warm"},
        {"step-timeout", CONFIG_DURATION, &o->step_timeout_ns, 1e8, 3.6e12, NULL, NULL,
         "a rank that stands still for so long ends the group"},
        {"dial-timeout", CONFIG_DURATION, &o->dial_timeout_ns, 1e8, 3.6e12, NULL, NULL,
         "how long to wait for the coordinator at the start"},
        {"lost-timeout", CONFIG_DURATION, &o->lost_timeout_ns, 1e9, 3.6e12, NULL, NULL,
         "a coordinator that has not answered heartbeats for so long is lost"},
        {"reconnect-timeout", CONFIG_DURATION, &o->reconnect_timeout_ns, 1e8, 8.64e13, NULL, NULL,
         "how long to keep the weights and wait for a lost coordinator"},
        {"regroup-timeout", CONFIG_DURATION, &o->regroup_timeout_ns, 1e8, 3.6e12, NULL, NULL,
         "how long the ranks of a group that was given up have to come together again"},
        {"log-level", CONFIG_CHOICE, &o->log_level, 0, 0, "debug|info|warn|error", NULL,
         "least level that is logged"},
    };
    const config_program program = {.name = "octant-worker",
                                    .section = "worker",
                                    .synopsis = "[options] --model PATH",
                                    .about = about,
                                    .options = table,
                                    .option_count = sizeof table / sizeof table[0]};
    const char *words[WORDS_MAX];
    int word_count = 0;
    config_action action = CONFIG_RUN;
    if (argc > WORDS_MAX)
        return status_error(STATUS_INVALID_ARGUMENT, "more than %d arguments", WORDS_MAX);
    TRY(config_parse(&program, argc, argv, memory, words, &word_count, &action));
    *exit_now = action == CONFIG_EXIT;
    return *exit_now ? status_ok() : check(o, word_count, words);
}

reduce_kind options_reduce(const options *o) {
    if (!strcmp(o->reduce, "host")) return REDUCE_HOST;
    if (!strcmp(o->reduce, "nccl")) return REDUCE_NCCL;
    if (!strcmp(o->reduce, "peer")) return REDUCE_PEER;
    return REDUCE_AUTO;
}

const char *options_warm_shards(const options *o) {
    return !strcmp(o->warm_shards, "off") ? NULL : o->warm_shards;
}

comm_transport options_transport(const options *o) {
    if (!strcmp(o->transport, "shm")) return COMM_SHM;
    if (!strcmp(o->transport, "mpi")) return COMM_MPI;
    return COMM_AUTO;
}
