// What AOTInductor makes of a network u = cos(x) (t + 1/2), written by hand: the library of a package, so that tests
// run one without PyTorch's compiler. x is [batch, n], t [batch]. With -DFAILS every run says why on standard error and
// fails; with -DHUNGRY every run asks for more memory than there is.

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifndef FAILS
#define FAILS 0
#endif
#ifndef HUNGRY
#define HUNGRY 0
#endif

typedef int32_t status;
typedef struct tensor *tensor;
typedef struct container *container;

// Of libtorch, torch/csrc/inductor/aoti_torch/c/shim.h.
int32_t aoti_torch_dtype_float32(void);
int32_t aoti_torch_device_type_cpu(void);
status aoti_torch_get_data_ptr(tensor of, void **data);
status aoti_torch_get_size(tensor of, int64_t dimension, int64_t *size);
status aoti_torch_delete_tensor_object(tensor of);
status aoti_torch_empty_strided(int64_t rank, const int64_t *sizes, const int64_t *strides, int32_t dtype,
                                int32_t device_type, int32_t device_index, tensor *made);

// Nothing but an address that is there.
static char only;

status AOTInductorModelContainerCreateWithDevice(container *made, size_t models, const char *device,
                                                 const char *folder) {
    (void)models, (void)device, (void)folder;
    *made = (container)&only;
    return 0;
}

status AOTInductorModelContainerDelete(container of) {
    (void)of;
    return 0;
}

status AOTInductorModelContainerGetNumOutputs(container of, size_t *count) {
    (void)of;
    *count = 1;
    return 0;
}

status AOTInductorModelContainerGetNumConstants(container of, size_t *count) {
    (void)of;
    *count = 0;
    return 0;
}

status AOTInductorModelContainerGetConstantsBlobSize(container of, uint64_t *size) {
    (void)of;
    *size = 0;
    return 0;
}

status AOTInductorModelContainerGetCallSpec(container of, const char **in, const char **out) {
    (void)of;
    *in = *out = "";
    return 0;
}

static status velocity(tensor x, tensor t, tensor *made) {
    int64_t sizes[2];
    float *state = NULL, *time = NULL, *out = NULL;
    for (int64_t i = 0; i < 2; i++)
        if (aoti_torch_get_size(x, i, &sizes[i]) != 0) return 1;
    if (HUNGRY) sizes[0] = (int64_t)1 << 48;
    const int64_t strides[2] = {sizes[1], 1};
    const int32_t dtype = aoti_torch_dtype_float32(), cpu = aoti_torch_device_type_cpu();
    if (aoti_torch_empty_strided(2, sizes, strides, dtype, cpu, 0, made) != 0) return 1;
    if (aoti_torch_get_data_ptr(x, (void **)&state) != 0 || aoti_torch_get_data_ptr(t, (void **)&time) != 0) return 1;
    if (aoti_torch_get_data_ptr(*made, (void **)&out) != 0) return 1;
    for (int64_t i = 0; i < sizes[0] * sizes[1]; i++) out[i] = cosf(state[i]) * (time[i / sizes[1]] + 0.5f);
    return 0;
}

status AOTInductorModelContainerRun(container of, tensor *inputs, size_t input_count, tensor *outputs,
                                    size_t output_count, void *stream, void *executor) {
    (void)of, (void)output_count, (void)stream, (void)executor;
    if (FAILS) fprintf(stderr, "Error: the network has had enough\n");
    const status failed = FAILS ? 1 : velocity(inputs[0], inputs[1], &outputs[0]);
    // The inputs are this function's.
    for (size_t i = 0; i < input_count; i++) aoti_torch_delete_tensor_object(inputs[i]);
    return failed;
}

// What there is of constants, of which this network has none.
#define NOTHING(name) \
    status name(void) { return 0; }
NOTHING(AOTInductorModelContainerGetConstantName)
NOTHING(AOTInductorModelContainerGetConstantOriginalFQN)
NOTHING(AOTInductorModelContainerGetConstantDtype)
NOTHING(AOTInductorModelContainerExtractConstantsMap)
NOTHING(AOTInductorModelContainerUpdateUserManagedConstantBuffer)
NOTHING(AOTInductorModelContainerUpdateConstantBuffer)
NOTHING(AOTInductorModelContainerUpdateInactiveConstantBuffer)
NOTHING(AOTInductorModelContainerRunConstantFolding)
NOTHING(AOTInductorModelContainerSwapConstantBuffer)
NOTHING(AOTInductorModelContainerFreeInactiveConstantBuffer)
NOTHING(AOTInductorModelUpdateConstantsFromBlob)
