// complexity: words and marks, counted. Each feature says why it is there; the weights and levels
// were fitted by hand on the "tune" half of bench/data/complexity.jsonl and are the operator's to
// change. English word lists: for other languages length, code, tasks and questions still count.
#include "coordinator/route/complexity.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

enum {
    SCANNED_MAX = 16 << 10, // bytes of the message that are looked at: microseconds, whatever comes
    LENGTH_FULL = 600,      // bytes; a question that long has circumstances
    HISTORY_FULL = 16000,   // bytes; a conversation that long must be held together
    EASY_LENGTH = 60,       // bytes; below, one plain question is likely all
};

// What solving needs more than knowing: proofs, causes, trade-offs, plans under constraints. One of
// the first is enough to make a short question hard; the second ones hint.
static const char *const proof_words[] = {
    "prove",     "proof",      "derive",     "counterexample", "step by step", "trade-off",
    "tradeoff",  "root cause", "root-cause", "justify",        "optimal",      "invariant",
    "lock-free", "deadlock",   "induction",  "asymptotic",     "show that",    "converge"};
static const char *const reasoning_words[] = {
    "why does",   "why can",     "reason",      "optimi",       "analyse",     "analyze",
    "analysis",   "evaluate",    "assess",      "argue",        "argument",    "hypothes",
    "constraint", "design",      "architect",   "complexity",   "race",        "migrat",
    "rollback",   "sensitivity", "assumption",  "scenario",     "recommend",   "weigh",
    "critique",   "critical",    "construct",   "generalis",    "generaliz",   "debug",
    "diagnos",    "investigate", "minimi",      "maximi",       "consequence", "rank",
    "estimate",   "distribut",   "thread-safe", "crash",        "failure",     "consensus",
    "restructur", "refactor",    "risk",        "strategy",     "propose",     "discuss",
    "consider",   "reconstruct", "implement",   "correct under"};

// Texts to be made or changed: more than an answer from memory, less than a solution.
static const char *const task_words[] = {
    "write",      "explain",    "compare",       "summari",   "draft",
    "plan",       "create",     "rewrite",       "classify",  "extract",
    "difference", "describe",   "convert",       "function",  "steps",
    "table",      "example",    "pros and cons", "ideas",     "regular expression",
    "regex",      "turn this",  "prepare",       "how do i",  "how can i",
    "how does",   "how should", "script",        "implement", "test",
    "json",       "list open",  "causes of",     "calculate", "if a ",
    "words"};

static const char *const code_words[] = {
    "```",         "def ",       "class ",  "return ", "select ", "import ",   "#include",
    "public ",     "void ",      "();",     "->",      "=> ",     "python",    "sql",
    "bash",        "javascript", "rust",    " in c",   "java",    "typeerror", "exception",
    "stack trace", "kernel",     "compile", "api"};

static const char *const easy_words[] = {
    "hi",       "hello",           "thanks",    "thank you", "translate",
    "spell",    "synonym",         "plural",    "yes or no", "what is the capital",
    "joke",     "cancel",          "reset my",  "invoice",   "refund",
    "delivery", "in one sentence", "stand for", "who is",    "who wrote"};

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

// How many of the words begin somewhere where a word may begin.
static int count_words(const char *text, const char *const *words, size_t count) {
    int found = 0;
    for (size_t i = 0; i < count; i++) {
        const char *at = text;
        bool free_standing = !isalpha((unsigned char)words[i][0]);
        while ((at = strstr(at, words[i])) && !free_standing && at > text &&
               isalnum((unsigned char)at[-1]))
            at++;
        found += at != NULL;
    }
    return found;
}
#define COUNT(text, words) count_words((text), (words), sizeof(words) / sizeof *(words))

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
    int reasons = 2 * COUNT(text, proof_words) + COUNT(text, reasoning_words),
        tasks = COUNT(text, task_words);
    int questions = count_bytes(text, '?'), commas = count_bytes(text, ',');
    bool why = strstr(text, "why") != NULL || strstr(text, "how") != NULL;
    f[COMPLEXITY_LENGTH] = share(size, LENGTH_FULL);
    f[COMPLEXITY_CODE] = share((size_t)COUNT(text, code_words), 3);
    f[COMPLEXITY_REASONING] = share((size_t)reasons, 4);
    f[COMPLEXITY_QUESTION] = cut((why ? 0.5 : 0) + (questions > 1 ? 0.3 : 0) + commas * 0.05);
    f[COMPLEXITY_TASKS] = share((size_t)(tasks + count_items(text)), 2);
    bool plain = size <= EASY_LENGTH && questions <= 1 && !reasons && tasks < 2;
    f[COMPLEXITY_EASY] = reasons ? 0 : cut((plain ? 0.5 : 0) + COUNT(text, easy_words) * 0.5);
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
