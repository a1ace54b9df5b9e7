// generate: the worker's engine without a coordinator: greedy or sampled tokens of many prompts,
// logits, and speed. Under mpirun it is tensor-parallel; tests compare its output between rank
// counts, with llama.cpp and with golden logits.
//
//   mpirun -n 3 generate MODEL --prompts FILE --max-tokens 64       one line per prompt: the
//   answer's token ids generate MODEL --tokens "1 2 3" --logits-out FILE               float32
//   (tokens, vocab) of every position
//
// --prompts has one prompt per line, "\n" standing for a newline; --token-file has one prompt per
// line as token ids. --batch runs so many prompts at once; --chunk prefills in pieces; --gaps
// prints after each token the gap of the best two logits ("id:gap"), which tells a tie. Where the
// engine can, a step begins before the one before it is finished; --ahead false waits.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "worker/engine.h"

enum { PROMPTS_MAX = 4096, LINE_MAX_BYTES = 1 << 20, BLOCK_TOKENS = 16, SEQS_MAX = 64 };

static struct {
    const char *prompts, *token_file, *tokens, *prompt, *logits_out, *transport, *isa, *kv_type,
        *device, *sums, *reduce, *warm_shards, *graphs, *schema;
    int64_t max_tokens, stages, threads, batch, chunk, context, kv_memory, step_tokens, seed, waves;
    double temperature;
    bool gaps, full, pin, prompt_logprobs, text, ahead, fast;
} o = {.max_tokens = 32,
       .stages = 1,
       .threads = 1,
       .batch = 1,
       .waves = 1,
       .chunk = 512,
       .context = 2048,
       .kv_memory = 256 << 20,
       .step_tokens = 512,
       .transport = "auto",
       .kv_type = "auto",
       .device = "cpu",
       .sums = "exact",
       .reduce = "auto",
       .graphs = "all",
       .pin = true,
       .ahead = true};

static const config_option options[] = {
    {"prompts", CONFIG_STRING, &o.prompts, 0, 0, NULL, "FILE", "one prompt per line"},
    {"token-file", CONFIG_STRING, &o.token_file, 0, 0, NULL, "FILE",
     "one prompt per line, as token ids"},
    {"prompt", CONFIG_STRING, &o.prompt, 0, 0, NULL, "TEXT", "one prompt"},
    {"tokens", CONFIG_STRING, &o.tokens, 0, 0, NULL, "IDS", "one prompt as token ids"},
    {"logits-out", CONFIG_STRING, &o.logits_out, 0, 0, NULL, "FILE",
     "write the prompts' logits, generate nothing"},
    {"waves", CONFIG_INT, &o.waves, 1, 16, NULL, "N", "waves of prompts, in turn"},
    {"transport", CONFIG_CHOICE, &o.transport, 0, 0, "auto|shm|mpi", NULL, "how ranks talk"},
    {"device", CONFIG_CHOICE, &o.device, 0, 0, "auto|cpu|cuda", NULL, "where to compute"},
    {"sums", CONFIG_CHOICE, &o.sums, 0, 0, "exact|bf16", NULL, "partial sums between ranks"},
    {"fast", CONFIG_BOOL, &o.fast, 0, 0, NULL, NULL, "the worker's --fast"},
    {"graphs", CONFIG_CHOICE, &o.graphs, 0, 0, "all|decode|off", NULL, "the worker's --graphs"},
    {"reduce", CONFIG_CHOICE, &o.reduce, 0, 0, "auto|host|nccl|peer", NULL, "who adds them"},
    {"isa", CONFIG_STRING, &o.isa, 0, 0, NULL, "NAME", "force a backend"},
    {"kv-type", CONFIG_CHOICE, &o.kv_type, 0, 0, "auto|f32|f16|bf16|f8|i8", NULL,
     "type of the KV cache"},
    {"max-tokens", CONFIG_INT, &o.max_tokens, 1, 1 << 20, NULL, NULL, "tokens per answer"},
    {"stages", CONFIG_INT, &o.stages, 1, SHARD_STAGES_MAX, NULL, NULL, "stages of the ranks"},
    {"threads", CONFIG_INT, &o.threads, 1, 1024, NULL, NULL, "threads per rank"},
    {"batch", CONFIG_INT, &o.batch, 1, SEQS_MAX, NULL, NULL, "prompts at once"},
    {"chunk", CONFIG_INT, &o.chunk, 1, 1 << 16, NULL, NULL, "prompt tokens per step"},
    {"context", CONFIG_INT, &o.context, 1, 1 << 24, NULL, NULL, "longest sequence"},
    {"kv-memory", CONFIG_BYTES, &o.kv_memory, 1, 1e13, NULL, NULL, "KV budget per rank"},
    {"warm-shards", CONFIG_STRING, &o.warm_shards, 0, 0, NULL, "DIR", "keep packed weights here"},
    {"seed", CONFIG_INT, &o.seed, 0, 1e15, NULL, NULL, "sampling seed"},
    {"temperature", CONFIG_FLOAT, &o.temperature, 0, 2, NULL, NULL, "0 is greedy"},
    {"schema", CONFIG_STRING, &o.schema, 0, 0, NULL, "JSON", "a JSON Schema for the answers"},
    {"gaps", CONFIG_BOOL, &o.gaps, 0, 0, NULL, NULL,
     "print the gap of the best two log probabilities"},
    {"full", CONFIG_BOOL, &o.full, 0, 0, NULL, NULL, "gather whole rows of logits for greedy too"},
    {"ahead", CONFIG_BOOL, &o.ahead, 0, 0, NULL, NULL, "begin a step before the last has ended"},
    {"pin", CONFIG_BOOL, &o.pin, 0, 0, NULL, NULL, "pin threads"},
    {"text", CONFIG_BOOL, &o.text, 0, 0, NULL, NULL, "print text, not ids"},
    {"prompt-logprobs", CONFIG_BOOL, &o.prompt_logprobs, 0, 0, NULL, NULL,
     "print the prompts' log probabilities"},
};

typedef struct sequence {
    int32_t *prompt, *answer, *blocks;
    float *gaps, *logprobs;
    int prompt_count, answer_count, block_count;
    int done, planned; // prompt tokens, and tokens of the answer, of the steps that have begun
    int heard;         // prompt tokens of the results that have come
    bool opened;
} sequence;

typedef struct run_state {
    comm *comm;
    model *model;
    engine *engine;
    progress progress;
    sequence *seqs;
    int count;
} run_state;

static void die(const run_state *r, status s) {
    if (status_is_ok(&s)) return;
    fprintf(stderr, "generate: %s\n", s.message);
    comm_abort(r->comm, 1);
}

static void add_ids(run_state *r, const int32_t *ids, size_t count) {
    sequence *q = &r->seqs[r->count++];
    if (count == 0 || (int64_t)count + o.max_tokens > o.context)
        die(r, status_error(STATUS_INVALID_ARGUMENT, "prompt %d has %zu tokens", r->count, count));
    q->prompt = malloc(count * sizeof *ids);
    memcpy(q->prompt, ids, count * sizeof *ids);
    q->prompt_count = (int)count;
    q->answer = calloc((size_t)o.max_tokens, sizeof *q->answer);
    q->gaps = calloc((size_t)o.max_tokens, sizeof *q->gaps);
    q->logprobs = calloc(count, sizeof *q->logprobs);
    q->blocks = calloc((size_t)o.context / BLOCK_TOKENS + 1, sizeof *q->blocks);
}

static void add_text(run_state *r, const char *text) {
    char *plain = malloc(strlen(text) + 1), *w = plain;
    for (; *text && *text != '\n'; text++) {
        bool newline = text[0] == '\\' && text[1] == 'n';
        *w++ = newline ? '\n' : *text;
        text += newline;
    }
    token_list list = {0};
    die(r, tokenizer_encode(model_get_tokenizer(r->model), plain, (size_t)(w - plain), true, true,
                            1 << 20, &list));
    add_ids(r, list.ids, list.count);
    token_list_free(&list);
    free(plain);
}

static void add_tokens(run_state *r, const char *text) {
    int32_t *ids = malloc((strlen(text) + 1) * sizeof *ids);
    size_t count = 0;
    for (char *end; *text && *text != '\n'; text = end) {
        ids[count] = (int32_t)strtol(text, &end, 10);
        if (end == text) break;
        count++;
    }
    add_ids(r, ids, count);
    free(ids);
}

static void read_lines(run_state *r, const char *path, void (*add)(run_state *, const char *)) {
    FILE *f = fopen(path, "r");
    if (!f) die(r, status_error(STATUS_NOT_FOUND, "cannot read %s", path));
    char *line = malloc(LINE_MAX_BYTES);
    while (fgets(line, LINE_MAX_BYTES, f) && r->count < PROMPTS_MAX) add(r, line);
    free(line);
    fclose(f);
}

static void read_prompts(run_state *r) {
    r->seqs = calloc(PROMPTS_MAX, sizeof *r->seqs);
    if (o.prompt) add_text(r, o.prompt);
    if (o.tokens) add_tokens(r, o.tokens);
    if (o.prompts) read_lines(r, o.prompts, add_text);
    if (o.token_file) read_lines(r, o.token_file, add_tokens);
}

// Every rank runs this alike: it goes below the step loop.
static void write_logits(run_state *r) {
    FILE *f = comm_rank(r->comm) == 0 ? fopen(o.logits_out, "wb") : NULL;
    int vocab = model_get_config(r->model)->vocab, ranks = comm_size(r->comm), most = 0;
    shard mine[SHARD_RANKS_MAX];
    for (int i = 0; i < ranks; i++) {
        die(r, shard_plan(model_get_config(r->model), ranks, (int)o.stages, i, &mine[i]));
        int rows = mine[i].vocab.end - mine[i].vocab.begin;
        most = rows > most ? rows : most;
    }
    float *all = malloc((size_t)ranks * (size_t)most * sizeof *all),
          *part = malloc((size_t)most * sizeof *part);
    int32_t *rows = malloc((size_t)o.chunk * sizeof *rows);
    decoder *d = engine_decoder(r->engine);
    int64_t never = clock_now_ns() + 600 * CLOCK_SECOND;
    for (int n = 0; n < r->count; n++) {
        sequence *q = &r->seqs[n];
        for (int i = 0; i <= q->prompt_count / BLOCK_TOKENS; i++) q->blocks[i] = i;
        for (int at = 0; at < q->prompt_count; at += (int)o.chunk) {
            int count = q->prompt_count - at < o.chunk ? q->prompt_count - at : (int)o.chunk;
            kernels_seq seq = {.row = 0, .tokens = count, .position = at, .blocks = q->blocks};
            for (int32_t i = 0; i < count; i++) rows[i] = i;
            decoder_step step = {.ids = q->prompt + at,
                                 .tokens = count,
                                 .seqs = &seq,
                                 .seq_count = 1,
                                 .wanted = rows,
                                 .wanted_count = count};
            die(r, decoder_forward(d, &step, never));
            for (int32_t i = 0; i < count; i++) {
                const float *logits = decoder_logits(d, i, 1);
                die(r, kernels_download(engine_kernels(r->engine), part, logits,
                                        (size_t)most * sizeof *part));
                die(r, comm_gather(r->comm, part, (size_t)most * sizeof *part, all, never));
                for (int k = 0; f && k < ranks; k++)
                    fwrite(all + (size_t)k * (size_t)most, sizeof *all,
                           (size_t)(mine[k].vocab.end - mine[k].vocab.begin), f);
            }
        }
    }
    if (f) fclose(f);
    if (f) fprintf(stderr, "logits: %d columns\n", vocab);
    free(all);
    free(part);
    free(rows);
}

typedef struct plan_buffers {
    open_seq open[SEQS_MAX];
    seq_rows rows[SEQS_MAX];
    int32_t close[SEQS_MAX];
    int32_t fresh[SEQS_MAX][1 << 12];
    step_plan plan;
} plan_buffers;

static grammar_source grammar_asked(void) {
    if (!o.schema) return (grammar_source){0};
    return (grammar_source){GRAMMAR_SCHEMA, o.schema, strlen(o.schema)};
}

// Adds slot's next rows: a chunk of its prompt, or the token last sampled.
static void add_rows(plan_buffers *b, int *next_block, sequence *q, int slot) {
    if (!q->opened) {
        sampling s = sampling_default();
        s.temperature = (float)o.temperature;
        s.seed = (uint64_t)o.seed;
        s.logprobs = o.gaps || o.prompt_logprobs ? 2 : o.full ? 0 : -1;
        b->open[b->plan.open_count++] = (open_seq){.slot = slot,
                                                   .sampling = s,
                                                   .prompt_logprobs = o.prompt_logprobs,
                                                   .prompt_tokens = q->prompt_count,
                                                   .grammar = grammar_asked()};
        q->opened = true;
    }
    seq_rows *w = &b->rows[b->plan.rows_count++];
    int left = q->prompt_count - q->done, count = left < o.chunk ? left : (int)o.chunk;
    int position = left > 0 ? q->done : q->prompt_count + q->planned - 1;
    *w = (seq_rows){.slot = slot,
                    .position = position,
                    .tokens = q->prompt + q->done,
                    .token_count = left > 0 ? count : 0,
                    .sample = left <= count};
    int need = (position + (left > 0 ? count : 1) + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    w->new_blocks = b->fresh[slot];
    while (q->block_count < need) {
        q->blocks[q->block_count++] = *next_block;
        b->fresh[slot][w->new_block_count++] = (*next_block)++;
    }
    q->done += left > 0 ? count : 0;
    q->planned += w->sample;
}

static void take_result(run_state *r, const step_result *result, int first) {
    for (int i = 0; i < result->seq_count; i++) {
        const seq_result *x = &result->seqs[i];
        sequence *q = &r->seqs[first + x->slot];
        for (int j = 0; j < x->prompt_count; j++) q->logprobs[q->heard++] = x->prompt[j].logprob;
        if (x->bad_numbers)
            die(r, status_error(STATUS_DATA_LOSS, "prompt %d: logits are not finite",
                                first + x->slot));
        if (x->token < 0) continue;
        q->gaps[q->answer_count] = x->top_count >= 2 ? x->top[0].logprob - x->top[1].logprob : -1;
        q->answer[q->answer_count++] = x->token;
    }
}

typedef struct times {
    double prefill, decode, comm_s;
    int decoded;
} times;

// A plan that has begun: what its time counts for.
typedef struct begun {
    bool prompts;
    int rows;
} begun;

static void finish_oldest(run_state *r, int first, const begun *of, times *t) {
    step_result result;
    die(r, step_finish(engine_step(r->engine), &result));
    take_result(r, &result, first);
    *(of->prompts ? &t->prefill : &t->decode) += result.compute_us * 1e-6;
    if (of->prompts) return;
    t->decoded += of->rows;
    t->comm_s += result.comm_us * 1e-6;
}

// The rows of one wave: true when some are of prompts.
static bool add_wave(run_state *r, plan_buffers *b, int *next_block, int first, int count,
                     int wave) {
    bool prompts = false;
    for (int i = wave; i < count && !prompts; i += (int)o.waves) {
        sequence *q = &r->seqs[first + i];
        if (q->planned >= o.max_tokens) continue;
        prompts = q->done < q->prompt_count;
        // While prompts run, one at a time: the step's rows are bounded.
        if (!prompts || b->plan.rows_count == 0) add_rows(b, next_block, q, i);
    }
    return prompts;
}

// Runs prompts [first, first + count) to their end.
static void run_group(run_state *r, int first, int count, times *t) {
    static plan_buffers ring[STEP_AHEAD_MAX + 1];
    static uint64_t step;
    struct step *s = engine_step(r->engine);
    begun under_way[STEP_AHEAD_MAX + 1] = {0}; // oldest first
    int next_block = 0, idle_waves = 0;
    for (int turn = 0;; turn++) {
        plan_buffers *b = &ring[step % (STEP_AHEAD_MAX + 1)];
        step_plan *plan = &b->plan;
        *plan = (step_plan){.step = step + 1, .open = b->open, .rows = b->rows, .close = b->close};
        bool prompts = add_wave(r, b, &next_block, first, count, turn % (int)o.waves);
        idle_waves = plan->rows_count == 0 ? idle_waves + 1 : 0;
        bool last = idle_waves == o.waves;
        if (plan->rows_count == 0 && !last) continue;
        for (int i = 0; last && i < count; i++) b->close[plan->close_count++] = i;
        while (step_under_way(s) > 0 && (!o.ahead || !step_may_begin(s, plan))) {
            finish_oldest(r, first, &under_way[0], t);
            memmove(&under_way[0], &under_way[1], STEP_AHEAD_MAX * sizeof under_way[0]);
        }
        die(r, step_begin(s, plan));
        under_way[step_under_way(s) - 1] = (begun){prompts, plan->rows_count};
        step++;
        while (last && step_under_way(s) > 0) {
            finish_oldest(r, first, &under_way[0], t);
            memmove(&under_way[0], &under_way[1], STEP_AHEAD_MAX * sizeof under_way[0]);
        }
        if (last) return;
    }
}

static void print_answer(const run_state *r, const sequence *q) {
    if (o.text) {
        buf text = buf_make(1 << 20);
        for (int i = 0; i < q->answer_count; i++)
            tokenizer_decode(model_get_tokenizer(r->model), q->answer[i], true, i == 0, &text);
        puts(buf_string(&text));
        buf_free(&text);
        return;
    }
    for (int i = 0; o.prompt_logprobs && i < q->prompt_count; i++)
        printf("%.5f ", (double)q->logprobs[i]);
    for (int i = 0; i < q->answer_count; i++) {
        printf(i ? " %d" : "%d", q->answer[i]);
        if (o.gaps) printf(":%.6f", (double)q->gaps[i]);
    }
    putchar('\n');
}

static void lead(run_state *r) {
    times t = {0};
    int prompt_tokens = 0;
    for (int at = 0; at < r->count; at += (int)o.batch) {
        int count = r->count - at < o.batch ? r->count - at : (int)o.batch;
        run_group(r, at, count, &t);
        for (int i = at; i < at + count; i++) prompt_tokens += r->seqs[i].prompt_count;
        for (int i = at; i < at + count; i++) print_answer(r, &r->seqs[i]);
        fflush(stdout);
    }
    die(r, step_end(engine_step(r->engine)));
    fprintf(stderr,
            "ranks=%d threads=%d backend=%s transport=%s prefill_tok_s=%.1f decode_tok_s=%.1f "
            "comm_share=%.3f\n",
            comm_size(r->comm), (int)o.threads, engine_backend(r->engine), comm_name(r->comm),
            prompt_tokens / t.prefill, t.decoded / t.decode, t.comm_s / t.decode);
}

static void open_engine(run_state *r) {
    static shard shards[SHARD_RANKS_MAX];
    for (int i = 0; i < comm_size(r->comm); i++)
        die(r, shard_plan(model_get_config(r->model), comm_size(r->comm), (int)o.stages, i,
                          &shards[i]));
    int64_t step_tokens = o.chunk > SEQS_MAX ? o.chunk : SEQS_MAX;
    engine_options e = {.comm = r->comm,
                        .progress = &r->progress,
                        .model = r->model,
                        .shards = shards,
                        .limits = {.max_step_tokens = (int)step_tokens,
                                   .max_seqs = SEQS_MAX,
                                   .block_tokens = BLOCK_TOKENS,
                                   .max_context = (int)o.context},
                        .device = {.device = o.device,
                                   .isa = o.isa,
                                   .threads = (int)o.threads,
                                   .pin = o.pin,
                                   .sums = o.sums,
                                   .fast = o.fast,
                                   .graphs = o.graphs},
                        .reduce = !strcmp(o.reduce, "host")   ? REDUCE_HOST
                                  : !strcmp(o.reduce, "nccl") ? REDUCE_NCCL
                                  : !strcmp(o.reduce, "peer") ? REDUCE_PEER
                                                              : REDUCE_AUTO,
                        .kv_memory = o.kv_memory,
                        .warm_shards = o.warm_shards,
                        .warm_memory = INT64_C(1) << 40,
                        .kv_type = o.kv_type,
                        .step_timeout_ns = 120 * CLOCK_SECOND};
    die(r, engine_open(&e, &r->engine));
}

int main(int argc, char **argv) {
    static run_state r;
    log_open(LOG_WARN, "generate");
    arena *memory = arena_create(1 << 20);
    const char *words[64];
    int word_count = 0;
    config_action action;
    const config_program program = {.name = "generate",
                                    .synopsis = "[options] MODEL",
                                    .about = "Tokens and logits without a coordinator.",
                                    .options = options,
                                    .option_count = sizeof options / sizeof options[0]};
    status s = comm_open_local(&r.comm);
    if (argc > 64) return 2;
    if (status_is_ok(&s))
        s = config_parse(&program, argc, argv, memory, words, &word_count, &action);
    if (status_is_ok(&s) && action == CONFIG_EXIT) return 0;
    if (status_is_ok(&s) && word_count != 1)
        s = status_error(STATUS_INVALID_ARGUMENT, "name one model");
    die(&r, s);
    if (o.warm_shards) log_open(LOG_INFO, "generate"); // says where the weights came from
    comm_close(r.comm);
    r.comm = NULL;
    comm_transport transport = !strcmp(o.transport, "shm")   ? COMM_SHM
                               : !strcmp(o.transport, "mpi") ? COMM_MPI
                                                             : COMM_AUTO;
    die(&r, comm_open(NULL, NULL, transport, &r.comm));
    die(&r, model_open(words[0], NULL, &r.model));
    read_prompts(&r);
    open_engine(&r);
    step_turn turn = STEP_GOES_ON;
    if (o.logits_out)
        write_logits(&r);
    else if (comm_rank(r.comm) == 0)
        lead(&r);
    else
        while (turn == STEP_GOES_ON) die(&r, step_follow(engine_step(r.engine), &turn));
    for (int i = 0; i < r.count; i++) {
        free(r.seqs[i].prompt), free(r.seqs[i].answer), free(r.seqs[i].gaps),
            free(r.seqs[i].logprobs), free(r.seqs[i].blocks);
    }
    free(r.seqs);
    engine_close(r.engine);
    model_close(r.model);
    comm_close(r.comm);
    arena_destroy(memory);
    return 0;
}
