/* A libbespoke_cuda.so of a GPU that is not there: its memory is closed to the process but inside these functions. */
#define _DEFAULT_SOURCE
#define FAKE_BLOCKS 4096
#include <pthread.h>

#include "bespoke_cuda.h"
#include "fake_device.h"

static fake_device gpu;
static unsigned crossings;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define LOCKED(what)                   \
    do {                               \
        pthread_mutex_lock(&lock);     \
        const int32_t answer = (what); \
        pthread_mutex_unlock(&lock);   \
        return answer;                 \
    } while (0)

static int32_t allocate(void *context, uint64_t bytes, void **memory) { LOCKED(fake_allocate(context, bytes, memory)); }
static int32_t release(void *context, void *memory) { LOCKED(fake_release(context, memory)); }
static int32_t combine(void *context, const bespoke_device_combination *asked) { LOCKED(fake_combine(context, asked)); }
static int32_t copy(void *context, void *to, const void *from, uint64_t bytes) {
    LOCKED(fake_copy(context, to, from, bytes));
}
static int32_t all_finite(void *context, const void *numbers, DLDataType dtype, uint64_t rows, uint64_t elements,
                          uint8_t *answers) {
    LOCKED(fake_finite(context, numbers, dtype, rows, elements, answers));
}

void bespoke_cuda_ops(bespoke_cuda *context, bespoke_device_ops *ops) {
    (void)context;
    *ops = fake_ops(&gpu);
    ops->device.device_type = kDLCUDA;
    ops->device.device_id = context->device;
    ops->allocate = allocate;
    ops->release = release;
    ops->combine = combine;
    ops->copy = copy;
    ops->finite = all_finite;
}

int bespoke_cuda_open(bespoke_cuda *context) {
    context->stream = &gpu;
    return 0;
}

int bespoke_cuda_close(bespoke_cuda *context) { return context->stream == &gpu ? 0 : 1; }
int bespoke_cuda_wait(const bespoke_cuda *context) { return context->stream == &gpu ? 0 : 1; }

static int is_there(const void *memory) {
    for (int i = 0; i < FAKE_BLOCKS; i++) {
        const fake_block *block = &gpu.blocks[i];
        const char *at = memory;
        if (block->memory != NULL && at >= block->memory && at < block->memory + block->bytes) return 1;
    }
    return 0;
}

static int32_t copied(void *to, const void *from, uint64_t bytes) {
    crossings += is_there(to) != is_there(from);
    fake_open(&gpu, 1);
    memcpy(to, from, bytes);
    fake_open(&gpu, -1);
    return 0;
}

int bespoke_cuda_copy(const bespoke_cuda *context, void *to, const void *from, uint64_t bytes) {
    if (context->stream != &gpu) return 1;
    LOCKED(copied(to, from, bytes));
}

/* So far: allocations, launches, copies between host and GPU, and allocations that are held. */
void fake_counts(unsigned *counts) {
    pthread_mutex_lock(&lock);
    counts[0] = gpu.allocations;
    counts[1] = gpu.launches;
    counts[2] = crossings;
    counts[3] = fake_held(&gpu);
    pthread_mutex_unlock(&lock);
}
