/* A libbespoke_cuda.so of a GPU that is not there: its memory is closed to the process but inside these functions, and its
 * streams do nothing before somebody waits for them, as late as a GPU may. */
#define _DEFAULT_SOURCE
#define FAKE_BLOCKS 4096
#include "bespoke_cuda.h"
#include "locked_device.h"

/* What a stream is to do: the combination, else the copy, else the release of `to`. */
typedef struct operation {
    struct operation *next;
    bespoke_device_combination *combination;
    void *to;
    const void *from;
    uint64_t bytes;
} operation;

typedef struct {
    operation *first, **last;
} stream;

static fake_device gpu;
static unsigned crossings;

static stream *stream_of(const void *context) { return (stream *)((const bespoke_cuda *)context)->stream; }

static void *made(size_t count, size_t bytes) {
    void *memory = calloc(count, bytes);
    if (memory == NULL) fake_fail("no memory");
    return memory;
}

static void *copy_of(const void *from, size_t bytes) { return memcpy(made(1, bytes), from, bytes); }

static operation *queue(stream *on) {
    operation *one = (operation *)made(1, sizeof *one);
    *on->last = one;
    on->last = &one->next;
    return one;
}

static int32_t queue_combine(void *context, const bespoke_device_combination *asked) {
    bespoke_device_combination *own = (bespoke_device_combination *)copy_of(asked, sizeof *asked);
    own->parts = (bespoke_device_part *)copy_of(asked->parts, asked->part_count * sizeof *asked->parts);
    own->sums = (bespoke_device_sum *)copy_of(asked->sums, asked->sum_count * sizeof *asked->sums);
    own->terms = (bespoke_device_term *)copy_of(asked->terms, asked->term_count * sizeof *asked->terms);
    queue(stream_of(context))->combination = own;
    return 0;
}

static int32_t queue_copy(void *context, void *to, const void *from, uint64_t bytes) {
    operation *copy = queue(stream_of(context));
    copy->to = to;
    copy->from = from;
    copy->bytes = bytes;
    return 0;
}

static int32_t queue_release(void *context, void *memory) {
    queue(stream_of(context))->to = memory;
    return 0;
}

static int32_t run(const operation *one) {
    if (one->combination != NULL) return fake_combine(&gpu, one->combination);
    return one->from != NULL ? fake_copy(&gpu, one->to, one->from, one->bytes) : fake_release(&gpu, one->to);
}

/* Does what is queued; the first answer that is not 0. */
static int32_t waited(stream *on) {
    int32_t answer = 0;
    for (operation *one = on->first; one != NULL;) {
        operation *next = one->next;
        const int32_t own = run(one);
        if (answer == 0) answer = own;
        if (one->combination != NULL) {
            free((void *)one->combination->parts);
            free((void *)one->combination->sums);
            free((void *)one->combination->terms);
            free(one->combination);
        }
        free(one);
        one = next;
    }
    on->first = NULL;
    on->last = &on->first;
    return answer;
}

static int32_t looked(void *context, const void *numbers, DLDataType dtype, uint64_t rows, uint64_t elements,
                      uint8_t *answers) {
    const int32_t answer = waited(stream_of(context));
    return answer != 0 ? answer : fake_finite(&gpu, numbers, dtype, rows, elements, answers);
}

static int is_there(const void *memory) {
    for (int i = 0; i < FAKE_BLOCKS; i++) {
        const fake_block *block = &gpu.blocks[i];
        const char *at = memory;
        if (block->memory != NULL && at >= block->memory && at < block->memory + block->bytes) return 1;
    }
    return 0;
}

static int32_t copied(stream *behind, void *to, const void *from, uint64_t bytes) {
    const int32_t answer = waited(behind);
    crossings += is_there(to) != is_there(from);
    fake_open(&gpu, 1);
    memcpy(to, from, bytes);
    fake_open(&gpu, -1);
    return answer;
}

static int32_t gpu_allocate(void *context, uint64_t bytes, void **memory) {
    (void)context;
    LOCKED(fake_allocate(&gpu, bytes, memory));
}
static int32_t gpu_release(void *context, void *memory) { LOCKED(queue_release(context, memory)); }
static int32_t gpu_combine(void *context, const bespoke_device_combination *asked) {
    LOCKED(queue_combine(context, asked));
}
static int32_t gpu_copy(void *context, void *to, const void *from, uint64_t bytes) {
    LOCKED(queue_copy(context, to, from, bytes));
}
static int32_t gpu_finite(void *context, const void *numbers, DLDataType dtype, uint64_t rows, uint64_t elements,
                          uint8_t *answers) {
    LOCKED(looked(context, numbers, dtype, rows, elements, answers));
}

void bespoke_cuda_ops(bespoke_cuda *context, bespoke_device_ops *ops) {
    const bespoke_device_ops own = {.struct_size = sizeof own,
                                    .device = {kDLCUDA, context->device},
                                    .context = context,
                                    .allocate = gpu_allocate,
                                    .release = gpu_release,
                                    .combine = gpu_combine,
                                    .copy = gpu_copy,
                                    .finite = gpu_finite};
    *ops = own;
}

int bespoke_cuda_open(bespoke_cuda *context) {
    stream *opened = (stream *)made(1, sizeof *opened);
    opened->last = &opened->first;
    context->stream = opened;
    return 0;
}

int bespoke_cuda_wait(const bespoke_cuda *context) { LOCKED(waited(stream_of(context))); }

int bespoke_cuda_close(bespoke_cuda *context) {
    const int answer = bespoke_cuda_wait(context);
    free(context->stream);
    context->stream = NULL;
    return answer;
}

int bespoke_cuda_copy(const bespoke_cuda *context, void *to, const void *from, uint64_t bytes) {
    LOCKED(copied(stream_of(context), to, from, bytes));
}

/* So far: allocations, launches, copies between host and GPU, and allocations that are held. */
void fake_counts(unsigned *counts) {
    pthread_mutex_lock(&locked_by);
    counts[0] = gpu.allocations;
    counts[1] = gpu.launches;
    counts[2] = crossings;
    counts[3] = fake_held(&gpu);
    pthread_mutex_unlock(&locked_by);
}
