/* Checks of the AMX emulator: every instruction, and every way to address memory, against plain C and against results worked out by hand.
 *
 * In: nothing; it is run with the emulator preloaded, or on a CPU with AMX, whose results must be the same. Out: exit status 0, or 1 with a line on
 * stderr for each check that failed. It must not use vectors or the emulator's own code for what it expects: each element is computed on its own.
 *
 *     cc -O2 -Wall -Wextra -Werror -ffp-contract=off -pthread -o selftest selftest.c -lm -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xmmintrin.h>

static int failures;

/* At most a few lines: one mistake shows in thousands of values. */
#define CHECK(condition, ...) do { if (!(condition) && ++failures <= 20) { \
    fprintf(stderr, "FAILED, line %d: ", __LINE__); fprintf(stderr, __VA_ARGS__); fputc('\n', stderr); } } while (0)

struct config {
    uint8_t palette, start_row, reserved[14];
    uint16_t colsb[16];
    uint8_t rows[16];
} __attribute__((aligned(64)));

#define ASM(...) __asm__ volatile(__VA_ARGS__)
#define LOAD_CONFIG(c) ASM("ldtilecfg %0" : : "m"(*(const struct config *)(c)) : "memory")
#define STORE_CONFIG(c) ASM("sttilecfg %0" : "=m"(*(struct config *)(c)) : : "memory")
#define RELEASE() ASM("tilerelease" : : : "memory")
#define LOAD(tile, p, stride) ASM("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(p), "r"((int64_t)(stride)) : "memory")
#define LOAD_T1(tile, p, stride) ASM("tileloaddt1 (%0,%1,1), %%tmm" #tile : : "r"(p), "r"((int64_t)(stride)) : "memory")
#define STORE(tile, p, stride) ASM("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(p), "r"((int64_t)(stride)) : "memory")
#define ZERO(tile) ASM("tilezero %%tmm" #tile : : : "memory")
/* destination, first source, second source */
#define DOT(name, c, a, b) ASM(name " %%tmm" #b ", %%tmm" #a ", %%tmm" #c : : : "memory")

static uint32_t seed = 1;
static uint32_t random32(void) {
    seed ^= seed << 13;
    seed ^= seed >> 17;
    return seed ^= seed << 5;
}

static struct config configuration(const int tiles[3], unsigned m, unsigned k, unsigned n) {
    struct config c = { .palette = 1 };
    const uint16_t colsb[3] = { (uint16_t)(4 * n), (uint16_t)(4 * k), (uint16_t)(4 * n) };
    const uint8_t rows[3] = { (uint8_t)m, (uint8_t)m, (uint8_t)k };
    for (int i = 0; i < 3; i++) {
        c.colsb[tiles[i]] = colsb[i];
        c.rows[tiles[i]] = rows[i];
    }
    return c;
}

/* ---- products ---- */

enum { BF16, SSD, SUD, USD, UUD, OPERATIONS };
static const char *const names[] = { "tdpbf16ps", "tdpbssd", "tdpbsud", "tdpbusd", "tdpbuud" };

static float of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static uint32_t bits_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}
static float flushed(float f) {
    return fpclassify(f) == FP_SUBNORMAL ? copysignf(0, f) : f;
}

/* One element of the destination, of a row of `a` and a column of `b`, whose words stand `stride` apart. */
static uint32_t expected(int operation, uint32_t c, const uint32_t *a, const uint32_t *b, unsigned k, unsigned stride) {
    if (operation == BF16) {
        float sums[2] = { 0, 0 };
        for (unsigned i = 0; i < k; i++)
            for (int half = 0; half < 2; half++) {
                const float x = of_bits(half ? a[i] & 0xffff0000 : a[i] << 16);
                const float y = of_bits(half ? b[i * stride] & 0xffff0000 : b[i * stride] << 16);
                sums[half] = flushed(fmaf(flushed(x), flushed(y), sums[half]));
            }
        return bits_of(flushed(flushed(of_bits(c)) + flushed(sums[0] + sums[1])));
    }
    int64_t sum = c;
    for (unsigned i = 0; i < k; i++)
        for (int byte = 0; byte < 4; byte++) {
            const uint8_t x = (uint8_t)(a[i] >> 8 * byte), y = (uint8_t)(b[i * stride] >> 8 * byte);
            sum += (int64_t)(operation == SSD || operation == SUD ? (int8_t)x : x) * (operation == SSD || operation == USD ? (int8_t)y : y);
        }
    return (uint32_t)sum;
}

/* A word of operands. `special`: any bits, or a bf16 at the edges of what there is. */
static uint32_t word(int operation, int special) {
    static const uint16_t edges[] = {
        0, 0x8000, 0x0001, 0x807f, 0x0080, 0x8080, 0x7f7f, 0xff7f, 0x7f80, 0xff80, 0x7fc0, 0x7f81, 0x3f80, 0xbf80, 0x0100, 0x1f80, 0x9f80, 0x2000
    };
    if (operation != BF16 || (special && random32() % 4 == 0))
        return random32();
    uint32_t both = 0;
    for (int half = 0; half < 2; half++)
        /* from a few powers of two around one, or from the edges */
        both = both << 16 | (special ? edges[random32() % (sizeof edges / 2)] : (random32() & 0x80ff) | (0x3e00 + (random32() % 4 << 7)));
    return both;
}

static void run(int operation, int high_tiles) {
    /* the operation on two choices of tiles, so that no two of the three numbers can be mistaken for one another */
#define CASE(o, name) case o: if (high_tiles) DOT(name, 7, 3, 5); else DOT(name, 0, 1, 6); break
    switch (operation) {
        CASE(BF16, "tdpbf16ps"); CASE(SSD, "tdpbssd"); CASE(SUD, "tdpbsud"); CASE(USD, "tdpbusd"); CASE(UUD, "tdpbuud");
    }
}

/* Products of one shape; rows in memory are `pad` bytes longer than in the tile, and what lies between must stay. */
static void product(int operation, unsigned m, unsigned k, unsigned n, int special, int high_tiles) {
    static const int tiles[2][3] = { { 0, 1, 6 }, { 7, 3, 5 } };
    uint32_t a[16][16], b[16][16], c[16][20], out[16][20];
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++)
            a[i][j] = word(operation, special), b[i][j] = word(operation, special);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 20; j++) {
            c[i][j] = operation == BF16 && !special ? bits_of((float)(random32() % 64) - 32) : random32();
            out[i][j] = 0xdeadbeef;
        }
    const struct config config = configuration(tiles[high_tiles], m, k, n);
    LOAD_CONFIG(&config);
    if (high_tiles) {
        LOAD(7, c, sizeof c[0]); LOAD_T1(3, a, sizeof a[0]); LOAD(5, b, sizeof b[0]);
        run(operation, 1);
        STORE(7, out, sizeof out[0]);
    } else {
        LOAD_T1(0, c, sizeof c[0]); LOAD(1, a, sizeof a[0]); LOAD(6, b, sizeof b[0]);
        run(operation, 0);
        STORE(0, out, sizeof out[0]);
    }
    RELEASE();
    for (unsigned i = 0; i < 16; i++)
        for (unsigned j = 0; j < 20; j++) {
            const uint32_t want = i < m && j < n ? expected(operation, c[i][j], a[i], &b[0][j], k, 16) : 0xdeadbeef;
            const int both_nan = operation == BF16 && i < m && j < n && isnan(of_bits(want)) && isnan(of_bits(out[i][j]));
            CHECK(out[i][j] == want || both_nan, "%s %ux%ux%u, element %u, %u: %08x instead of %08x", names[operation], m, k, n, i, j, out[i][j], want);
        }
}

static void products(void) {
    for (int operation = 0; operation < OPERATIONS; operation++)
        for (int special = 0; special < 2; special++) {
            for (unsigned size = 1; size <= 16; size++) {
                product(operation, size, 16, 16, special, 0);
                product(operation, 16, size, 16, special, 1);
                product(operation, 16, 16, size, special, 0);
            }
            for (int i = 0; i < 300; i++)
                product(operation, 1 + random32() % 16, 1 + random32() % 16, 1 + random32() % 16, special, i % 2);
        }
}

/* One element by hand: c + sum of the pairs of a and b. */
static uint32_t one(int operation, uint32_t c, const uint32_t *a, const uint32_t *b, unsigned k) {
    static const int tiles[3] = { 0, 1, 6 };
    const struct config config = configuration(tiles, 1, k, 1);
    LOAD_CONFIG(&config);
    LOAD(0, &c, 64); LOAD(1, a, 64); LOAD(6, b, 4);
    run(operation, 0);
    STORE(0, &c, 64);
    RELEASE();
    return c;
}
#define PAIR(odd, even) ((uint32_t)(odd) << 16 | (even))

static void known_values(void) {
    enum { ONE = 0x3f80, TINY = 0x0001, LEAST = 0x0080, HALF = 0x3f00, INF = 0x7f80, MAX = 0x7f7f, P30 = 0x4e80, M30 = 0xce80, P_12 = 0x3980 };
    uint32_t a[2], b[2];
#define BF16_IS(want, c, a0, b0, a1, b1) do { a[0] = a0; b[0] = b0; a[1] = a1; b[1] = b1; \
    const uint32_t got = one(BF16, c, a, b, 2); CHECK(got == (want), "by hand: %08x instead of %08x", got, (uint32_t)(want)); } while (0)
    /* denormals are zeros: as an operand, in the destination, as a product, as a difference */
    BF16_IS(0, 0, PAIR(0, TINY), PAIR(0, P30), 0, 0);
    BF16_IS(bits_of(1), 0x007fffff, PAIR(0, ONE), PAIR(0, ONE), 0, 0);
    BF16_IS(0, 0, PAIR(0, LEAST), PAIR(0, HALF), 0, 0);
    BF16_IS(0x00800000, 0, PAIR(0, LEAST), PAIR(0, ONE), 0, 0);
    BF16_IS(0, 0x00c00000, PAIR(0, LEAST), PAIR(0, 0xbf80), 0, 0);
    /* even and odd apart: 2^30 and -2^30 stand in different sums, each of which swallows a one */
    BF16_IS(0, 0, PAIR(M30, P30), PAIR(ONE, ONE), PAIR(ONE, ONE), PAIR(ONE, ONE));
    /* ascending k, the destination last: (2^30 - 2^30) + 1, and 1 swallowed by 2^30 before it is taken away */
    BF16_IS(bits_of(1), 0, PAIR(0, P30), PAIR(0, ONE), PAIR(ONE, M30), PAIR(ONE, ONE));
    BF16_IS(0, bits_of(-0x1p30f), PAIR(0, P30), PAIR(0, ONE), PAIR(0, ONE), PAIR(0, ONE));
    /* one rounding per product: 1 + 2^-12 * 2^-12 is a tie that goes to the even 1; and from the next number up it goes up */
    BF16_IS(bits_of(1), 0, PAIR(0, ONE), PAIR(0, ONE), PAIR(0, P_12), PAIR(0, P_12));
    BF16_IS(bits_of(1 + 0x1p-23f) + 1, 0, PAIR(0, ONE), PAIR(0, ONE), PAIR(0, P_12), PAIR(0, 0x3a40));
    /* infinities */
    BF16_IS(0x7f800000, 0, PAIR(0, MAX), PAIR(0, MAX), 0, 0);
    BF16_IS(0xff800000, bits_of(5), PAIR(0, INF), PAIR(0, 0xbf80), 0, 0);
    a[0] = PAIR(INF, INF), b[0] = PAIR(0xbf80, ONE);
    CHECK(isnan(of_bits(one(BF16, 0, a, b, 1))), "infinity less infinity is no number");
    a[0] = INF, b[0] = TINY;
    CHECK(isnan(of_bits(one(BF16, 0, a, b, 1))), "infinity times a denormal is infinity times zero");

    /* bytes: the extremes of each sign, and sums that wrap and never saturate */
    a[0] = 0xff80ff80, b[0] = 0x80ff7f80;
    CHECK(one(SSD, 0, a, b, 1) == (uint32_t)(-1 * -128 + -128 * -1 + -1 * 127 + -128 * -128), "tdpbssd");
    CHECK(one(SUD, 0, a, b, 1) == (uint32_t)(-1 * 128 + -128 * 255 + -1 * 127 + -128 * 128), "tdpbsud");
    CHECK(one(USD, 0, a, b, 1) == (uint32_t)(255 * -128 + 128 * -1 + 255 * 127 + 128 * -128), "tdpbusd");
    CHECK(one(UUD, 0, a, b, 1) == (uint32_t)(255 * 128 + 128 * 255 + 255 * 127 + 128 * 128), "tdpbuud");
    a[0] = b[0] = 1;
    CHECK(one(USD, 0x7fffffff, a, b, 1) == 0x80000000, "sums wrap");

    /* MXCSR has no say and is left as it was: towards zero, and denormals kept, in the program */
    const unsigned before = _mm_getcsr(), strange = (before | 0x6000) & ~0x8040u;
    _mm_setcsr(strange);
    a[0] = ONE, b[0] = ONE, a[1] = P_12, b[1] = 0x3a40;
    const uint32_t rounded = one(BF16, 0, a, b, 2);
    const unsigned after = _mm_getcsr();
    _mm_setcsr(before);
    CHECK(rounded == bits_of(1 + 0x1p-23f) + 1 && after == strange, "MXCSR: %08x, %x instead of %x", rounded, after, strange);
}

/* ---- addresses ---- */

/* void f(base, index): loads tile 2 from all bases with all indices, in four forms of scale and displacement; stores it with the roles of base and index
 * in other registers. Registers take their values by way of the stack, since they may be each other's. */
__asm__(
    ".text\n"
    ".macro enter_ base, index\n"
    " push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " push %rdi\n push %rsi\n pop \\index\n pop \\base\n"
    ".endm\n"
    ".macro leave_\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"
    ".endm\n"
    ".section .data.rel, \"aw\"\n .balign 8\n addresses:\n .text\n"
    ".irp base, %rax, %rcx, %rdx, %rbx, %rbp, %rsi, %rdi, %r8, %r9, %r10, %r11, %r12, %r13, %r14, %r15\n"
    ".irp index, %rax, %rcx, %rdx, %rbx, %rbp, %rsi, %rdi, %r8, %r9, %r10, %r11, %r12, %r13, %r14, %r15\n"
    ".ifnc \\base, \\index\n"
    "1: enter_ \\base, \\index\n tileloadd (\\base,\\index,1), %tmm2\n leave_\n"
    "2: enter_ \\base, \\index\n tileloadd -128(\\base,\\index,2), %tmm2\n leave_\n"
    "3: enter_ \\base, \\index\n tileloaddt1 0x1234(\\base,\\index,4), %tmm2\n leave_\n"
    "4: enter_ \\base, \\index\n tilestored %tmm2, -0x70000000(\\base,\\index,8)\n leave_\n"
    ".section .data.rel, \"aw\"\n .quad 1b, 2b, 3b, 4b\n .text\n"
    ".endif\n"
    ".endr\n.endr\n"
    ".section .data.rel, \"aw\"\n addresses_end:\n .text\n"
    /* the stack pointer as base: a copy of `base`'s 1024 bytes there is what is loaded, or stored and copied back */
    "from_stack: sub $1024, %rsp\n mov %rsi, %rdx\n mov %rdi, %rsi\n mov %rsp, %rdi\n mov $128, %ecx\n rep movsq\n"
    " tileloadd (%rsp,%rdx,1), %tmm2\n add $1024, %rsp\n ret\n"
    "to_stack: sub $1024, %rsp\n mov %rsi, %rdx\n mov %rdi, %r8\n mov %rsp, %rdi\n mov %r8, %rsi\n mov $128, %ecx\n rep movsq\n"
    " tilestored %tmm2, (%rsp,%rdx,1)\n mov %rsp, %rsi\n mov %r8, %rdi\n mov $128, %ecx\n rep movsq\n add $1024, %rsp\n ret\n"
    /* no index: a stride of 0; by hand, since an assembler may write something else: tileloadd 0x40(%rdi), %tmm2, then tileloadd 0x40(%r12), %tmm2 */
    "no_index: .byte 0xc4, 0xe2, 0x7b, 0x4b, 0x54, 0x27, 0x40\n ret\n"
    "no_index_r12: push %r12\n mov %rdi, %r12\n .byte 0xc4, 0xc2, 0x7b, 0x4b, 0x54, 0x24, 0x40\n pop %r12\n ret\n"
    /* no base: an absolute address and a stride; %rsi is the index. Then the same with the bit set that makes r13 of rbp, which changes nothing. */
    "no_base: tileloadd 0x20000100(,%rsi,1), %tmm2\n ret\n"
    "no_base_r13: .byte 0xc4, 0xc2, 0x7b, 0x4b, 0x14, 0x35, 0x00, 0x01, 0x00, 0x20\n ret\n"
    /* configurations, by all forms of an address that has no stride */
    "configure: push %r12\n push %r13\n mov %rdi, %r12\n mov %rdi, %r13\n mov %rdi, %rax\n"
    " sttilecfg 0x40(%rax)\n sttilecfg 0x1000(%rax)\n sttilecfg (%r12)\n sttilecfg 0x80(%r12)\n sttilecfg 0x0(%r13)\n sttilecfg 0xc0(%r13)\n"
    " mov $0x20, %ecx\n sttilecfg 0x100(%rax,%rcx,2)\n neg %rcx\n sttilecfg 0x240(%r13,%rcx,4)\n"
    " sttilecfg here(%rip)\n tilerelease\n ldtilecfg here(%rip)\n pop %r13\n pop %r12\n ret\n"
    ".bss\n .balign 64\n here: .zero 64\n .text\n"
);
typedef void moving(const void *base, int64_t index);
extern moving *const addresses[], *const addresses_end[];
extern moving from_stack, to_stack, no_index, no_index_r12, no_base, no_base_r13, configure;

static void addressing(void) {
    static uint8_t memory[3][16][64], out[16][64];
    const struct config config = { .palette = 1, .colsb = { [2] = 36, [7] = 64 }, .rows = { [2] = 11, [7] = 3 } };
    for (size_t i = 0; i < sizeof memory; i++)
        (&memory[0][0][0])[i] = (uint8_t)random32();
    LOAD_CONFIG(&config);
    const size_t forms = (size_t)(addresses_end - addresses);
    CHECK(forms == 15 * 14 * 4, "%zu forms", forms);
    for (size_t i = 0; i < forms; i++) {
        static const int64_t away[4] = { 0, -128, 0x1234, -0x70000000 };
        const int form = i % 4;
        const uint8_t (*from)[64] = memory[i % 3];
        /* rows upwards or, with a negative stride, downwards */
        const int down = i / 4 % 2, stride = down ? -64 : 64;
        uint8_t *first = form == 3 ? out[0] : (uint8_t *)from[0];
        if (down)
            first += 10 * 64;
        memset(out, 0xee, sizeof out);
        if (form == 3)
            LOAD(2, from, 64);
        else
            ZERO(2);
        addresses[i](first - away[form], stride / (1 << form));
        if (form != 3)
            STORE(2, out, 64);
        for (int row = 0; row < 16; row++)
            for (int byte = 0; byte < 64; byte++) {
                const uint8_t want = row < 11 && byte < 36 ? from[down ? 10 - row : row][byte] : 0xee;
                CHECK(out[row][byte] == want, "form %d of pair %zu, row %d, byte %d", form, i / 4, row, byte);
            }
    }
#define ROWS_ARE(what, row_of) do { STORE(2, out, 64); \
    for (int row = 0; row < 11; row++) CHECK(memcmp(out[row], row_of, 36) == 0, what ", row %d", row); } while (0)
    from_stack(memory[0], 64); ROWS_ARE("from the stack", memory[0][row]);
    memset(out, 0, sizeof out); to_stack(out, 64); ROWS_ARE("to the stack", memory[0][row]);
    no_index(memory[1], 64); ROWS_ARE("no index", memory[1][1]);
    no_index_r12(memory[2], 64); ROWS_ARE("no index, r12", memory[2][1]);
    uint8_t *low = mmap((void *)0x20000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(low == (void *)0x20000000, "no memory at a low address");
    if (low == (void *)0x20000000) {
        memcpy(low + 0x100, memory[1], sizeof memory[1]);
        no_base(NULL, 64); ROWS_ARE("no base", memory[1][row]);
        ZERO(2); no_base_r13(NULL, 64); ROWS_ARE("no base, r13", memory[1][row]);
    }

    static uint8_t stored[8192];
    configure(stored, 0);
    static const int at[] = { 0x0, 0x40, 0x80, 0xc0, 0x140, 0x1c0, 0x1000 };
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        CHECK(memcmp(stored + at[i], &config, 64) == 0, "configuration at %x", at[i]);
    struct config again;
    STORE_CONFIG(&again);
    CHECK(memcmp(&again, &config, 64) == 0, "configuration, stored and loaded relative to rip");
    /* loading it has emptied the tiles */
    STORE(2, out, 64);
    for (int row = 0; row < 11; row++)
        for (int byte = 0; byte < 36; byte++)
            CHECK(out[row][byte] == 0, "a tile after its configuration");
    /* a restart from row 9: rows before it stay, as here they are zero, and start_row goes back to 0 */
    struct config restart = config;
    restart.start_row = 9;
    LOAD_CONFIG(&restart);
    STORE_CONFIG(&again);
    CHECK(again.start_row == 9, "start_row is kept");
    LOAD(2, memory[0], 64);
    STORE(2, out, 64);
    for (int row = 0; row < 11; row++)
        CHECK(row < 9 ? out[row][0] == 0 && out[row][35] == 0 : memcmp(out[row], memory[0][row], 36) == 0, "restarted, row %d", row);
    STORE_CONFIG(&again);
    CHECK(again.start_row == 0, "start_row is back at 0");
    /* palette 0, and a release, leave no configuration */
    static const struct config none;
    for (int release = 0; release < 2; release++) {
        LOAD_CONFIG(&config);
        if (release)
            RELEASE();
        else
            LOAD_CONFIG(&none);
        STORE_CONFIG(&again);
        CHECK(memcmp(&again, &none, 64) == 0, "no configuration");
    }
}

/* ---- threads, and what must end the program ---- */

static void *worker(void *argument) {
    static const int tiles[3] = { 0, 1, 6 };
    const unsigned rows = *(const unsigned *)argument;
    const struct config config = configuration(tiles, rows, rows, rows);
    uint32_t values[16][16], out[16][16];
    for (int i = 0; i < 256; i++)
        (&values[0][0])[i] = rows << 16 | (uint32_t)i;
    uintptr_t differ = 0;
    LOAD_CONFIG(&config);
    LOAD(0, values, 64);
    for (int i = 0; i < 20000; i++) {
        memset(out, 0, sizeof out);
        STORE(0, out, 64);
        for (unsigned row = 0; row < 16; row++)
            differ |= memcmp(out[row], values[row], row < rows ? 4 * rows : 0) != 0 || (row >= rows && out[row][0] != 0);
    }
    RELEASE();
    return (void *)differ;
}

static void threads(void) {
    static const unsigned rows[4] = { 2, 5, 11, 16 };
    pthread_t handles[4];
    void *differ;
    for (int i = 0; i < 4; i++)
        if (pthread_create(&handles[i], NULL, worker, (void *)&rows[i]) != 0)
            exit(2);
    for (int i = 0; i < 4; i++) {
        pthread_join(handles[i], &differ);
        CHECK(differ == NULL, "a thread of %u rows sees another's tiles", rows[i]);
    }
}

/* The signal that ends a process that does `wrong`; what it says is not for this program's output. */
static int ends_by(int wrong) {
    const pid_t child = fork();
    if (child == 0) {
        static struct config c = { .palette = 1, .colsb = { 64, 64, 64, 32, 6 }, .rows = { 16, 16, 16, 16, 4 } };
        static uint8_t memory[1024];
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(3);
        switch (wrong) {
        case 0: ZERO(0); _exit(0); /* not configured */
        case 1: c.palette = 2; break;
        case 2: c.reserved[3] = 1; break;
        case 3: c.colsb[0] = 65; break;
        case 4: c.rows[7] = 17; break;
        case 5: c.rows[5] = 1; break;
        case 6: c.rows[9] = 1; break;
        }
        LOAD_CONFIG(&c);
        switch (wrong) {
        case 7: DOT("tdpbf16ps", 0, 1, 3); break; /* columns differ */
        case 8: DOT("tdpbusd", 0, 3, 1); break;   /* k differs */
        case 9: ASM(".byte 0xc4, 0xe2, 0x71, 0x5e, 0xc1"); break; /* tdpbusd of tiles 0, 1 and 1, which an assembler refuses */
        case 10: LOAD(5, memory, 64); break;      /* of no rows */
        case 11: LOAD(4, memory, 64); break;      /* no whole words */
        case 12: RELEASE(); STORE(0, memory, 64); break;
        case 13: ASM("ud2"); break;
        case 14: LOAD(0, (void *)16, 64); break;
        case 15: ASM(".byte 0xc4, 0xe2, 0x78, 0x4b, 0x54, 0x27, 0x40"); break; /* no prefix of the four */
        }
        _exit(0);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child)
        return -1;
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void what_is_wrong_ends_the_program(int emulated) {
    for (int wrong = 0; wrong < 16; wrong++) {
        const int got = ends_by(wrong);
        const int want = wrong == 13 || wrong == 15 ? SIGILL : wrong == 14 ? SIGSEGV : SIGABRT;
        /* a CPU says that an instruction is wrong by other signals */
        CHECK(emulated ? got == want : got != 0, "wrong thing %d ended by signal %d instead of %d", wrong, got, want);
    }
    CHECK(ends_by(-1) == 0, "nothing wrong, and yet an end");
}

int main(void) {
    const int *const symbol = dlsym(RTLD_DEFAULT, "ergometer_amx_emulated");
    const int emulated = symbol != NULL && *symbol == 1;
    /* tile data must be asked for; without AMX the system has no such request */
    if (!emulated && syscall(SYS_arch_prctl, 0x1023, 18) != 0) {
        fputs("neither AMX nor its emulator is here\n", stderr);
        return 1;
    }
    products();
    known_values();
    addressing();
    threads();
    what_is_wrong_ends_the_program(emulated);
    if (failures == 0)
        puts("ok: products, known values, addresses, threads, and what must end a program");
    else
        fprintf(stderr, "%d checks failed\n", failures);
    return failures != 0;
}
