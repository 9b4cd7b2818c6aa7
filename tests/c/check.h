/* What the test programs share. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bespoke.h"
#include "bespoke.h" /* twice does no harm */

#define CHECK(condition)                                                                   \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            fprintf(stderr, "%s:%d: %s; last error: %s\n", __FILE__, __LINE__, #condition, \
                    bespoke_last_error_message());                                         \
            exit(1);                                                                       \
        }                                                                                  \
    } while (0)

/* The call answers `expected`, and its message starts with `text`. */
#define FAILS(call, expected, text)                                                                         \
    do {                                                                                                    \
        bespoke_status status_ = (call);                                                                    \
        if (status_ != (expected) || strncmp(bespoke_last_error_message(), (text), strlen(text)) != 0) {    \
            fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call, bespoke_status_name(status_), \
                    bespoke_last_error_message());                                                          \
            exit(1);                                                                                        \
        }                                                                                                   \
    } while (0)

#define OK(call) CHECK((call) == BESPOKE_OK)

/* A contiguous float32 tensor. */
static inline DLTensor tensor(float *data, int64_t *shape, int rank) {
    DLTensor made;
    memset(&made, 0, sizeof made);
    made.data = data;
    made.device.device_type = kDLCPU;
    made.ndim = rank;
    made.dtype.code = kDLFloat;
    made.dtype.bits = 32;
    made.dtype.lanes = 1;
    made.shape = shape;
    return made;
}

/* u_t(x) = -x */
static inline int32_t decay(void *user_data, const DLTensor *t, const DLTensor *x, DLTensor *u) {
    int64_t numbers = 1;
    (void)user_data;
    (void)t;
    for (int i = 0; i < x->ndim; i++) numbers *= x->shape[i];
    for (int64_t i = 0; i < numbers; i++) ((float *)u->data)[i] = -((const float *)x->data)[i];
    return 0;
}

#endif
