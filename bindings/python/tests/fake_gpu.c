/* `bespoke_cuda_ops` of a GPU that is not there: the library's memory is closed to this process but inside the
 * operations, whose arithmetic is that of bindings/cuda, compiled for the host; torch's tensors are the host's. */
#include "bespoke_cuda.h"
#define FAKE_OWNS_NOT_ALL
#include "locked_device.h"

void kernels_ops(bespoke_cuda *gpu, bespoke_device_ops *ops);

static fake_device device;
static bespoke_device_ops kernels;

/* Operations so far: allocations, launches, copies. */
void fake_counts(unsigned *counts) {
    counts[0] = device.allocations;
    counts[1] = device.launches;
    counts[2] = device.copies;
}

void bespoke_cuda_ops(bespoke_cuda *gpu, bespoke_device_ops *ops) {
    kernels_ops(gpu, &kernels);
    device.inner = &kernels;
    *ops = locked_ops(&device);
    ops->device = kernels.device;
}
