// complexity: words and marks, counted. Each feature says why it is there; the weights and levels
// were fitted by hand on the "tune" half of bench/data/complexity.jsonl and are the operator's to
// change. English word lists: for other languages length, code, tasks and questions still count.
#include "coordinator/route/complexity.h"

#include <assert.h>
#include <ctype.h>
#include <stdint.h>
#include <string.h>

enum {
    SCANNED_MAX = 16 << 10, // bytes of the message that are looked at: microseconds, whatever comes
    LENGTH_FULL = 600,      // bytes; a question that long has circumstances
    HISTORY_FULL = 16000,   // bytes; a conversation that long must be held together
    EASY_LENGTH = 60,       // bytes; below, one plain question is likely all
};

typedef enum word_kind {
    PROOF,  // solving needs more than knowing; one of these makes a short question hard
    REASON, // hints of the same: trade-offs, causes, plans under constraints
    TASK,   // texts to be made or changed: more than an answer from memory, less than a solution
    CODE,
    EASY,
    WORD_KINDS
} word_kind;

// Beginnings of words (a letter first) or parts of the text (anything else first).
static const struct {
    word_kind kind;
    const char *text;
} words[] = {
    {PROOF, "prove"},
    {PROOF, "proof"},
    {PROOF, "derive"},
    {PROOF, "counterexample"},
    {PROOF, "step by step"},
    {PROOF, "trade-off"},
    {PROOF, "tradeoff"},
    {PROOF, "root cause"},
    {PROOF, "root-cause"},
    {PROOF, "justify"},
    {PROOF, "optimal"},
    {PROOF, "invariant"},
    {PROOF, "lock-free"},
    {PROOF, "deadlock"},
    {PROOF, "induction"},
    {PROOF, "asymptotic"},
    {PROOF, "show that"},
    {PROOF, "converge"},
    {REASON, "why does"},
    {REASON, "why can"},
    {REASON, "reason"},
    {REASON, "optimi"},
    {REASON, "analyse"},
    {REASON, "analyze"},
    {REASON, "analysis"},
    {REASON, "evaluate"},
    {REASON, "assess"},
    {REASON, "argue"},
    {REASON, "argument"},
    {REASON, "hypothes"},
    {REASON, "constraint"},
    {REASON, "design"},
    {REASON, "architect"},
    {REASON, "complexity"},
    {REASON, "race"},
    {REASON, "migrat"},
    {REASON, "rollback"},
    {REASON, "sensitivity"},
    {REASON, "assumption"},
    {REASON, "scenario"},
    {REASON, "recommend"},
    {REASON, "weigh"},
    {REASON, "critique"},
    {REASON, "critical"},
    {REASON, "construct"},
    {REASON, "generalis"},
    {REASON, "generaliz"},
    {REASON, "debug"},
    {REASON, "diagnos"},
    {REASON, "investigate"},
    {REASON, "minimi"},
    {REASON, "maximi"},
    {REASON, "consequence"},
    {REASON, "rank"},
    {REASON, "estimate"},
    {REASON, "distribut"},
    {REASON, "thread-safe"},
    {REASON, "crash"},
    {REASON, "failure"},
    {REASON, "consensus"},
    {REASON, "restructur"},
    {REASON, "refactor"},
    {REASON, "risk"},
    {REASON, "strategy"},
    {REASON, "propose"},
    {REASON, "discuss"},
    {REASON, "consider"},
    {REASON, "reconstruct"},
    {REASON, "implement"},
    {REASON, "correct under"},
    {TASK, "write"},
    {TASK, "explain"},
    {TASK, "compare"},
    {TASK, "summari"},
    {TASK, "draft"},
    {TASK, "plan"},
    {TASK, "create"},
    {TASK, "rewrite"},
    {TASK, "classify"},
    {TASK, "extract"},
    {TASK, "difference"},
    {TASK, "describe"},
    {TASK, "convert"},
    {TASK, "function"},
    {TASK, "steps"},
    {TASK, "table"},
    {TASK, "example"},
    {TASK, "pros and cons"},
    {TASK, "ideas"},
    {TASK, "regular expression"},
    {TASK, "regex"},
    {TASK, "turn this"},
    {TASK, "prepare"},
    {TASK, "how do i"},
    {TASK, "how can i"},
    {TASK, "how does"},
    {TASK, "how should"},
    {TASK, "script"},
    {TASK, "implement"},
    {TASK, "test"},
    {TASK, "json"},
    {TASK, "list open"},
    {TASK, "causes of"},
    {TASK, "calculate"},
    {TASK, "if a "},
    {TASK, "words"},
    {CODE, "```"},
    {CODE, "def "},
    {CODE, "class "},
    {CODE, "return "},
    {CODE, "select "},
    {CODE, "import "},
    {CODE, "#include"},
    {CODE, "public "},
    {CODE, "void "},
    {CODE, "();"},
    {CODE, "->"},
    {CODE, "=> "},
    {CODE, "python"},
    {CODE, "sql"},
    {CODE, "bash"},
    {CODE, "javascript"},
    {CODE, "rust"},
    {CODE, " in c"},
    {CODE, "java"},
    {CODE, "typeerror"},
    {CODE, "exception"},
    {CODE, "stack trace"},
    {CODE, "kernel"},
    {CODE, "compile"},
    {CODE, "api"},
    {EASY, "hi"},
    {EASY, "hello"},
    {EASY, "thanks"},
    {EASY, "thank you"},
    {EASY, "translate"},
    {EASY, "spell"},
    {EASY, "synonym"},
    {EASY, "plural"},
    {EASY, "yes or no"},
    {EASY, "what is the capital"},
    {EASY, "joke"},
    {EASY, "cancel"},
    {EASY, "reset my"},
    {EASY, "invoice"},
    {EASY, "refund"},
    {EASY, "delivery"},
    {EASY, "in one sentence"},
    {EASY, "stand for"},
    {EASY, "who is"},
    {EASY, "who wrote"},
};
enum { WORDS = sizeof words / sizeof *words };
static_assert(WORDS < UINT8_MAX, "chains of words are of bytes");

const char *complexity_level_name(complexity_level l) {
    static const char *const names[] = {"simple", "medium", "hard"};
    return names[l];
}

const char *complexity_feature_name(complexity_feature f) {
    static const char *const names[] = {"length",   "history", "code",  "reasoning",
                                        "question", "tasks",   "tools", "easy"};
    return names[f];
}

complexity_options complexity_default_options(void) {
    return (complexity_options){.medium = 0.10,
                                .hard = 0.48,
                                .weights = {[COMPLEXITY_LENGTH] = 0.25,
                                            [COMPLEXITY_HISTORY] = 0.15,
                                            [COMPLEXITY_CODE] = 0.15,
                                            [COMPLEXITY_REASONING] = 0.75,
                                            [COMPLEXITY_QUESTION] = 0.15,
                                            [COMPLEXITY_TASKS] = 0.2,
                                            [COMPLEXITY_TOOLS] = 0.1,
                                            [COMPLEXITY_EASY] = -0.15}};
}

static double cut(double x) {
    return x < 0 ? 0 : x > 1 ? 1 : x;
}

static double share(size_t part, size_t full) {
    return cut((double)part / (double)full);
}

// How many different words of each kind there are, in one pass: words are chained by their first
// byte.
static void count_words(const char *text, int counts[WORD_KINDS]) {
    uint8_t heads[UINT8_MAX + 1] = {0}, nexts[WORDS]; // index + 1; 0 ends a chain
    bool seen[WORDS] = {false};
    for (int w = 0; w < WORDS; w++) {
        uint8_t *head = &heads[(unsigned char)words[w].text[0]];
        nexts[w] = *head;
        *head = (uint8_t)(w + 1);
    }
    for (const char *at = text; *at; at++) {
        bool within = isalnum((unsigned char)*at) && at > text && isalnum((unsigned char)at[-1]);
        for (int w = within ? 0 : heads[(unsigned char)*at]; w; w = nexts[w - 1]) {
            const char *word = words[w - 1].text;
            if (word[1] != at[1] || seen[w - 1] || strncmp(at, word, strlen(word)) != 0) continue;
            seen[w - 1] = true;
            counts[words[w - 1].kind]++;
        }
    }
}

static int count_bytes(const char *text, char c) {
    int found = 0;
    while ((text = strchr(text, c))) found++, text++;
    return found;
}

// Lines that begin like a list's items.
static int count_items(const char *text) {
    int found = 0;
    for (const char *line = text; line; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        line += strspn(line, " \t");
        size_t digits = strspn(line, "0123456789");
        found += ((*line == '-' || *line == '*') && line[1] == ' ') ||
                 (digits && digits < 3 && (line[digits] == '.' || line[digits] == ')'));
    }
    return found;
}

// Lower case, without NUL bytes, cut to what is scanned.
static void lower(const char *text, size_t size, char out[SCANNED_MAX + 1]) {
    if (size > SCANNED_MAX) size = SCANNED_MAX;
    for (size_t i = 0; i < size; i++)
        out[i] = text[i] ? (char)tolower((unsigned char)text[i]) : ' ';
    out[size] = 0;
}

static void measure(const char *text, size_t size, complexity_score *s) {
    double *f = s->features;
    int counts[WORD_KINDS] = {0};
    count_words(text, counts);
    int reasons = 2 * counts[PROOF] + counts[REASON], tasks = counts[TASK];
    int questions = count_bytes(text, '?'), commas = count_bytes(text, ',');
    bool why = strstr(text, "why") != NULL || strstr(text, "how") != NULL;
    f[COMPLEXITY_LENGTH] = share(size, LENGTH_FULL);
    f[COMPLEXITY_CODE] = share((size_t)counts[CODE], 3);
    f[COMPLEXITY_REASONING] = share((size_t)reasons, 4);
    f[COMPLEXITY_QUESTION] = cut((why ? 0.5 : 0) + (questions > 1 ? 0.3 : 0) + commas * 0.05);
    f[COMPLEXITY_TASKS] = share((size_t)(tasks + count_items(text)), 2);
    bool plain = size <= EASY_LENGTH && questions <= 1 && !reasons && tasks < 2;
    f[COMPLEXITY_EASY] = reasons ? 0 : cut((plain ? 0.5 : 0) + counts[EASY] * 0.5);
}

complexity_score complexity_of(const complexity_options *o, const char *last, size_t size,
                               size_t history_bytes, bool tools) {
    char text[SCANNED_MAX + 1];
    lower(last, size, text);
    complexity_score s = {0};
    measure(text, size, &s);
    s.features[COMPLEXITY_HISTORY] = share(history_bytes, HISTORY_FULL);
    s.features[COMPLEXITY_TOOLS] = tools;
    for (int i = 0; i < COMPLEXITY_FEATURES; i++) s.score += o->weights[i] * s.features[i];
    s.score = cut(s.score);
    s.level = s.score >= o->hard     ? COMPLEXITY_HARD
              : s.score >= o->medium ? COMPLEXITY_MEDIUM
                                     : COMPLEXITY_SIMPLE;
    return s;
}
