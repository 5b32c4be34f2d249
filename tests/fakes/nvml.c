/* A fake NVML with two boards whose counters advance at known power, for the tests of the NVML meter. It measures nothing.
   Built with -D: STILL (counters stand still), UNSUPPORTED (the second board has no energy counter), WATTS (power of both boards), and what
   happens so many seconds after it was loaded: STOP, JUMP (500 J), RESET, LOST, DIE, LEAVE, HANG. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef WATTS
static const double watts[2] = {WATTS, WATTS};
#else
static const double watts[2] = {100.0, 300.0};
#endif
static double loaded;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + t.tv_nsec * 1e-9;
}

__attribute__((constructor)) static void load(void) { loaded = now(); }

int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { return flags ? 2 : 0; }
int nvmlShutdown(void) { return 0; }

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    strncpy(text, "570.00", length);
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 2;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index > 1) return 2; /* invalid argument */
    *device = (void *)&watts[index];
    return 0;
}

int nvmlDeviceGetName(void *device, char *text, unsigned length) {
    (void)device;
    strncpy(text, "Fake board", length);
    return 0;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    strncpy(text, device == (void *)&watts[0] ? "GPU-aaaa" : "GPU-bbbb", length);
    return 0;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
    *milliwatts = (unsigned)(*(const double *)device * 1e3);
    return 0;
}

/* fields 185 and 186: mean and instant power; any other field is not supported */
typedef struct {
    unsigned field, scope;
    long long timestamp, latency;
    unsigned type, result;
    union {
        unsigned ui;
        unsigned long long ull;
    } value;
} field_value;

int nvmlDeviceGetFieldValues(void *device, int count, field_value *values) {
    for (int i = 0; i < count; i++) {
        values[i].result = values[i].field == 185 || values[i].field == 186 ? 0 : 3;
        values[i].type = 1; /* unsigned int */
        values[i].value.ui = (unsigned)(*(const double *)device * 1e3);
    }
    return 0;
}

int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
    double seconds = now(), extra = 0, since = seconds - loaded;
    (void)since;
#ifdef UNSUPPORTED
    if (device == (void *)&watts[1]) return 3; /* not supported */
#endif
#ifdef STILL
    seconds = 5.0;
#endif
#ifdef STOP
    if (since > STOP) seconds = loaded + STOP;
#endif
#ifdef JUMP
    if (since > JUMP) extra = 500e3;
#endif
#ifdef RESET
    if (since > RESET) seconds = since - RESET;
#endif
#ifdef LOST
    if (since > LOST) return 15; /* the board has fallen off the bus */
#endif
#ifdef DIE
    if (since > DIE) raise(SIGSEGV);
#endif
#ifdef LEAVE
    if (since > LEAVE) exit(0);
#endif
#ifdef HANG
    if (since > HANG) sleep(600);
#endif
    /* steps of 20 ms, as real counters move */
    long long steps = (long long)(seconds / 0.02);
    *millijoules = (unsigned long long)(steps * 0.02 * *(const double *)device * 1e3 + extra);
    return 0;
}
