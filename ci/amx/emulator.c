/* Emulates the tile instructions of AMX on Linux on x86-64, so that code written for them can be tested on a CPU without them.
 *
 * In: a program with this library preloaded (LD_PRELOAD), and the SIGILL that each of its AMX instructions raises. Out: the registers, tiles and
 * memory that the instruction would have left, and at exit a line on stderr that counts them. It must not change what any other illegal instruction
 * does, call anything in its handler that is not safe in a signal, or serve for measurements: it is some hundred times slower than AMX.
 *
 *     cc -O2 -fPIC -shared -Wall -Wextra -Werror -o emulator.so emulator.c
 *
 * Instructions: LDTILECFG, STTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILELOADDT1, TILESTORED, TDPBF16PS, TDPBSSD, TDPBSUD, TDPBUSD, TDPBUUD; encoded
 * with a three-byte VEX prefix and nothing before it (no segment or address-size prefix). Source: Intel's Software Developer's Manual, volume 2, the
 * instructions' "Operation" and the exception classes AMX-E1 to AMX-E6; palette 1, 8 tiles of 16 rows of 64 bytes. CPUID and XGETBV cannot be emulated
 * from here: whoever uses AMX must ask for `ergometer_amx_emulated`.
 *
 * Where real hardware may differ:
 * - TDPBF16PS: the manual fixes the order of sums, and this follows it. It does not say which NaN comes out of several.
 * - What raises #UD or #GP there ends the program here, with a message, by abort(): such a program is wrong on every machine.
 * - A fault of memory ends the program by SIGSEGV, whatever handler it has; there is no going on from start_row.
 * - An AMX state that the system refuses to a process, and tiles lost in a signal handler, are not seen.
 */
#define _GNU_SOURCE
#include <immintrin.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64 };

struct tile {
    uint8_t row[ROWS][ROW_BYTES];
};

/* What AMX adds to a thread's state; palette 0 means "not configured". */
struct state {
    struct tile tile[TILES];
    uint16_t colsb[TILES];
    uint8_t rows[TILES];
    uint8_t palette, start_row;
};

/* Initial-exec: other models of thread-local storage may allocate at first use, which a signal handler must not. */
static __thread struct state amx __attribute__((tls_model("initial-exec")));

enum kind {
    LDTILECFG, STTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILELOADDT1, TILESTORED,
    TDPBF16PS, TDPBSSD, TDPBSUD, TDPBUSD, TDPBUUD, KINDS
};
static const char *const names[KINDS] = {
    "ldtilecfg", "sttilecfg", "tilerelease", "tilezero", "tileloadd", "tileloaddt1", "tilestored",
    "tdpbf16ps", "tdpbssd", "tdpbsud", "tdpbusd", "tdpbuud"
};

struct instruction {
    enum kind kind;
    unsigned length;
    unsigned reg, rm, vvvv;   /* tiles, where they name tiles */
    uint64_t address, stride; /* of the memory operand */
};

/* 1 once the handler stands: what programs ask for, by dlsym, in place of CPUID. */
volatile int ergometer_amx_emulated;
static uint64_t counts[KINDS], signals;

static _Noreturn void fault(enum kind kind, const char *why) {
    const char *const parts[] = { "AMX emulator: ", names[kind], ": ", why, "\n" };
    char line[256]; /* more than the longest */
    size_t length = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        for (const char *c = parts[i]; *c && length < sizeof line; c++)
            line[length++] = *c;
    if (write(2, line, length) < 0)
        _exit(134); /* there is nowhere to say it; the status is abort's, as a shell shows it */
    abort();
}

/* ---- decoding ---- */

/* Index into the saved registers by the number that instructions use. */
static const uint8_t saved[16] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15
};

/* Which instruction an opcode of map 0F38 is, or KINDS; prefix: 0 none, 1 is 66, 2 is F3, 3 is F2. */
static enum kind kind_of(uint8_t opcode, unsigned prefix, uint8_t modrm) {
    static const enum kind bytes[4] = { TDPBUUD, TDPBUSD, TDPBSUD, TDPBSSD };
    static const enum kind moves[4] = { KINDS, TILELOADDT1, TILESTORED, TILELOADD };
    const unsigned memory = modrm >> 6 != 3, reg = modrm >> 3 & 7, rm = modrm & 7;
    switch (opcode) {
    case 0x49:
        if (memory)
            return reg != 0 || prefix > 1 ? KINDS : prefix ? STTILECFG : LDTILECFG;
        return prefix == 0 && modrm == 0xc0 ? TILERELEASE : prefix == 3 && rm == 0 ? TILEZERO : KINDS;
    case 0x4b:
        /* a SIB byte is required: its index is the stride */
        return memory && rm == 4 ? moves[prefix] : KINDS;
    case 0x5c:
        return !memory && prefix == 2 ? TDPBF16PS : KINDS;
    case 0x5e:
        return memory ? KINDS : bytes[prefix];
    default:
        return KINDS;
    }
}

/* Reads the instruction at `ip`, and no byte beyond it; 0 if it is none of ours. */
static int decode(const uint8_t *ip, const greg_t *registers, struct instruction *in) {
    if (ip[0] != 0xc4 || (ip[1] & 0x1f) != 2 || (ip[2] & 0x84) != 0) /* VEX, map 0F38, W0, L0 */
        return 0;
    /* the three upper bits of registers are stored inverted, as is vvvv */
    const unsigned r = ~ip[1] >> 7 & 1, x = ~ip[1] >> 6 & 1, b = ~ip[1] >> 5 & 1;
    const uint8_t modrm = ip[4];
    const unsigned mod = modrm >> 6, rm = modrm & 7;
    in->kind = kind_of(ip[3], ip[2] & 3, modrm);
    in->vvvv = ~(unsigned)ip[2] >> 3 & 15;
    in->reg = r << 3 | (modrm >> 3 & 7);
    in->rm = b << 3 | rm;
    in->length = 5;
    in->address = in->stride = 0;
    if (in->kind == KINDS || (in->kind < TDPBF16PS && in->vvvv != 0))
        return 0;
    if (mod == 3)
        return 1;

    unsigned bytes = mod == 1 ? 1 : mod == 2 ? 4 : 0;
    if (rm == 4) {
        const uint8_t sib = ip[in->length++];
        const unsigned index = x << 3 | (sib >> 3 & 7), base = b << 3 | (sib & 7);
        /* 4 stands for "no index", but 12 is r12 */
        if (index != 4)
            in->stride = (uint64_t)registers[saved[index]] << (sib >> 6);
        /* without a displacement, 5 and 13 stand for "no base, four bytes of displacement" */
        if ((sib & 7) == 5 && mod == 0)
            bytes = 4;
        else
            in->address = (uint64_t)registers[saved[base]];
    } else if (rm == 5 && mod == 0) {
        bytes = 4; /* relative to the next instruction */
        in->address = (uint64_t)ip + in->length + bytes;
    } else {
        in->address = (uint64_t)registers[saved[in->rm]];
    }
    int32_t displacement = 0;
    memcpy(&displacement, ip + in->length, bytes);
    in->address += bytes == 1 ? (int8_t)displacement : (int64_t)displacement;
    in->length += bytes;
    /* an index is a stride to tile moves, and part of the address to the others */
    if (in->kind == LDTILECFG || in->kind == STTILECFG)
        in->address += in->stride;
    return 1;
}

/* ---- arithmetic ---- */

/* TDPBF16PS. Even and odd elements are summed apart, each with one rounding per product in ascending k; then their sum is rounded, and then its sum with
 * the destination. Denormals are zeros, in and out; rounding is to nearest even, and MXCSR has no say. */
__attribute__((noinline, target("avx512f")))
static void dot_bf16(struct tile *c, const struct tile *a, const struct tile *b, unsigned rows, unsigned words, unsigned columns) {
    const unsigned before = _mm_getcsr(), flush_all = 0x9fc0;
    /* "memory": operands are loaded after this, and sums stored before the other */
    __asm__ volatile("ldmxcsr %0" : : "m"(flush_all) : "memory");
    const __mmask16 lanes = (__mmask16)((1u << columns) - 1);
    const __m512i high = _mm512_set1_epi32((int)0xffff0000);
    for (unsigned m = 0; m < rows; m++) {
        __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
        for (unsigned k = 0; k < words; k++) {
            uint32_t pair;
            memcpy(&pair, &a->row[m][4 * k], 4);
            const __m512i x = _mm512_set1_epi32((int)pair), y = _mm512_loadu_si512(b->row[k]);
            even = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)), _mm512_castsi512_ps(_mm512_slli_epi32(y, 16)), even);
            odd = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, high)), _mm512_castsi512_ps(_mm512_and_si512(y, high)), odd);
        }
        const __m512 sum = _mm512_add_ps(_mm512_loadu_ps(c->row[m]), _mm512_add_ps(even, odd));
        _mm512_storeu_ps(c->row[m], _mm512_maskz_mov_ps(lanes, sum));
    }
    __asm__ volatile("ldmxcsr %0" : : "m"(before) : "memory");
}

/* The even or the odd bytes as 16-bit numbers. */
__attribute__((always_inline, target("avx512f,avx512bw")))
static inline __m512i widened(__m512i bytes, int odd, int is_signed) {
    if (is_signed)
        return _mm512_srai_epi16(odd ? bytes : _mm512_slli_epi16(bytes, 8), 8);
    return odd ? _mm512_srli_epi16(bytes, 8) : _mm512_and_si512(bytes, _mm512_set1_epi16(0xff));
}

/* TDPB..D: four products of bytes each, summed modulo 2^32, so that their order is of no account. */
__attribute__((noinline, target("avx512f,avx512bw")))
static void dot_int8(struct tile *c, const struct tile *a, const struct tile *b, unsigned rows, unsigned words, unsigned columns, int a_signed, int b_signed) {
    const __mmask16 lanes = (__mmask16)((1u << columns) - 1);
    for (unsigned m = 0; m < rows; m++) {
        __m512i sum = _mm512_loadu_si512(c->row[m]);
        for (unsigned k = 0; k < words; k++) {
            uint32_t four;
            memcpy(&four, &a->row[m][4 * k], 4);
            const __m512i x = _mm512_set1_epi32((int)four), y = _mm512_loadu_si512(b->row[k]);
            for (int odd = 0; odd < 2; odd++)
                sum = _mm512_add_epi32(sum, _mm512_madd_epi16(widened(x, odd, a_signed), widened(y, odd, b_signed)));
        }
        _mm512_storeu_si512(c->row[m], _mm512_maskz_mov_epi32(lanes, sum));
    }
}

/* ---- the instructions ---- */

static void load_configuration(uint64_t address) {
    static const uint8_t zero[16];
    uint8_t c[64];
    uint16_t colsb[TILES];
    memcpy(c, (const void *)address, sizeof c);
    memcpy(colsb, c + 16, sizeof colsb);
    if (c[0] > 1)
        fault(LDTILECFG, "the palette is neither 0 nor 1");
    if (c[0] == 1 && (memcmp(c + 2, zero, 14) || memcmp(c + 32, zero, 16) || memcmp(c + 56, zero, 8)))
        fault(LDTILECFG, "a reserved byte is not zero");
    for (int t = 0; c[0] == 1 && t < TILES; t++) {
        if (colsb[t] > ROW_BYTES || c[48 + t] > ROWS)
            fault(LDTILECFG, "a tile has more than 16 rows or 64 bytes in a row");
        if ((colsb[t] == 0) != (c[48 + t] == 0))
            fault(LDTILECFG, "a tile has rows of no bytes, or bytes in no rows");
    }
    /* all tiles become zero; palette 0 means not to be configured at all */
    memset(&amx, 0, sizeof amx);
    if (c[0] == 0)
        return;
    amx.palette = c[0];
    amx.start_row = c[1];
    memcpy(amx.colsb, colsb, sizeof colsb);
    memcpy(amx.rows, c + 48, sizeof amx.rows);
}

static void store_configuration(uint64_t address) {
    uint8_t c[64] = { amx.palette, amx.start_row };
    memcpy(c + 16, amx.colsb, sizeof amx.colsb);
    memcpy(c + 48, amx.rows, sizeof amx.rows);
    memcpy((void *)address, c, sizeof c);
}

/* The tile of this number, if the configuration has it. */
static struct tile *tile(enum kind kind, unsigned number) {
    if (amx.palette == 0)
        fault(kind, "tiles are not configured on this thread");
    if (number >= TILES)
        fault(kind, "there are 8 tiles");
    if (amx.rows[number] == 0)
        fault(kind, "the configuration has no rows for a tile");
    return &amx.tile[number];
}

static void move(const struct instruction *in) {
    struct tile *t = tile(in->kind, in->reg);
    const unsigned bytes = amx.colsb[in->reg], rows = amx.rows[in->reg];
    if (bytes % 4 != 0)
        fault(in->kind, "rows are not of whole words");
    if (amx.start_row >= rows)
        fault(in->kind, "start_row is not among the tile's rows");
    /* rows and bytes beyond the configured ones are zero; those below start_row have been loaded before */
    if (in->kind != TILESTORED)
        memset(t->row[amx.start_row], 0, (size_t)(ROWS - amx.start_row) * ROW_BYTES);
    for (unsigned row = amx.start_row; row < rows; row++) {
        void *at = (void *)(in->address + row * in->stride);
        if (in->kind == TILESTORED)
            memcpy(at, t->row[row], bytes);
        else
            memcpy(t->row[row], at, bytes);
    }
    amx.start_row = 0;
}

static void multiply(const struct instruction *in) {
    struct tile *c = tile(in->kind, in->reg);
    const struct tile *a = tile(in->kind, in->rm), *b = tile(in->kind, in->vvvv);
    const unsigned rows = amx.rows[in->reg], bytes = amx.colsb[in->reg], words = amx.colsb[in->rm] / 4;
    if (a == b || a == c || b == c)
        fault(in->kind, "the three tiles are not different ones");
    if (bytes % 4 != 0 || amx.colsb[in->rm] % 4 != 0 || amx.colsb[in->vvvv] % 4 != 0)
        fault(in->kind, "rows are not of whole words");
    if (amx.rows[in->rm] != rows || amx.colsb[in->vvvv] != bytes || amx.rows[in->vvvv] != words)
        fault(in->kind, "shapes do not fit: sums of m x n words want m x k and k x n");
    /* rows of the destination beyond the configured ones have been zero since the configuration was loaded */
    if (in->kind == TDPBF16PS)
        dot_bf16(c, a, b, rows, words, bytes / 4);
    else
        dot_int8(c, a, b, rows, words, bytes / 4, in->kind == TDPBSSD || in->kind == TDPBSUD, in->kind == TDPBSSD || in->kind == TDPBUSD);
    amx.start_row = 0;
}

static void execute(const struct instruction *in) {
    switch (in->kind) {
    case LDTILECFG: load_configuration(in->address); break;
    case STTILECFG: store_configuration(in->address); break;
    case TILERELEASE: memset(&amx, 0, sizeof amx); break;
    case TILEZERO:
        memset(tile(in->kind, in->reg), 0, sizeof(struct tile));
        amx.start_row = 0;
        break;
    case TILELOADD: case TILELOADDT1: case TILESTORED: move(in); break;
    default: multiply(in); break;
    }
    __atomic_fetch_add(&counts[in->kind], 1, __ATOMIC_RELAXED);
}

static void on_illegal_instruction(int signal, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    struct instruction in;
    if (info->si_code <= 0 || !decode((const uint8_t *)registers[REG_RIP], registers, &in)) {
        /* not ours: the instruction is met again, and nothing stands in its way; a signal that somebody sent is sent again */
        struct sigaction usual = { .sa_handler = SIG_DFL };
        sigaction(signal, &usual, NULL);
        if (info->si_code <= 0)
            raise(signal);
        return;
    }
    __atomic_fetch_add(&signals, 1, __ATOMIC_RELAXED);
    /* AMX instructions stand together, and the signal costs more than most of them: go on while the next is one too */
    do {
        execute(&in);
        registers[REG_RIP] += in.length;
    } while (decode((const uint8_t *)registers[REG_RIP], registers, &in));
}

__attribute__((constructor)) static void install(void) {
    /* without these the arithmetic would be an illegal instruction itself */
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw"))
        return;
    /* On the thread's own stack, which has room: alternative ones are cut to the size of the handlers they were made for. All else waits meanwhile, as
     * it does for an instruction. */
    struct sigaction ours = { .sa_sigaction = on_illegal_instruction, .sa_flags = SA_SIGINFO };
    sigfillset(&ours.sa_mask);
    if (sigaction(SIGILL, &ours, NULL) == 0)
        ergometer_amx_emulated = 1;
}

/* By this line a script sees that AMX instructions were met at all. A program that meets none has nothing to say. */
__attribute__((destructor)) static void report(void) {
    char line[160];
    const unsigned long long bf16 = counts[TDPBF16PS], int8 = counts[TDPBUSD], all = signals;
    const int length = snprintf(line, sizeof line, "AMX emulator: %llu tdpbf16ps, %llu tdpbusd, %llu signals\n", bf16, int8, all);
    if (all > 0 && length > 0 && write(2, line, (size_t)length) < 0)
        return; /* there is nowhere to say it, and the script will miss the line */
}
