/* The header gives way to an official dlpack.h that came before it. */
#include "dlpack.h"

#include "bespoke.h"

int main(void) {
    DLManagedTensor managed = {{0}, 0, 0};
    return bespoke_sampler_start(0, &managed.dl_tensor) == BESPOKE_ERROR_INVALID ? 0 : 1;
}
