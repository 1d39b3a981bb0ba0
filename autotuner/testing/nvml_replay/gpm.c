/* GPM: samples, and the metrics between two of them. Included by nvml_replay.c. */

int nvmlGpmQueryDeviceSupport(device_t *device, gpm_support_t *support) {
    u64 values[2] = {support->version, setting("NVML_REPLAY_GPM", 1)};
    int status = reading(device, "gpm-support", 0);
    if (!status && values[1]) status = played("nvmlGpmQueryDeviceSupport", values, 2);
    *support = (gpm_support_t){(unsigned)values[0], (unsigned)values[1]};
    return status;
}

int nvmlGpmSampleAlloc(gpm_sample_t **sample) { return (*sample = calloc(1, sizeof **sample)) ? SUCCESS : NOT_FOUND; }
int nvmlGpmSampleFree(gpm_sample_t *sample) { free(sample); return SUCCESS; }

static int sampled(gpm_sample_t *sample) {
    int status = played("nvmlGpmSampleGet", NULL, 0);
    sample->moment = trace_plays() ? trace_now() : 0;
    return status;
}

int nvmlGpmSampleGet(device_t *device, gpm_sample_t *sample) {
    int status = reading(device, "gpm", 0), in_slices = setting("NVML_REPLAY_MIG", 0) && device->index == 0;
    if (!status && in_slices) status = NOT_SUPPORTED; /* only its slices have samples then */
    return status ? status : sampled(sample);
}

int nvmlGpmMigSampleGet(device_t *device, unsigned instance, gpm_sample_t *sample) {
    int status = reading(device, "gpm", 0);
    if (!status && instance != 7) status = INVALID_ARGUMENT;
    return status ? status : sampled(sample);
}

/* Without a trace: percent and MiB/s that a test can know again. NVLink is not there. */
static double synthetic_metric(unsigned id) {
    return id < 20 ? 5.0 * id : 100.0 * id;
}

int nvmlGpmMetricsGet(gpm_request_t *request) {
    int status = lost();
    if (!status && trace_plays() && trace_part("nvmlGpmMetricsGet"))
        status = atoi(trace_part("nvmlGpmMetricsGet"));
    for (unsigned i = 0; i < request->count && !status; i++) {
        gpm_metric_t *metric = &request->metrics[i];
        metric->value = synthetic_metric(metric->id);
        metric->status = metric->id >= 60 ? NOT_SUPPORTED : SUCCESS;
        if (trace_plays())
            metric->status = trace_gpm(named("nvmlGpmMetricsGet", metric->id, -1), request->first->moment,
                                       request->second->moment, &metric->value);
    }
    return status;
}
