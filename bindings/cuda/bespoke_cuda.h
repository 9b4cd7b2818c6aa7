/* Samples that stay on an NVIDIA GPU, or on an AMD one: the table `bespoke_sampler_options.device_ops` by CUDA, or HIP.
 *
 *     bespoke_cuda gpu = {.stream = stream};
 *     bespoke_device_ops ops;
 *     bespoke_cuda_ops(&gpu, &ops);
 *     bespoke_sampler_options options = {.struct_size = sizeof options, .device_ops = &ops};
 *
 * Compile bespoke_cuda.cu into the program, with nvcc or hipcc; it needs nothing but the CUDA runtime. An update is
 * one kernel, whatever the number of its terms and wherever its samples stand in their solvers. Memory is that of
 * cudaMallocAsync. Nothing waits but `bespoke_sampler_finite`, so that a solve can be captured into a graph, once a
 * first one of the same shape has made the sampler's memory, and as long as no update is of more than 128 parts, 256 sums
 * or 900 terms: rows at one stage of one solver are a part, and the lists of a larger update are copied to the GPU before
 * it, which cannot be captured.
 */
#ifndef BESPOKE_CUDA_H
#define BESPOKE_CUDA_H

#include "bespoke.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the operations run on. It must outlive the samplers made with it, and stay where it is. */
typedef struct bespoke_cuda {
    /* The GPU's index. */
    int device;
    /* A cudaStream_t or hipStream_t of that GPU; NULL is the default stream. It may be changed between two calls of a
     * sampler, if the new one waits for the old one. */
    void *stream;
} bespoke_cuda;

/* Fills `ops` with operations on the stream of `gpu`. They answer 0 or a cudaError_t, which is the number in the
 * message of BESPOKE_ERROR_CALLBACK. */
void bespoke_cuda_ops(bespoke_cuda *gpu, bespoke_device_ops *ops);

/* For a program that knows no CUDA itself. They answer as the operations do; all of them wait for what they are asked. */

/* Makes a stream of the GPU `gpu->device`, and puts it into `gpu->stream`. */
int bespoke_cuda_open(bespoke_cuda *gpu);

/* Frees that stream. */
int bespoke_cuda_close(bespoke_cuda *gpu);

/* Waits for what was queued. */
int bespoke_cuda_wait(const bespoke_cuda *gpu);

/* Copies `bytes` bytes from memory of the host or of a GPU to memory of either, behind what was queued. */
int bespoke_cuda_copy(const bespoke_cuda *gpu, void *to, const void *from, uint64_t bytes);

#ifdef __cplusplus
}
#endif

#endif
