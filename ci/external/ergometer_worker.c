/* A backend of ergometer in C: this one file, C11 and POSIX, no libraries.
 *
 *     cc -O2 -o worker ergometer_worker.c && ergometer external check ./worker
 *
 * Put your program into the three functions under "Yours"; as it stands they solve Sudoku by search, without a model. The rest is the
 * protocol: one JSON object a line, see docs/external.md. Logs go to stderr. What fails ends the process by fail(), which says why.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_ITERATIONS = 10000 };

/* The job: what the examples are and how many rows an iteration has. Other members of the line are found by member(). */
struct job {
    char *line;
    long count, batch, threads;
    uint32_t **inputs; /* tokens of every example */
    long *lengths;
};

_Noreturn static void fail(const char *kind, const char *message) {
    printf("{\"failed\": {\"kind\": \"%s\", \"message\": \"%s\"}}\n", kind, message);
    exit(1);
}

_Noreturn static void refuse(const char *reason, const char *hint) {
    printf("{\"unavailable\": {\"what\": \"case\", \"reason\": \"%s\", \"hint\": \"%s\"}}\n", reason, hint);
    exit(0);
}

static void *room(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) fail("out-of-memory", "no memory left");
    return memory;
}

/* ---- Yours ---- */

static const char *const NAME = "sudoku-in-c", *const VERSION = "1.0 (search, no model)";

/* Ready for these examples, or a refusal: member(job->line's object, "model") is the path of a model. */
static void prepare(const struct job *job) {
    for (long i = 0; i < job->count; i++) {
        long n = job->lengths[i];
        for (long t = 0; t < n || n == 0; t++)
            if ((n != 16 && n != 36 && n != 81) || job->inputs[i][t] < 1 || job->inputs[i][t] > (n == 16 ? 5 : n == 36 ? 7 : 10))
                refuse("these examples are no Sudoku puzzles, and this program solves nothing else", "ask for a task of kind `sudoku`");
    }
}

/* Token 1 is a blank and d + 1 the digit d; the blank with the fewest candidates first. 1: solved. */
static int search(uint32_t *cells, int side, int rows, int columns) {
    int best = -1, fewest = side + 1;
    uint32_t free_of_best = 0;
    for (int at = 0; at < side * side; at++) {
        if (cells[at] != 1) continue;
        int row = at / side, column = at % side, top = row - row % rows, left = column - column % columns, count = 0;
        uint32_t seen = 0;
        for (int i = 0; i < side; i++)
            seen |= 1u << cells[row * side + i] | 1u << cells[i * side + column] | 1u << cells[(top + i / columns) * side + left + i % columns];
        uint32_t left_over = ~seen & ((1u << (side + 2)) - 4);
        for (uint32_t bits = left_over; bits; bits &= bits - 1) count++;
        if (count < fewest) best = at, fewest = count, free_of_best = left_over;
    }
    if (best < 0) return 1;
    for (uint32_t token = 2; token < (uint32_t)side + 2; token++) {
        if (!(free_of_best >> token & 1)) continue;
        cells[best] = token;
        if (search(cells, side, rows, columns)) return 1;
    }
    cells[best] = 1;
    return 0;
}

/* The answer to one example, a token for each cell: what is timed. */
static void solve(const uint32_t *tokens, long n, uint32_t *answer) {
    memcpy(answer, tokens, (size_t)n * sizeof *answer);
    int side = n == 16 ? 4 : n == 36 ? 6 : 9;
    search(answer, side, side == 9 ? 3 : 2, side == 4 ? 2 : 3);
}

/* ---- JSON: what follows a value; the value of a member of an object ---- */

static const char *blanks(const char *at) {
    while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r' || *at == ',' || *at == ':') at++;
    return at;
}

static const char *after(const char *at) {
    at = blanks(at);
    if (*at == '"') {
        for (at++; *at && *at != '"'; at++)
            if (*at == '\\' && at[1]) at++;
        return *at ? at + 1 : at;
    }
    if (*at == '{' || *at == '[') {
        char end = *at == '{' ? '}' : ']';
        for (at = blanks(at + 1); *at && *at != end; at = blanks(at)) {
            const char *next = after(at);
            if (next == at) return at; /* no JSON: whoever asked finds no member */
            at = next;
        }
        return *at ? at + 1 : at;
    }
    while (*at && !strchr(" \t\n\r,:]}", *at)) at++;
    return at;
}

static const char *member(const char *object, const char *key) {
    size_t length = strlen(key);
    object = blanks(object);
    if (*object != '{') return NULL;
    for (const char *at = blanks(object + 1); *at == '"'; at = blanks(after(blanks(after(at)))))
        if (!strncmp(at + 1, key, length) && at[1 + length] == '"') return blanks(after(at));
    return NULL;
}

static double number(const char *object, const char *key, double otherwise) {
    const char *at = member(object, key);
    return at ? strtod(at, NULL) : otherwise;
}

/* ---- The protocol ---- */

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static long elements(const char *list) {
    long count = 0;
    if (*list++ != '[') return -1;
    for (list = blanks(list); *list && *list != ']'; list = blanks(after(list))) count++;
    return count;
}

static void load(struct job *job, const char *body, uint64_t heard) {
    const char *inputs = member(body, "inputs");
    job->batch = (long)number(body, "batch", 0), job->threads = (long)number(body, "threads", 1);
    if (number(body, "protocol", 0) != 1) fail("protocol", "this worker speaks protocol 1");
    if (!inputs || (job->count = elements(inputs)) < 1 || job->batch < 1) fail("protocol", "a job without inputs or without a batch");
    job->inputs = room((size_t)job->count, sizeof *job->inputs), job->lengths = room((size_t)job->count, sizeof *job->lengths);
    const char *example = blanks(inputs + 1);
    for (long i = 0; i < job->count; i++, example = blanks(after(example))) {
        if ((job->lengths[i] = elements(example)) < 0) fail("protocol", "an example is no list of tokens");
        job->inputs[i] = room((size_t)job->lengths[i], sizeof **job->inputs);
        const char *token = blanks(example + 1);
        for (long t = 0; t < job->lengths[i]; t++, token = blanks(after(token))) job->inputs[i][t] = (uint32_t)strtoul(token, NULL, 10);
    }
    prepare(job);
    printf("{\"loaded\": {\"seconds\": %.9f, \"options\": {\"device\": \"cpu\"}}}\n", (double)(now() - heard) * 1e-9);
}

/* `batch` examples from `first` on, wrapping round, answered into `rows`. */
static void iterate(const struct job *job, long first, uint32_t **rows) {
    for (long i = 0; i < job->batch; i++) {
        long example = (first + i) % job->count;
        solve(job->inputs[example], job->lengths[example], rows[example]);
    }
}

static void predictions(const struct job *job, long block, uint32_t **rows, const char *wanted) {
    for (long e = 0; e < job->count; e++) {
        if (wanted && !wanted[e]) continue;
        printf("{\"predictions\": {\"block\": %ld, \"rows\": [{\"example\": %ld, \"depth\": 1, \"last\": true, \"answer\": [", block, e);
        for (long t = 0; t < job->lengths[e]; t++) printf(t ? ",%u" : "%u", rows[e][t]);
        printf("]}]}}\n");
    }
}

static void timed(const struct job *job, const char *go, long block, uint32_t **rows, long *next) {
    static uint64_t began[MAX_ITERATIONS], took[MAX_ITERATIONS];
    static long firsts[MAX_ITERATIONS];
    char *met = room((size_t)job->count, 1);
    long count = 0;
    uint64_t end = now() + (uint64_t)(number(go, "seconds", 0) * 1e9);
    /* nothing is said while the clock runs */
    while (count < MAX_ITERATIONS && ((double)count < number(go, "n", 0) || now() < end)) {
        firsts[count] = *next, began[count] = now();
        iterate(job, *next, rows);
        took[count] = now() - began[count];
        for (long i = 0; i < job->batch && i < job->count; i++) met[(*next + i) % job->count] = 1;
        *next = (*next + job->batch) % job->count, count++;
    }
    printf("{\"measured\": {\"block\": %ld}}\n", block);
    fflush(stdout);
    for (long i = 0; i < count; i++)
        printf("{\"sample\": {\"block\": %ld, \"iteration\": %ld, \"t_ns\": %llu, \"example\": %ld, \"rows\": %ld, \"latency\": %.9f, \"steps\": %ld}}\n",
               block, i, (unsigned long long)began[i], firsts[i], job->batch, (double)took[i] * 1e-9, job->batch);
    printf("{\"unavailable\": {\"what\": \"flops_executed\", \"reason\": \"this program counts no floating-point operations\"}}\n");
    predictions(job, block, rows, met);
    free(met);
}

int main(void) {
    struct job job = {0};
    uint32_t **rows = NULL;
    size_t size = 0;
    char *line = NULL;
    long next = 0;
    printf("{\"hello\": {\"protocol\": 1, \"name\": \"%s\", \"version\": \"%s\"}}\n", NAME, VERSION);
    fflush(stdout);
    while (getline(&line, &size, stdin) > 0) {
        uint64_t heard = now();
        const char *body = member(line, "job"), *go = member(line, "go");
        if (body && !job.line) {
            job.line = line, line = NULL, size = 0;
            load(&job, member(job.line, "job"), heard);
            rows = room((size_t)job.count, sizeof *rows);
            for (long i = 0; i < job.count; i++) rows[i] = room((size_t)job.lengths[i], sizeof **rows);
        } else if (go && job.line) {
            const char *mode = member(go, "mode");
            long block = (long)number(go, "block", 0);
            int is_warm = mode && !strncmp(mode, "\"warm\"", 6);
            if (is_warm) {
                uint64_t began = now(), end = began + (uint64_t)(number(go, "seconds", 0) * 1e9);
                iterate(&job, 0, rows);
                double first = (double)(now() - began) * 1e-9;
                while (now() < end) iterate(&job, 0, rows);
                printf("{\"ready\": {\"first_seconds\": %.9f}}\n", first);
            } else if (mode && !strncmp(mode, "\"answer\"", 8)) {
                for (long first = 0; first < job.count; first += job.batch) iterate(&job, first, rows);
                predictions(&job, block, rows, NULL);
            } else if (mode && !strncmp(mode, "\"compare\"", 9)) {
                printf("{\"unavailable\": {\"what\": \"outputs\", \"reason\": \"a search has no logits\"}}\n");
            } else if (mode && !strncmp(mode, "\"time\"", 6)) {
                timed(&job, go, block, rows, &next);
            } else {
                fail("protocol", "a mode that this worker does not know");
            }
            if (!is_warm) printf("{\"done\": {\"block\": %ld}}\n", block);
        } else {
            fail("protocol", "a line that is not due: first a job, then go lines");
        }
        fflush(stdout);
    }
    return 0;
}
