/* Puts the samples of a test program on a fake device: compiled with `-include on_device.h`, every sampler that it makes
 * has one of its own, and what the program gives and takes in host memory is brought there and back. Numbers and messages
 * are to be those of the host, but for what is not finite, which nobody looks for on a device (ON_DEVICE is defined). */
#ifndef ON_DEVICE_H
#define ON_DEVICE_H
#define ON_DEVICE

#if !defined(__cplusplus) && !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE
#endif
#include <pthread.h>

#include "bespoke.h"
#include "fake_device.h"

/* Numbers of a tensor that is brought there at most; others are given as they are, to be refused. */
#define FAR_MOST 65536

typedef struct far_sampler {
    const bespoke_sampler *sampler;
    fake_device device;
    /* What the last query gave, in host memory. */
    DLTensor times, states;
    struct far_sampler *next;
} far_sampler;

static far_sampler *far_samplers = NULL;
static pthread_mutex_t far_lock = PTHREAD_MUTEX_INITIALIZER;

static inline far_sampler *far_find(const bespoke_sampler *sampler) {
    pthread_mutex_lock(&far_lock);
    far_sampler *found = far_samplers;
    while (found != NULL && found->sampler != sampler) found = found->next;
    pthread_mutex_unlock(&far_lock);
    return sampler == NULL ? NULL : found;
}

/* Of another index than the programs' own fake devices. */
static inline bespoke_device_ops far_ops(far_sampler *own) {
    bespoke_device_ops ops = fake_ops(&own->device);
    ops.device.device_id = 4;
    return ops;
}

/* A tensor of the program's, and its copy on the device, where there is one. */
typedef struct {
    DLTensor near, far;
    int there;
} far_tensor;

static inline int64_t far_count(const DLTensor *tensor) {
    int64_t count = 1;
    for (int i = 0; i < tensor->ndim; i++) {
        if (tensor->shape[i] < 1 || tensor->shape[i] > FAR_MOST) return 0;
        count *= tensor->shape[i];
        if (count > FAR_MOST) return 0;
    }
    return count;
}

/* Between the numbers of `tensor`, at its strides, and contiguous ones. */
static inline void far_move(const DLTensor *tensor, char *contiguous, int out) {
    const int64_t count = far_count(tensor), bytes = tensor->dtype.bits / 8;
    for (int64_t i = 0; i < count; i++) {
        int64_t rest = i, at = 0, step = 1;
        for (int axis = tensor->ndim - 1; axis >= 0; axis--) {
            at += rest % tensor->shape[axis] * (tensor->strides != NULL ? tensor->strides[axis] : step);
            rest /= tensor->shape[axis];
            step *= tensor->shape[axis];
        }
        char *number = (char *)tensor->data + tensor->byte_offset + at * bytes;
        memcpy(out ? number : contiguous + i * bytes, out ? contiguous + i * bytes : number, (size_t)bytes);
    }
}

static inline const DLTensor *far_lend(far_sampler *own, const DLTensor *near, far_tensor *made) {
    made->there = 0;
    if (own == NULL || near == NULL || near->data == NULL || near->shape == NULL) return near;
    const int known = near->dtype.code == kDLFloat || near->dtype.code == kDLBfloat;
    if (!known || near->ndim < 1 || near->ndim > 8 || near->device.device_type != kDLCPU || far_count(near) == 0)
        return near;
    made->near = made->far = *near;
    made->there = 1;
    made->far.device = far_ops(own).device;
    made->far.strides = NULL;
    made->far.byte_offset = 0;
    if (fake_allocate(&own->device, (uint64_t)far_count(near) * near->dtype.bits / 8, &made->far.data) != 0)
        fake_fail("no memory");
    fake_open(&own->device, 1);
    far_move(near, (char *)made->far.data, 0);
    fake_open(&own->device, -1);
    return &made->far;
}

static inline void far_end(far_sampler *own, far_tensor *made, int written) {
    if (!made->there) return;
    if (written) {
        fake_open(&own->device, 1);
        far_move(&made->near, (char *)made->far.data, 1);
        fake_open(&own->device, -1);
    }
    fake_release(&own->device, made->far.data);
}

/* A copy in host memory of a tensor of the device. */
static inline DLTensor far_near(far_sampler *own, const DLTensor *far) {
    DLTensor near = *far;
    near.device.device_type = kDLCPU;
    near.device.device_id = 0;
    near.data = malloc((size_t)far_count(far) * far->dtype.bits / 8);
    fake_open(&own->device, 1);
    far_move(far, (char *)near.data, 0);
    fake_open(&own->device, -1);
    return near;
}

/* The program's velocity, which is given copies in host memory. */
typedef struct {
    far_sampler *own;
    bespoke_velocity_fn velocity;
    void *user_data;
} far_call;

static inline int32_t far_velocity(void *user_data, const DLTensor *t, const DLTensor *x, DLTensor *u) {
    const far_call *call = (const far_call *)user_data;
    DLTensor near_t = far_near(call->own, t), near_x = far_near(call->own, x), near_u = far_near(call->own, u);
    const int32_t answer = call->velocity(call->user_data, &near_t, &near_x, &near_u);
    if (answer == 0) {
        fake_open(&call->own->device, 1);
        far_move(u, (char *)near_u.data, 1);
        fake_open(&call->own->device, -1);
    }
    free(near_t.data);
    free(near_x.data);
    free(near_u.data);
    return answer;
}

static inline bespoke_status far_new(const bespoke_theta *theta, const bespoke_sampler_options *options,
                                     bespoke_sampler **out) {
    bespoke_sampler_options there;
    memset(&there, 0, sizeof there);
    if (options != NULL && (options->struct_size != sizeof there || options->device_ops != NULL))
        return bespoke_sampler_new(theta, options, out);
    if (options != NULL) there = *options;
    there.struct_size = sizeof there;
    far_sampler *own = (far_sampler *)calloc(1, sizeof *own);
    const bespoke_device_ops ops = far_ops(own);
    there.device_ops = &ops;
    const bespoke_status status = bespoke_sampler_new(theta, &there, out);
    if (status != BESPOKE_OK) {
        free(own);
        return status;
    }
    own->sampler = *out;
    pthread_mutex_lock(&far_lock);
    own->next = far_samplers;
    far_samplers = own;
    pthread_mutex_unlock(&far_lock);
    return status;
}

static inline void far_free(bespoke_sampler *sampler) {
    far_sampler *own = far_find(sampler);
    bespoke_sampler_free(sampler);
    if (own == NULL) return;
    if (fake_held(&own->device) != 0) fake_fail("memory is left");
    pthread_mutex_lock(&far_lock);
    far_sampler **place = &far_samplers;
    while (*place != own) place = &(*place)->next;
    *place = own->next;
    pthread_mutex_unlock(&far_lock);
    free(own->times.data);
    free(own->states.data);
    free(own);
}

static inline bespoke_status far_step(const bespoke_theta *theta, bespoke_sampler *sampler, uint32_t step, DLTensor *x,
                                      bespoke_velocity_fn velocity, void *user_data) {
    far_sampler *own = far_find(sampler);
    far_tensor there;
    far_call call = {own, velocity, user_data};
    DLTensor *far = (DLTensor *)far_lend(own, x, &there);
    const int by_call = own != NULL && velocity != NULL;
    const bespoke_status status =
        bespoke_step(theta, sampler, step, far, by_call ? far_velocity : velocity, by_call ? &call : user_data);
    far_end(own, &there, status == BESPOKE_OK);
    return status;
}

static inline bespoke_status far_sample(const bespoke_theta *theta, bespoke_sampler *sampler, const DLTensor *x0,
                                        DLTensor *x1, bespoke_velocity_fn velocity, void *user_data) {
    far_sampler *own = far_find(sampler);
    far_tensor from, to;
    far_call call = {own, velocity, user_data};
    const DLTensor *far = far_lend(own, x0, &from);
    DLTensor *end = (DLTensor *)far_lend(own, x1, &to);
    const int by_call = own != NULL && velocity != NULL;
    const bespoke_status status =
        bespoke_sample(theta, sampler, far, end, by_call ? far_velocity : velocity, by_call ? &call : user_data);
    far_end(own, &to, status == BESPOKE_OK);
    far_end(own, &from, 0);
    return status;
}

static inline bespoke_status far_start(bespoke_sampler *sampler, const DLTensor *x0) {
    far_sampler *own = far_find(sampler);
    far_tensor there;
    const bespoke_status status = bespoke_sampler_start(sampler, far_lend(own, x0, &there));
    far_end(own, &there, 0);
    return status;
}

static inline bespoke_status far_join(bespoke_sampler *sampler, const bespoke_theta *theta, const DLTensor *x0) {
    far_sampler *own = far_find(sampler);
    far_tensor there;
    const bespoke_status status = bespoke_sampler_join(sampler, theta, far_lend(own, x0, &there));
    far_end(own, &there, 0);
    return status;
}

static inline bespoke_status far_query(bespoke_sampler *sampler, const DLTensor **t, const DLTensor **x) {
    far_sampler *own = far_find(sampler);
    const bespoke_status status = bespoke_sampler_query(sampler, t, x);
    if (own == NULL || status != BESPOKE_OK || *t == NULL) return status;
    free(own->times.data);
    free(own->states.data);
    own->times = far_near(own, *t);
    own->states = far_near(own, *x);
    *t = &own->times;
    *x = &own->states;
    return status;
}

static inline bespoke_status far_update(bespoke_sampler *sampler, const DLTensor *u) {
    far_sampler *own = far_find(sampler);
    far_tensor there;
    const bespoke_status status = bespoke_sampler_update(sampler, far_lend(own, u, &there));
    far_end(own, &there, 0);
    return status;
}

static inline bespoke_status far_advance(bespoke_sampler *sampler, uint32_t k, const DLTensor *x, const DLTensor *u,
                                         DLTensor *next) {
    far_sampler *own = far_find(sampler);
    far_tensor state, velocity, to;
    const DLTensor *far_x = far_lend(own, x, &state), *far_u = far_lend(own, u, &velocity);
    DLTensor *far_next = next == x ? (DLTensor *)far_x : (DLTensor *)far_lend(own, next, &to);
    if (next == x) to.there = 0;
    const bespoke_status status = bespoke_sampler_advance(sampler, k, far_x, far_u, far_next);
    far_end(own, &to, status == BESPOKE_OK);
    far_end(own, &velocity, 0);
    far_end(own, &state, next == x && status == BESPOKE_OK);
    return status;
}

static inline bespoke_status far_finish(bespoke_sampler *sampler, DLTensor *x) {
    far_sampler *own = far_find(sampler);
    far_tensor there;
    const bespoke_status status = bespoke_sampler_finish(sampler, (DLTensor *)far_lend(own, x, &there));
    far_end(own, &there, status == BESPOKE_OK);
    return status;
}

static inline bespoke_status far_leave(bespoke_sampler *sampler, uint32_t row, DLTensor *x) {
    far_sampler *own = far_find(sampler);
    far_tensor there;
    const bespoke_status status = bespoke_sampler_leave(sampler, row, (DLTensor *)far_lend(own, x, &there));
    far_end(own, &there, status == BESPOKE_OK);
    return status;
}

#define bespoke_sampler_new far_new
#define bespoke_sampler_free far_free
#define bespoke_step far_step
#define bespoke_sample far_sample
#define bespoke_sampler_start far_start
#define bespoke_sampler_join far_join
#define bespoke_sampler_query far_query
#define bespoke_sampler_update far_update
#define bespoke_sampler_advance far_advance
#define bespoke_sampler_finish far_finish
#define bespoke_sampler_leave far_leave

#endif
