/* A libbespoke_cuda.so of a GPU that is not there: its memory is closed to the process but inside these functions. */
#define _DEFAULT_SOURCE
#define FAKE_BLOCKS 4096
#include "bespoke_cuda.h"
#include "locked_device.h"

static fake_device gpu;
static unsigned crossings;

void bespoke_cuda_ops(bespoke_cuda *context, bespoke_device_ops *ops) {
    (void)context;
    *ops = locked_ops(&gpu);
    ops->device.device_type = kDLCUDA;
    ops->device.device_id = context->device;
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
    pthread_mutex_lock(&locked_by);
    counts[0] = gpu.allocations;
    counts[1] = gpu.launches;
    counts[2] = crossings;
    counts[3] = fake_held(&gpu);
    pthread_mutex_unlock(&locked_by);
}
