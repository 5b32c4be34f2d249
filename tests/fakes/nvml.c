/* A fake NVML with two boards whose counters advance at known power, for the test of the NVML meter. It measures nothing.
   FAKE_NVML=still: counters stand still. FAKE_NVML=unsupported: boards have no energy counter. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const double watts[2] = {100.0, 300.0};

static int mode(const char *name) {
    const char *said = getenv("FAKE_NVML");
    return said && strcmp(said, name) == 0;
}

int nvmlInit_v2(void) { return 0; }
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

int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
    struct timespec now;
    if (mode("unsupported")) return 3;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds = mode("still") ? 5.0 : (double)now.tv_sec + now.tv_nsec * 1e-9;
    /* steps of 20 ms, as real counters move */
    long long steps = (long long)(seconds / 0.02);
    *millijoules = (unsigned long long)(steps * 0.02 * *(const double *)device * 1e3);
    return 0;
}
