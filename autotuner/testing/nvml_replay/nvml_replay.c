/* A stand-in for libnvidia-ml.so.1, so that the real binding (nvidia-ml-py) can be tested without a GPU.
 *
 * It plays a trace that `autotune gpu record` wrote, or, without one, the synthetic values below. The device says so by
 * a name that ends in "(replay)". Structures and numbers are those of nvml.h. What is not defined here comes out of the
 * binding as FunctionNotFound, as with an old driver; what a trace does not hold is NotSupported.
 *
 * Environment:
 *     NVML_REPLAY_TRACE=FILE        the compact form of a trace; see trace.c
 *     NVML_REPLAY_STEPS=1           it moves on when a moment's first question is asked again, not with the clock
 *     NVML_REPLAY_INIT=N            nvmlInit returns N (9 DriverNotLoaded, 4 NoPermission, 18 LibRmVersionMismatch)
 *     NVML_REPLAY_GPUS=N            number of GPUs; by default 2, of a trace 1
 *     NVML_REPLAY_LOST_AFTER=N      from the Nth reading of a device on, all return 15 (GpuIsLost)
 *     NVML_REPLAY_LOST_IF=FILE      the same while this file exists, so that another process can take the GPU away
 *     NVML_REPLAY_LOST_CODE=N       N in place of 15 (16 ResetRequired)
 *     NVML_REPLAY_FAIL=a:N,b:M      readings named below (power, clock, memory, temperature, energy, fields, field-74,
 *                                   processes, uuid, busy, pcie, ecc, violation, reasons, mig, gpm-support, gpm) return
 *                                   that number (3 NotSupported, 4 NoPermission)
 *     NVML_REPLAY_MIG=1             GPU 0 is divided: its one slice is MIG-00000000-0000-0000-0000-000000000000
 *     NVML_REPLAY_GPM=0             GPM is not supported, as before Hopper
 *     NVML_REPLAY_PIDS=p,q          processes that compute on every GPU
 *     NVML_REPLAY_USED=BYTES        memory in use, 2 GiB by default
 *     NVML_REPLAY_THROTTLE=i:PERMIL,j:PERMIL  how fast the throttle counter of field i, or of a policy as policy-i,
 *                                   grows, of the wall time
 *     NVML_REPLAY_REASONS=MASK      reasons that hold clocks back now
 *     NVML_REPLAY_ECC=RATE          uncorrected memory errors a second
 *     NVML_REPLAY_ENERGY_RESET=1    the energy counter runs backwards
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "trace.c"

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15 };
enum { TYPE_DOUBLE = 0, TYPE_UNSIGNED_INT = 1, TYPE_UNSIGNED_LONG_LONG = 3 };

#define POWER_W 350
#define TOTAL_BYTES (141ULL << 30)
#define RESERVED_BYTES (600ULL << 20)

typedef unsigned long long u64;
typedef struct { int index, slice; } device_t;
typedef struct { u64 total, free, used; } memory_t;
typedef struct { unsigned version; u64 total, reserved, free, used; } memory_v2_t;
typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } process_t;
typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { u64 reference_us, violation_ns; } violation_t;
typedef union { double d; unsigned ui; unsigned long ul; u64 ull; long long sll; } value_t;
typedef struct {
    unsigned field, scope;
    long long timestamp, latency_us;
    unsigned type;
    int status;
    value_t value;
} field_t;
typedef struct { int moment; } gpm_sample_t;
typedef struct { unsigned id; int status; double value; const char *names[3]; } gpm_metric_t;
typedef struct { unsigned version, count; gpm_sample_t *first, *second; gpm_metric_t metrics[]; } gpm_request_t;
typedef struct { unsigned version, supported; } gpm_support_t;

static device_t devices[16], slice = {0, 1};
static int readings;

static u64 setting(const char *name, u64 otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* The number after "key:" in a list "a:1,b:2", or otherwise. */
static long listed(const char *name, const char *key, long otherwise) {
    const char *text = getenv(name);
    size_t length = strlen(key);
    for (; text && *text; text = strchr(text, ',') ? strchr(text, ',') + 1 : NULL)
        if (!strncmp(text, key, length) && text[length] == ':') return strtol(text + length + 1, NULL, 10);
    return otherwise;
}

static int lost(void) {
    const char *marker = getenv("NVML_REPLAY_LOST_IF");
    int gone = (marker && !access(marker, F_OK)) || (u64)readings > setting("NVML_REPLAY_LOST_AFTER", 1ULL << 40);
    return gone ? (int)setting("NVML_REPLAY_LOST_CODE", GPU_IS_LOST) : SUCCESS;
}

/* The status of a reading that is asked for by name, faults included; slices have only a part of them. */
static int reading(const device_t *device, const char *name, int slice_has_it) {
    readings++;
    int status = lost();
    if (status) return status;
    if (!device) return INVALID_ARGUMENT;
    return device->slice && !slice_has_it ? NOT_SUPPORTED : (int)listed("NVML_REPLAY_FAIL", name, SUCCESS);
}

/* Whole numbers that a trace answers, in place of what stands in `values`; the status. */
static int played(const char *question, u64 *values, int count) {
    if (!trace_plays()) return SUCCESS;
    const char *rest = trace_answer(question);
    if (!rest) return NOT_SUPPORTED;
    char *next;
    int status = (int)strtol(rest, &next, 10);
    for (int i = 0; i < count && *next; i++) values[i] = strtoull(next, &next, 10);
    return status;
}

/* A question with one number for an answer. */
static int number(const device_t *device, const char *name, const char *question, u64 *value) {
    int status = reading(device, name, 0);
    return status ? status : played(question, value, 1);
}

static const char *named(const char *function, unsigned first, int second) {
    static __thread char question[96];
    if (second < 0) snprintf(question, sizeof question, "%s:%u", function, first);
    else snprintf(question, sizeof question, "%s:%u:%d", function, first, second);
    return question;
}

static u64 now_ns(void) { return (u64)(now_s() * 1e9); }

#include "system.c"

int nvmlDeviceGetPowerUsage(device_t *device, unsigned *milliwatts) {
    u64 value = (POWER_W - 50) * 1000;
    int status = number(device, "power", "nvmlDeviceGetPowerUsage", &value);
    *milliwatts = (unsigned)value;
    return status;
}

int nvmlDeviceGetEnforcedPowerLimit(device_t *device, unsigned *milliwatts) {
    u64 value = 700000;
    int status = number(device, "power", "nvmlDeviceGetEnforcedPowerLimit", &value);
    *milliwatts = (unsigned)value;
    return status;
}

int nvmlDeviceGetClockInfo(device_t *device, unsigned kind, unsigned *mhz) {
    u64 value = kind == 1 ? 1700 : 3201;
    int status = number(device, "clock", named("nvmlDeviceGetClockInfo", kind, -1), &value);
    *mhz = (unsigned)value;
    return status;
}

int nvmlDeviceGetMaxClockInfo(device_t *device, unsigned kind, unsigned *mhz) {
    u64 value = kind == 1 ? 1980 : 3201;
    int status = number(device, "clock", named("nvmlDeviceGetMaxClockInfo", kind, -1), &value);
    *mhz = (unsigned)value;
    return status;
}

int nvmlDeviceGetTemperature(device_t *device, unsigned sensor, unsigned *celsius) {
    u64 value = 61;
    int status = number(device, "temperature", named("nvmlDeviceGetTemperature", sensor, -1), &value);
    *celsius = (unsigned)value;
    return status;
}

int nvmlDeviceGetTotalEnergyConsumption(device_t *device, u64 *millijoules) {
    u64 spent = now_ns() / 1000000 * POWER_W;
    *millijoules = setting("NVML_REPLAY_ENERGY_RESET", 0) ? (1ULL << 60) - spent : spent;
    return number(device, "energy", "nvmlDeviceGetTotalEnergyConsumption", millijoules);
}

int nvmlDeviceGetPcieThroughput(device_t *device, unsigned direction, unsigned *kilobytes_per_s) {
    u64 value = direction ? 3000000 : 2000000;
    usleep(20000); /* as long as the driver measures */
    int status = number(device, "pcie", named("nvmlDeviceGetPcieThroughput", direction, -1), &value);
    *kilobytes_per_s = (unsigned)value;
    return status;
}

int nvmlDeviceGetCurrentClocksEventReasons(device_t *device, u64 *mask) {
    *mask = setting("NVML_REPLAY_REASONS", 0);
    return number(device, "reasons", "nvmlDeviceGetCurrentClocksEventReasons", mask);
}

int nvmlDeviceGetTotalEccErrors(device_t *device, unsigned error, unsigned counter, u64 *count) {
    *count = error ? (u64)(now_s() * (double)setting("NVML_REPLAY_ECC", 0)) : 0;
    return number(device, "ecc", named("nvmlDeviceGetTotalEccErrors", error, (int)counter), count);
}

int nvmlDeviceGetUtilizationRates(device_t *device, utilization_t *rates) {
    u64 values[2] = {90, 40};
    int status = reading(device, "busy", 0);
    if (!status) status = played("nvmlDeviceGetUtilizationRates", values, 2);
    *rates = (utilization_t){(unsigned)values[0], (unsigned)values[1]};
    return status;
}

int nvmlDeviceGetViolationStatus(device_t *device, unsigned policy, violation_t *violation) {
    char key[24];
    snprintf(key, sizeof key, "policy-%u", policy);
    u64 values[2] = {now_ns() / 1000, now_ns() / 1000 * (u64)listed("NVML_REPLAY_THROTTLE", key, 0)};
    int status = reading(device, "violation", 0);
    if (!status) status = played(named("nvmlDeviceGetViolationStatus", policy, -1), values, 2);
    *violation = (violation_t){values[0], values[1]};
    return status;
}

/* A number as text, by its type. */
static value_t parsed(unsigned type, const char *text) {
    value_t value = {.ull = 0};
    if (type == TYPE_DOUBLE) value.d = strtod(text, NULL);
    else if (type == TYPE_UNSIGNED_INT) value.ui = (unsigned)strtoul(text, NULL, 10);
    else value.ull = strtoull(text, NULL, 10); /* negative ones wrap to the same bits */
    return value;
}

static void played_field(field_t *field) {
    const char *rest = trace_part(named("nvmlDeviceGetFieldValues", field->field, -1));
    char *next;
    field->status = NOT_SUPPORTED;
    if (!rest) return;
    field->status = (int)strtol(rest, &next, 10);
    field->type = (unsigned)strtoul(next, &next, 10);
    field->value = parsed(field->type, next);
}

static void synthetic_field(field_t *field) {
    char number_text[12];
    snprintf(number_text, sizeof number_text, "%u", field->field);
    field->status = SUCCESS;
    field->type = TYPE_UNSIGNED_LONG_LONG;
    switch (field->field) {
    case 186:
        field->type = TYPE_UNSIGNED_INT;
        field->value.ull = 0xdeadbeef00000000ULL; /* what lies beside a 32-bit value is not part of it */
        field->value.ui = POWER_W * 1000;
        field->status = (int)listed("NVML_REPLAY_FAIL", "power", SUCCESS);
        break;
    case 74: case 76: case 269: case 270: case 271:
        field->value.ull = now_ns() / 1000 * (u64)listed("NVML_REPLAY_THROTTLE", number_text, 0);
        break;
    case 197: case 198: /* PCIe: bytes sent and received */
        field->value.ull = now_ns() * (field->field - 195);
        break;
    default:
        field->status = NOT_SUPPORTED;
    }
}

int nvmlDeviceGetFieldValues(device_t *device, int count, field_t *fields) {
    int status = reading(device, "fields", 0);
    if (!status) status = played("nvmlDeviceGetFieldValues", NULL, 0);
    for (int i = 0; i < count && !status; i++) {
        char key[24];
        snprintf(key, sizeof key, "field-%u", fields[i].field);
        if (trace_plays()) played_field(&fields[i]);
        else synthetic_field(&fields[i]);
        fields[i].status = (int)listed("NVML_REPLAY_FAIL", key, fields[i].status);
    }
    return status;
}

#include "gpm.c"
