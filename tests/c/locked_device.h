/* A fake device that serves threads, one at a time: what one closes another may be reading. */
#ifndef LOCKED_DEVICE_H
#define LOCKED_DEVICE_H

#include <pthread.h>

#include "fake_device.h"

static pthread_mutex_t locked_by = PTHREAD_MUTEX_INITIALIZER;

#define LOCKED(what)                      \
    do {                                  \
        pthread_mutex_lock(&locked_by);   \
        const int32_t answer = (what);    \
        pthread_mutex_unlock(&locked_by); \
        return answer;                    \
    } while (0)

static inline int32_t locked_allocate(void *context, uint64_t bytes, void **memory) {
    LOCKED(fake_allocate(context, bytes, memory));
}
static inline int32_t locked_release(void *context, void *memory) { LOCKED(fake_release(context, memory)); }
static inline int32_t locked_combine(void *context, const bespoke_device_combination *asked) {
    LOCKED(fake_combine(context, asked));
}
static inline int32_t locked_copy(void *context, void *to, const void *from, uint64_t bytes) {
    LOCKED(fake_copy(context, to, from, bytes));
}
static inline int32_t locked_finite(void *context, const void *numbers, DLDataType dtype, uint64_t rows,
                                    uint64_t elements, uint8_t *answers) {
    LOCKED(fake_finite(context, numbers, dtype, rows, elements, answers));
}

static inline bespoke_device_ops locked_ops(fake_device *device) {
    bespoke_device_ops ops = fake_ops(device);
    ops.allocate = locked_allocate;
    ops.release = locked_release;
    ops.combine = locked_combine;
    ops.copy = locked_copy;
    ops.finite = locked_finite;
    return ops;
}

#endif
