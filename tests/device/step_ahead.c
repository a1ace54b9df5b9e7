// step_ahead: the worker's steps on the emulated device, each begun before the one before it has
// ended: the same results as one at a time, while sequences begin, end and begin again in slots and
// blocks that a step under way still uses; and no host ever waits for the device, but for the end
// of the step before. Under mpirun the ranks' devices choose the tokens together.
//
//   OCTANT_EMULATOR=streams=deferred|background [mpirun -n N] step_ahead
//
// Deferred streams do nothing before somebody waits for it, so what a call made the device do is
// what it waited for: it is counted. So is what a steady step costs: the calls of the runtime.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "tests/device/shim/emulator.h"
#include "unit/worker/small_model.h"
#include "worker/engine.h"

enum {
    SLOTS = 3,
    BLOCK = 16,
    CONTEXT = 64,
    BLOCKS = CONTEXT / BLOCK, // of a sequence
    PLANS = 40,               // past two of the steps in which ranks compare their numbers
    PROMPT = 5,
    CROWD = 40, // sequences of a step that wants more rows of logits than a processor makes at once
    RESULTS = PLANS * SLOTS,
};

typedef struct run_state {
    comm *comm;
    model *model;
    engine *engine;
    step *step;
    progress progress;
    char path[64];
    int passed, failed;
} run_state;

static void check(run_state *r, bool holds, const char *what) {
    r->passed += holds;
    r->failed += !holds;
    if (!holds) fprintf(stderr, "FAILED: %s\n", what);
}

static void must(const run_state *r, status s) {
    if (status_is_ok(&s)) return;
    fprintf(stderr, "step_ahead: %s\n", s.message);
    comm_abort(r->comm, 1);
}

// ---- the script

// What lies in a slot: opened by the plan in which `row` is 0.
typedef struct script {
    int position[SLOTS]; // of the next row; -1: closed
    int generation[SLOTS];
    uint64_t step;
    open_seq open[SLOTS];
    seq_rows rows[SLOTS];
    int32_t close[SLOTS], prompt[SLOTS][PROMPT], blocks[SLOTS][BLOCKS];
    step_plan plan;
} script;

static void with_history(open_seq *o, const script *s) {
    o->sampling.repetition_penalty = 1.3f;
    o->sampling.frequency_penalty = 1.5f;
    o->history = s->prompt[o->slot];
    o->history_count = PROMPT;
}

// Greedy, with biases and penalties over a history, and with log probabilities of answer and prompt
// beside penalties.
static open_seq opened(script *s, int slot) {
    static const sampling_bias bias[] = {{3, 1}, {9, -100}};
    open_seq o = {.slot = slot, .sampling = sampling_default(), .prompt_tokens = PROMPT};
    o.sampling.seed = (uint64_t)(100 * slot + s->generation[slot]);
    switch ((slot + s->generation[slot]) % 3) {
    case 0:
        o.sampling.temperature = 0;
        break;
    case 1:
        o.sampling.bias = bias;
        o.sampling.bias_count = 2;
        with_history(&o, s);
        break;
    default:
        with_history(&o, s);
        o.sampling.logprobs = 3;
        o.prompt_logprobs = true;
    }
    return o;
}

static void add_open(script *s, int slot) {
    for (int i = 0; i < PROMPT; i++)
        s->prompt[slot][i] = (7 * slot + 11 * s->generation[slot] + 3 * i) % SMALL_V;
    // The blocks of the sequence that was there before, which steps under way still read.
    for (int i = 0; i < BLOCKS; i++) s->blocks[slot][i] = slot * BLOCKS + i;
    s->open[s->plan.open_count++] = opened(s, slot);
    s->rows[s->plan.rows_count++] = (seq_rows){.slot = slot,
                                               .tokens = s->prompt[slot],
                                               .token_count = PROMPT,
                                               .new_blocks = s->blocks[slot],
                                               .new_block_count = BLOCKS,
                                               .sample = true};
    s->position[slot] = PROMPT;
    s->generation[slot]++;
}

// Plan `number`, from 0. A slot closes, with a row in that very plan, and opens in the next; each
// at its own times. One plan has nothing in it.
static const step_plan *next_plan(script *s, int number) {
    s->plan = (step_plan){.step = ++s->step, .open = s->open, .rows = s->rows, .close = s->close};
    for (int slot = 0; slot < SLOTS && number != 20; slot++) {
        if (number == 0) s->position[slot] = -1;
        if (s->position[slot] < 0) {
            add_open(s, slot);
        } else {
            s->rows[s->plan.rows_count++] =
                (seq_rows){.slot = slot, .position = s->position[slot]++, .sample = true};
        }
        if (number % (5 + 2 * slot) != 4 + slot && number != PLANS - 1) continue;
        s->close[s->plan.close_count++] = slot;
        s->position[slot] = -1;
    }
    return &s->plan;
}

// ---- running it

typedef struct outcome {
    uint64_t step;
    int32_t slot, token, top[3], prompt_count;
    float logprob, prompt_logprob;
} outcome;

typedef struct outcomes {
    int count;
    outcome all[RESULTS];
} outcomes;

static void take(run_state *r, outcomes *o, uint64_t first_step) {
    step_result result;
    must(r, step_finish(r->step, &result));
    for (int i = 0; i < result.seq_count && o->count < RESULTS; i++) {
        const seq_result *x = &result.seqs[i];
        outcome *to = &o->all[o->count++];
        *to = (outcome){.step = result.step - first_step,
                        .slot = x->slot,
                        .token = x->token,
                        .prompt_count = x->prompt_count};
        if (x->top_count > 0) to->logprob = x->logprob;
        if (x->prompt_count > 1) to->prompt_logprob = x->prompt[1].logprob;
        for (int j = 0; j < 3 && j < x->top_count; j++) to->top[j] = x->top[j].id;
    }
}

// The work that a call made the device do, and how much had been queued.
static uint64_t work_done(uint64_t *queued) {
    uint64_t done = 0;
    emulator_stream_work(queued, &done);
    return done;
}

// With a step under way, beginning the next makes the device do nothing; taking a result makes it
// do what was queued before the next step began, and no more.
static void run_ahead(run_state *r, script *s, outcomes *out, bool counts) {
    uint64_t first = s->step + 1, before_next = 0, queued = 0;
    int waits_in_begin = 0, wrong_waits = 0;
    for (int i = 0; i < PLANS; i++) {
        const step_plan *plan = next_plan(s, i);
        uint64_t done = work_done(&before_next);
        must(r, step_begin(r->step, plan));
        waits_in_begin += i > 0 && work_done(&queued) != done;
        if (step_has_room(r->step)) continue;
        take(r, out, first);
        wrong_waits += work_done(&queued) > before_next;
    }
    while (step_under_way(r->step) > 0) take(r, out, first);
    if (!counts) return;
    check(r, waits_in_begin == 0, "no step waits to begin");
    check(r, wrong_waits == 0, "a result waits for nothing that was queued behind its step");
}

static void run_alone(run_state *r, script *s, outcomes *out) {
    uint64_t first = s->step + 1;
    for (int i = 0; i < PLANS; i++) {
        must(r, step_begin(r->step, next_plan(s, i)));
        take(r, out, first);
    }
}

static void compare(run_state *r, const outcomes *got, const outcomes *want, const char *what) {
    check(r, got->count == want->count && got->count > PLANS, "as many results");
    int different = 0, varied = 0;
    for (int i = 0; i < want->count; i++) {
        different += memcmp(&got->all[i], &want->all[i], sizeof *want->all) != 0;
        varied += want->all[i].token != want->all[0].token;
    }
    check(r, different == 0, what);
    check(r, varied > PLANS / 2, "the answers are no one token");
}

// An epoch ends with steps under way; the next finds all slots closed.
static void cut(run_state *r, script *s) {
    must(r, step_begin(r->step, next_plan(s, 0)));
    if (step_has_room(r->step)) must(r, step_begin(r->step, next_plan(s, 1)));
    must(r, step_cut(r->step));
    check(r, step_under_way(r->step) == 0, "nothing is under way after a cut");
}

// The tokens of CROWD sequences after two steps, `width` of them in a plan; half are greedy.
static void run_crowd(run_state *r, script *s, int width, int32_t *tokens) {
    static open_seq open[CROWD];
    static seq_rows rows[CROWD];
    static int32_t slots[CROWD], blocks[CROWD], prompts[CROWD];
    for (int first = 0; first < CROWD; first += width) {
        for (int i = first; i < first + width; i++) {
            slots[i] = blocks[i] = i;
            prompts[i] = i * 7 % SMALL_V;
            open[i] = (open_seq){.slot = i, .sampling = sampling_default(), .prompt_tokens = 1};
            open[i].sampling.seed = (uint64_t)i;
            open[i].sampling.temperature = (float)(i % 2);
            rows[i] = (seq_rows){.slot = i,
                                 .tokens = &prompts[i],
                                 .token_count = 1,
                                 .new_blocks = &blocks[i],
                                 .new_block_count = 1,
                                 .sample = true};
        }
        step_result result;
        step_plan plan = {.step = ++s->step, .open = open + first, .rows = rows + first};
        plan.open_count = plan.rows_count = width;
        must(r, step_execute(r->step, &plan, &result));
        for (int i = first; i < first + width; i++)
            rows[i] = (seq_rows){.slot = i, .position = 1, .sample = true};
        plan.step = ++s->step;
        plan.open_count = 0;
        plan.close = slots + first;
        plan.close_count = width;
        must(r, step_execute(r->step, &plan, &result));
        for (int i = 0; i < result.seq_count; i++)
            tokens[result.seqs[i].slot] = result.seqs[i].token;
    }
}

static void crowd(run_state *r, script *s) {
    int32_t together[CROWD], apart[CROWD];
    kernels *k = engine_kernels(r->engine);
    check(r, decoder_logit_rows(k, CROWD, SMALL_V) == CROWD, "all rows of logits at once");
    check(r, decoder_logit_rows(k, 1 << 14, 1 << 18) == 256, "as many as there is memory for");
    run_crowd(r, s, CROWD, together);
    run_crowd(r, s, CROWD / 5, apart);
    check(r, memcmp(together, apart, sizeof apart) == 0, "the same tokens in a crowd");
}

// ---- what a steady step costs

enum {
    STEADY = 16,           // steps that are counted: the ranks compare their numbers in one of them
    SETTLED = 4,           // before: seen, recorded
    CHUNKS = 7,            // of a prompt, all but the first SETTLED and the last of them counted
    CHUNK_ROWS = 6,        // and the other two sequences' rows: rounded up to 8
    ATTENTION_LAUNCHES = 1 // heads of this size have one kernel
};

typedef struct calls {
    uint64_t graphs, kernels, copies, events, run;
} calls;

static calls calls_so_far(void) {
    return (calls){.graphs = emulator_calls("cudaGraphLaunch"),
                   .kernels = emulator_calls("cudaLaunchKernelExC"),
                   .copies = emulator_calls("cudaMemcpyAsync") + emulator_calls("cudaMemsetAsync"),
                   .events = emulator_calls("cudaEventRecord"),
                   .run = emulator_calls("kernel")};
}

static calls calls_since(const calls *then) {
    calls now = calls_so_far();
    return (calls){now.graphs - then->graphs, now.kernels - then->kernels,
                   now.copies - then->copies, now.events - then->events, now.run - then->run};
}

static void print_calls(const char *what, const calls *c, int steps) {
    printf(
        "%s: %.2f graphs, %.2f kernels, %.2f copies and %.2f events launched a step, %.1f kernels "
        "run\n",
        what, (double)c->graphs / steps, (double)c->kernels / steps, (double)c->copies / steps,
        (double)c->events / steps, (double)c->run / steps);
}

static void take_ahead(run_state *r) {
    step_result result;
    while (!step_has_room(r->step)) must(r, step_finish(r->step, &result));
}

static void take_rest(run_state *r) {
    step_result result;
    while (step_under_way(r->step) > 0) must(r, step_finish(r->step, &result));
}

// A row of each sequence that is open, whatever the last token was.
static void add_decodes(script *s, int slots) {
    for (int slot = 0; slot < slots; slot++)
        s->rows[s->plan.rows_count++] =
            (seq_rows){.slot = slot, .position = s->position[slot]++, .sample = true};
}

static void begin_plan(script *s) {
    s->plan = (step_plan){.step = ++s->step, .open = s->open, .rows = s->rows, .close = s->close};
}

static void open_alike(run_state *r, script *s, int slots, float temperature) {
    begin_plan(s);
    for (int slot = 0; slot < slots; slot++) {
        add_open(s, slot);
        s->open[slot] =
            (open_seq){.slot = slot, .sampling = sampling_default(), .prompt_tokens = PROMPT};
        s->open[slot].sampling.temperature = temperature;
    }
    must(r, step_begin(r->step, &s->plan));
}

static void close_all(run_state *r, script *s) {
    begin_plan(s);
    for (int slot = 0; slot < SLOTS; slot++) s->close[s->plan.close_count++] = slot;
    take_ahead(r);
    must(r, step_begin(r->step, &s->plan));
    take_rest(r);
}

// A step that only decodes is one launch: the plan, all layers, logits, choice and its way to the
// host. Outside are the marks by which the host knows what is done, and what is compared.
static void steady_decode(run_state *r, script *s, float temperature, const char *what) {
    calls before = {0};
    open_alike(r, s, SLOTS, temperature);
    for (int i = 0; i < SETTLED + STEADY; i++) {
        begin_plan(s);
        add_decodes(s, SLOTS);
        take_ahead(r);
        if (i == SETTLED) before = calls_so_far();
        must(r, step_begin(r->step, &s->plan));
    }
    calls c = calls_since(&before);
    print_calls(what, &c, STEADY);
    check(r, c.graphs == STEADY && c.kernels == 0, "a decode step is one launch");
    check(r, c.copies == 2, "only steps that ranks compare copy anything");
    // Of the plan, of the choices where the leader samples, and of the step.
    check(r, c.events <= 3 * STEADY && c.events >= 2 * STEADY, "and three marks at most");
    close_all(r, s);
}

// A step with a part of a prompt: a piece before, between and behind its attentions, and one for
// the choice.
static void steady_mixed(run_state *r, script *s) {
    static int32_t prompt[CHUNKS * CHUNK_ROWS];
    const int steps = CHUNKS - SETTLED - 1;
    calls before = {0}, c = {0};
    open_alike(r, s, SLOTS - 1, 0);
    for (int i = 0; i < CHUNKS * CHUNK_ROWS; i++) prompt[i] = i * 5 % SMALL_V;
    for (int i = 0; i < CHUNKS; i++) {
        begin_plan(s);
        add_decodes(s, SLOTS - 1);
        int slot = SLOTS - 1;
        if (i == 0) {
            s->open[0] = (open_seq){
                .slot = slot, .sampling = sampling_default(), .prompt_tokens = CHUNKS * CHUNK_ROWS};
            s->plan.open_count = 1;
        }
        for (int j = 0; j < BLOCKS; j++) s->blocks[slot][j] = slot * BLOCKS + j;
        s->rows[s->plan.rows_count++] = (seq_rows){.slot = slot,
                                                   .tokens = prompt + i * CHUNK_ROWS,
                                                   .token_count = CHUNK_ROWS,
                                                   .position = i * CHUNK_ROWS,
                                                   .new_blocks = s->blocks[slot],
                                                   .new_block_count = i == 0 ? BLOCKS : 0,
                                                   .sample = i == CHUNKS - 1};
        take_ahead(r);
        if (i == SETTLED) before = calls_so_far();
        must(r, step_begin(r->step, &s->plan));
        if (i == CHUNKS - 2) c = calls_since(&before);
    }
    print_calls("a chunk beside decodes", &c, steps);
    uint64_t layers = (uint64_t)model_get_config(r->model)->layers, n = (uint64_t)steps;
    check(r, c.graphs == n * (layers + 2), "a step with a prompt's chunk is in pieces");
    check(r, c.kernels == n * (1 + layers * ATTENTION_LAUNCHES), "around its attentions");
    close_all(r, s);
}

static void steady(run_state *r, script *s) {
    steady_decode(r, s, 0, "greedy");
    steady_decode(r, s, 1, "sampled");
    steady_mixed(r, s);
    kernels_run_counts n = kernels_count_runs(engine_kernels(r->engine));
    check(r, n.failed == 0 && n.steps > 2 * STEADY && n.pieces > 0, "steps were recorded");
}

// A step whose numbers are bad is found when the next is queued: it is the one that is named. What
// is bad is the row that the prompt's first half left for the log probability of the second.
static void bad_step(run_state *r, script *s) {
    static float nan[SMALL_D];
    memset(nan, 0xff, sizeof nan);
    decoder *d = engine_decoder(r->engine);
    next_plan(s, 0);
    s->plan.open_count = s->plan.rows_count = 1;
    s->open[0].prompt_logprobs = true;
    s->open[0].prompt_tokens = 2 * PROMPT;
    s->rows[0].sample = false;
    step_result result;
    must(r, step_execute(r->step, &s->plan, &result));
    void *kept = (void *)decoder_row(d, decoder_kept_row(d, 0));
    must(r, kernels_upload(engine_kernels(r->engine), kept, nan, sizeof nan));
    uint64_t bad = ++s->plan.step;
    s->plan.open_count = s->rows[0].new_block_count = 0;
    s->rows[0].position = PROMPT;
    s->rows[0].sample = true;
    must(r, step_begin(r->step, &s->plan));
    s->plan.step++;
    s->rows[0].position = 2 * PROMPT;
    s->rows[0].token_count = 0;
    must(r, step_begin(r->step, &s->plan));
    status st = step_finish(r->step, &result);
    int rank = -2;
    char want[64];
    snprintf(want, sizeof want, "step %llu was discarded", (unsigned long long)bad);
    check(r, st.code == STATUS_DATA_LOSS && strstr(st.message, want), "the bad step is named");
    check(r, step_failure(r->step, &rank) == CLUSTER_FAILED_NUMBERS && rank == 0, "and its rank");
}

// ---- the engine

static void write_model(run_state *r) {
    snprintf(r->path, sizeof r->path, "/tmp/octant-step-ahead-%d.gguf", (int)getpid());
    if (small_model_write(r->path, &small_dense, 5) == 0)
        must(r, status_error(STATUS_INTERNAL, "cannot write %s", r->path));
}

static void open_engine(run_state *r) {
    static shard shards[SHARD_RANKS_MAX];
    must(r, comm_open(NULL, NULL, COMM_AUTO, &r->comm));
    write_model(r);
    must(r, model_open(r->path, NULL, &r->model));
    for (int i = 0; i < comm_size(r->comm); i++)
        must(r, shard_plan(model_get_config(r->model), comm_size(r->comm), 1, i, &shards[i]));
    engine_options e = {.comm = r->comm,
                        .progress = &r->progress,
                        .model = r->model,
                        .shards = shards,
                        .limits = {.max_step_tokens = CROWD,
                                   .max_seqs = CROWD,
                                   .block_tokens = BLOCK,
                                   .max_context = CONTEXT},
                        .device = {.device = "cuda", .threads = 1, .sums = "exact"},
                        .kv_memory = 4 << 20,
                        .kv_type = "f16",
                        .step_timeout_ns = 120 * CLOCK_SECOND};
    must(r, engine_open(&e, &r->engine));
    r->step = engine_step(r->engine);
}

static void lead(run_state *r) {
    static script s;
    static outcomes ahead, alone, again;
    const char *streams = getenv("OCTANT_EMULATOR");
    bool counts = streams && strstr(streams, "deferred");
    run_ahead(r, &s, &ahead, counts);
    s = (script){.step = s.step};
    run_alone(r, &s, &alone);
    compare(r, &ahead, &alone, "a step ahead gives what one at a time gives");
    s = (script){.step = s.step};
    cut(r, &s);
    s = (script){.step = s.step};
    run_ahead(r, &s, &again, false);
    compare(r, &again, &alone, "nothing of a cut epoch is left");
    s = (script){.step = s.step};
    crowd(r, &s);
    s = (script){.step = s.step};
    steady(r, &s);
    s = (script){.step = s.step};
    if (comm_size(r->comm) == 1)
        bad_step(r, &s);
    else
        must(r, step_end(r->step));
    printf("%d passed, %d failed\n", r->passed, r->failed);
}

int main(void) {
    static run_state r;
    log_open(LOG_WARN, "step_ahead");
    open_engine(&r);
    step_turn turn = STEP_GOES_ON;
    if (comm_rank(r.comm) == 0)
        lead(&r);
    else
        while (turn != STEP_ENDED) must(&r, step_follow(r.step, &turn));
    engine_close(r.engine);
    model_close(r.model);
    unlink(r.path);
    comm_close(r.comm);
    return r.failed > 0;
}
