/* NVML itself, its devices, their memory and processes. Included by nvml_replay.c. */

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    trace_load();
    return (int)setting("NVML_REPLAY_INIT", SUCCESS);
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int status) { (void)status; return "an error of the replay"; }

static int text(char *target, unsigned length, const char *word, const char *otherwise) {
    snprintf(target, length, "%s", trace_plays() ? trace_header(word) : otherwise);
    return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *target, unsigned length) { return text(target, length, "driver", "580.00.00"); }
int nvmlSystemGetNVMLVersion(char *target, unsigned length) { return text(target, length, "nvml", "13.580.00"); }

static unsigned gpu_count(void) { return (unsigned)setting("NVML_REPLAY_GPUS", trace_plays() ? 1 : 2); }

int nvmlDeviceGetCount_v2(unsigned *count) { *count = gpu_count(); return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t **device) {
    if (index >= gpu_count() || index >= 16) return INVALID_ARGUMENT;
    devices[index].index = (int)index;
    *device = &devices[index];
    return lost();
}

int nvmlDeviceGetIndex(device_t *device, unsigned *index) { *index = (unsigned)device->index; return SUCCESS; }

int nvmlDeviceGetUUID(device_t *device, char *target, unsigned length) {
    snprintf(target, length, "%s-%08d-0000-0000-0000-000000000000", device->slice ? "MIG" : "GPU", device->index);
    return (int)listed("NVML_REPLAY_FAIL", "uuid", SUCCESS);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, device_t **device) {
    int index;
    if (setting("NVML_REPLAY_MIG", 0) && !strncmp(uuid, "MIG-00000000", 12)) {
        *device = &slice;
        return lost();
    }
    if (sscanf(uuid, "GPU-%8d", &index) != 1) return NOT_FOUND;
    int status = nvmlDeviceGetHandleByIndex_v2((unsigned)index, device);
    return status == INVALID_ARGUMENT ? NOT_FOUND : status;
}

int nvmlDeviceGetName(device_t *device, char *target, unsigned length) {
    const char *name = trace_plays() ? trace_header("name") : "NVIDIA H200", *mark = " (replay)";
    const char *end = strstr(name, mark);
    (void)device;
    snprintf(target, length, "%s%s", name, end && !end[strlen(mark)] ? "" : mark);
    return SUCCESS;
}

int nvmlDeviceGetMigMode(device_t *device, unsigned *current, unsigned *pending) {
    u64 values[2] = {setting("NVML_REPLAY_MIG", 0) && device->index == 0, 0};
    int status = reading(device, "mig", 0);
    if (!status && !values[0]) status = played("nvmlDeviceGetMigMode", values, 2);
    *current = (unsigned)values[0];
    *pending = (unsigned)values[1];
    return status;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device_t *device, device_t **card) {
    if (!device->slice) return INVALID_ARGUMENT;
    return nvmlDeviceGetHandleByIndex_v2(0, card);
}

int nvmlDeviceGetGpuInstanceId(device_t *device, unsigned *instance) {
    *instance = 7;
    return device->slice ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetCudaComputeCapability(device_t *device, int *major, int *minor) {
    u64 values[2] = {9, 0};
    int status = played("nvmlDeviceGetCudaComputeCapability", values, 2);
    (void)device;
    *major = (int)values[0];
    *minor = (int)values[1];
    return status;
}

int nvmlDeviceGetMemoryInfo(device_t *device, memory_t *memory) {
    u64 used = setting("NVML_REPLAY_USED", 2ULL << 30) + RESERVED_BYTES;
    u64 values[3] = {TOTAL_BYTES, TOTAL_BYTES - used, used};
    int status = reading(device, "memory", 1);
    if (!status) status = played("nvmlDeviceGetMemoryInfo", values, 3);
    *memory = (memory_t){values[0], values[1], values[2]};
    return status;
}

int nvmlDeviceGetMemoryInfo_v2(device_t *device, memory_v2_t *memory) {
    u64 used = setting("NVML_REPLAY_USED", 2ULL << 30);
    u64 values[5] = {memory->version, TOTAL_BYTES, RESERVED_BYTES, TOTAL_BYTES - used - RESERVED_BYTES, used};
    int status = reading(device, "memory", 1);
    if (!status) status = played("nvmlDeviceGetMemoryInfo_v2", values, 5);
    *memory = (memory_v2_t){(unsigned)values[0], values[1], values[2], values[3], values[4]};
    return status;
}

/* The process at a place of $NVML_REPLAY_PIDS, or of the trace where that is not set; 0 past the end. */
static int process_at(unsigned place, process_t *process) {
    const char *pids = getenv("NVML_REPLAY_PIDS"), *rest = pids || !trace_plays() ? NULL
        : trace_part("nvmlDeviceGetComputeRunningProcesses_v3");
    memset(process, 0, sizeof *process);
    for (unsigned i = 0; pids && *pids; i++, pids = strchr(pids, ',') ? strchr(pids, ',') + 1 : NULL)
        if (i == place) return (process->pid = (unsigned)strtoul(pids, NULL, 10)), 1;
    if (!rest) return 0;
    char *next;
    strtol(rest, &next, 10);
    for (unsigned i = 0; *next; i++) {
        process->pid = (unsigned)strtoul(next, &next, 10);
        process->used = strtoull(next, &next, 10);
        process->gpu_instance = (unsigned)strtoul(next, &next, 10);
        process->compute_instance = (unsigned)strtoul(next, &next, 10);
        if (i == place) return 1;
    }
    return 0;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device_t *device, unsigned *count, process_t *processes) {
    unsigned room = *count, found = 0;
    process_t process;
    int status = reading(device, "processes", 1);
    if (!status && !processes) status = played("nvmlDeviceGetComputeRunningProcesses_v3", NULL, 0);
    if (status) return status;
    for (; process_at(found, &process); found++)
        if (processes && found < room) processes[found] = process;
    *count = found;
    return found && (!processes || found > room) ? INSUFFICIENT_SIZE : SUCCESS;
}
