/* A stand-in for libnvidia-ml.so.1, so that the real binding (nvidia-ml-py) can be tested without a GPU.
 *
 *     gcc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o DIR/libnvidia-ml.so.1 nvml_replay.c
 *     LD_LIBRARY_PATH=DIR python ...
 *
 * No trace of a real device was at hand when this was written: every value below is synthetic, and the device says so
 * by a name that ends in "(replay)". Structures and numbers are those of nvml.h. What is not defined here comes out
 * of the binding as FunctionNotFound, as with an old driver.
 *
 * Environment:
 *     NVML_REPLAY_INIT=N            nvmlInit returns N (9 DriverNotLoaded, 4 NoPermission, 18 LibRmVersionMismatch)
 *     NVML_REPLAY_GPUS=N            number of GPUs, 2 by default
 *     NVML_REPLAY_LOST_AFTER=N      from the Nth reading of a device on, all return 15 (GpuIsLost)
 *     NVML_REPLAY_FAIL=a:N,b:M      readings named below (power, clock, memory, temperature, energy, fields, processes,
 *                                   uuid) return that number (3 NotSupported, 4 NoPermission)
 *     NVML_REPLAY_PIDS=p,q          processes that compute on every GPU
 *     NVML_REPLAY_USED=BYTES        memory in use, 2 GiB by default
 *     NVML_REPLAY_THROTTLE=i:PERMIL,j:PERMIL  how fast a throttle counter of field i grows, of the wall time
 *     NVML_REPLAY_ENERGY_RESET=1    the energy counter runs backwards
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15 };
enum { TYPE_UNSIGNED_INT = 1, TYPE_UNSIGNED_LONG_LONG = 3 };

#define POWER_W 350
#define CLOCK_MHZ 1700
#define TOTAL_BYTES (141ULL << 30)
#define RESERVED_BYTES (600ULL << 20)

typedef struct { int index; } device_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } process_t;
typedef union { double d; unsigned ui; unsigned long ul; unsigned long long ull; long long sll; } value_t;
typedef struct {
    unsigned field, scope;
    long long timestamp, latency_us;
    unsigned type;
    int status;
    value_t value;
} field_t;

static device_t devices[16];
static int readings;

static unsigned long long setting(const char *name, unsigned long long otherwise) {
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

static int reading(const char *name) {
    if ((unsigned long long)++readings > setting("NVML_REPLAY_LOST_AFTER", 1ULL << 40)) return GPU_IS_LOST;
    return (int)listed("NVML_REPLAY_FAIL", name, SUCCESS);
}

static unsigned long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return (int)setting("NVML_REPLAY_INIT", SUCCESS); }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int status) { (void)status; return "an error of the replay"; }

int nvmlSystemGetDriverVersion(char *text, unsigned length) { snprintf(text, length, "580.00.00"); return SUCCESS; }

int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)setting("NVML_REPLAY_GPUS", 2); return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t **device) {
    if (index >= setting("NVML_REPLAY_GPUS", 2) || index >= 16) return INVALID_ARGUMENT;
    devices[index].index = (int)index;
    *device = &devices[index];
    return SUCCESS;
}

int nvmlDeviceGetUUID(device_t *device, char *text, unsigned length) {
    snprintf(text, length, "GPU-%08d-0000-0000-0000-000000000000", device->index);
    return (int)listed("NVML_REPLAY_FAIL", "uuid", SUCCESS);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, device_t **device) {
    int index;
    if (sscanf(uuid, "GPU-%8d", &index) != 1 || nvmlDeviceGetHandleByIndex_v2((unsigned)index, device)) return NOT_FOUND;
    return SUCCESS;
}

int nvmlDeviceGetName(device_t *device, char *text, unsigned length) {
    (void)device;
    snprintf(text, length, "NVIDIA H200 (replay)");
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(device_t *device, memory_t *memory) {
    (void)device;
    memory->total = TOTAL_BYTES;
    memory->used = setting("NVML_REPLAY_USED", 2ULL << 30) + RESERVED_BYTES;
    memory->free = memory->total - memory->used;
    return reading("memory");
}

int nvmlDeviceGetMemoryInfo_v2(device_t *device, memory_v2_t *memory) {
    (void)device;
    memory->total = TOTAL_BYTES;
    memory->reserved = RESERVED_BYTES;
    memory->used = setting("NVML_REPLAY_USED", 2ULL << 30);
    memory->free = memory->total - memory->used - memory->reserved;
    return reading("memory");
}

int nvmlDeviceGetPowerUsage(device_t *device, unsigned *milliwatts) {
    (void)device;
    *milliwatts = (POWER_W - 50) * 1000;
    return reading("power");
}

int nvmlDeviceGetClockInfo(device_t *device, unsigned kind, unsigned *mhz) {
    (void)device;
    *mhz = kind == 1 ? CLOCK_MHZ : 0;
    return reading("clock");
}

int nvmlDeviceGetTemperature(device_t *device, unsigned sensor, unsigned *celsius) {
    (void)device, (void)sensor;
    *celsius = 61;
    return reading("temperature");
}

int nvmlDeviceGetTotalEnergyConsumption(device_t *device, unsigned long long *millijoules) {
    (void)device;
    unsigned long long spent = now_ns() / 1000000 * POWER_W;
    *millijoules = setting("NVML_REPLAY_ENERGY_RESET", 0) ? (1ULL << 60) - spent : spent;
    return reading("energy");
}

int nvmlDeviceGetFieldValues(device_t *device, int count, field_t *fields) {
    (void)device;
    int status = reading("fields");
    for (int i = 0; i < count; i++) {
        char field[12];
        snprintf(field, sizeof field, "%u", fields[i].field);
        fields[i].status = SUCCESS;
        fields[i].type = TYPE_UNSIGNED_LONG_LONG;
        if (fields[i].field == 186) {
            fields[i].type = TYPE_UNSIGNED_INT;
            fields[i].value.ull = 0xdeadbeef00000000ULL; /* what lies beside a 32-bit value is not part of it */
            fields[i].value.ui = POWER_W * 1000;
            fields[i].status = (int)listed("NVML_REPLAY_FAIL", "power", SUCCESS);
        } else if (fields[i].field == 74 || (fields[i].field >= 269 && fields[i].field <= 271)) {
            fields[i].value.ull = now_ns() / 1000 * (unsigned long long)listed("NVML_REPLAY_THROTTLE", field, 0);
        } else {
            fields[i].status = NOT_SUPPORTED;
        }
    }
    return status;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device_t *device, unsigned *count, process_t *processes) {
    (void)device;
    unsigned room = *count, found = 0;
    int status = reading("processes");
    if (status) return status;
    for (const char *text = getenv("NVML_REPLAY_PIDS"); text && *text;
         text = strchr(text, ',') ? strchr(text, ',') + 1 : NULL, found++)
        if (processes && found < room) {
            memset(&processes[found], 0, sizeof processes[found]);
            processes[found].pid = (unsigned)strtoul(text, NULL, 10);
        }
    *count = found;
    return found && (!processes || found > room) ? INSUFFICIENT_SIZE : SUCCESS;
}
