/* Plays a trace: which line of it is now, and what it answers. Included by nvml_replay.c.
 *
 * The file is the compact form that the Python side makes of `autotune gpu record`'s JSON lines:
 *     name NVIDIA H200              header: a word, the rest of the line
 *     nvmlDeviceGetMigMode 0 0 0    an answer: question, return code, values; before the first moment it always holds
 *     @ 0.1                         a moment, seconds since the start; its answers follow
 * A moment's answers hold until the next one begins, the last one's for ever.
 */
typedef struct { const char *question, *rest; int asked; } answer_t;
typedef struct { double at_s; int first, count; } moment_t;

static char *trace_text;
static answer_t *trace_answers; /* those of the header come first */
static moment_t *trace_moments;
static int trace_header_count, trace_moment_count, trace_position;
static double trace_begun_s;

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static char *file_text(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    long length = ftell(file);
    rewind(file);
    char *text = calloc((size_t)length + 1, 1);
    if (fread(text, 1, (size_t)length, file) != (size_t)length) text[0] = 0;
    fclose(file);
    return text;
}

static int line_count(const char *text) {
    int count = 1;
    for (; *text; text++) count += *text == '\n';
    return count;
}

/* Read $NVML_REPLAY_TRACE once; its time begins now. */
static void trace_load(void) {
    const char *path = getenv("NVML_REPLAY_TRACE");
    if (trace_text || !path || !(trace_text = file_text(path))) return;
    int room = line_count(trace_text), count = 0;
    trace_answers = calloc((size_t)room, sizeof *trace_answers);
    trace_moments = calloc((size_t)room, sizeof *trace_moments);
    for (char *save, *line = strtok_r(trace_text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *space = strchr(line, ' ');
        if (!space) continue;
        *space = 0;
        if (!strcmp(line, "@")) {
            trace_moments[trace_moment_count++] = (moment_t){strtod(space + 1, NULL), count, 0};
            continue;
        }
        trace_answers[count++] = (answer_t){line, space + 1, 0};
        if (trace_moment_count) trace_moments[trace_moment_count - 1].count++;
        else trace_header_count = count;
    }
    trace_begun_s = now_s();
}

static int trace_plays(void) { return trace_text != NULL; }

static answer_t *trace_find(const char *question, int first, int count) {
    for (int i = first; i < first + count; i++)
        if (!strcmp(trace_answers[i].question, question)) return &trace_answers[i];
    return NULL;
}

static const char *trace_header(const char *word) {
    answer_t *found = trace_find(word, 0, trace_header_count);
    return found ? found->rest : "unknown";
}

/* The moment that is now: by the clock, or in steps ($NVML_REPLAY_STEPS), where trace_answer moves it on. */
static int trace_now(void) {
    if (getenv("NVML_REPLAY_STEPS")) return trace_position;
    while (trace_position + 1 < trace_moment_count &&
           trace_moments[trace_position + 1].at_s <= now_s() - trace_begun_s)
        trace_position++;
    return trace_position;
}

static answer_t *trace_at(int moment, const char *question) {
    return trace_moment_count ? trace_find(question, trace_moments[moment].first, trace_moments[moment].count) : NULL;
}

/* What the trace says now; NULL if nothing. In steps, a moment's first question, asked again, begins the next one. */
static const char *trace_answer(const char *question) {
    answer_t *found = trace_at(trace_now(), question);
    int is_first = found && found == &trace_answers[trace_moments[trace_position].first];
    if (is_first && found->asked++ && getenv("NVML_REPLAY_STEPS") && trace_position + 1 < trace_moment_count) {
        found = trace_at(++trace_position, question);
        if (found) found->asked++;
    }
    if (!found) found = trace_find(question, 0, trace_header_count);
    return found ? found->rest : NULL;
}

/* The same without moving on: parts of an answer that was asked for already. */
static const char *trace_part(const char *question) {
    answer_t *found = trace_at(trace_now(), question);
    return found ? found->rest : NULL;
}

/* A GPM metric between two moments: the mean of the recorded ones, weighted with their time. Returns the status. */
static int trace_gpm(const char *question, int from, int to, double *value) {
    double sum = 0, weight = 0;
    int status = 3;
    *value = 0;
    for (int moment = from < to ? from + 1 : to; moment <= to; moment++) {
        answer_t *found = trace_at(moment, question);
        char *rest;
        if (!found || (status = (int)strtol(found->rest, &rest, 10))) continue;
        double duration_s = moment ? trace_moments[moment].at_s - trace_moments[moment - 1].at_s : 1;
        *value = strtod(rest, NULL);
        sum += *value * duration_s, weight += duration_s;
    }
    if (to - from > 1 && weight > 0) *value = sum / weight; /* a single one stays as it was, to the last bit */
    return weight > 0 ? 0 : status;
}
