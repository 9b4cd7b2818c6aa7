/* A device whose memory nobody may touch but inside its operations: its pages are closed, so that a stray access
 * crashes. It counts what it is asked for. Its arithmetic is that of the library in host memory, to the bit. */
#ifndef FAKE_DEVICE_H
#define FAKE_DEVICE_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bespoke.h"

#ifndef FAKE_BLOCKS
#define FAKE_BLOCKS 256
#endif
#define FAKE_PAGE 4096

typedef struct {
    char *memory;
    size_t bytes;
} fake_block;

typedef struct {
    fake_block blocks[FAKE_BLOCKS];
    /* How deep the device is open. */
    int open;
    unsigned allocations, releases, launches, copies, answers;
    /* The next operation of this kind fails. */
    int no_memory, no_launch, no_copy;
    /* Does the arithmetic in place of this file's, where it is given. */
    const bespoke_device_ops *inner;
} fake_device;

static inline void fake_fail(const char *why) {
    fprintf(stderr, "the fake device: %s\n", why);
    abort();
}

/* Opens the device's memory, or closes it again. Calls nest. */
static inline void fake_open(fake_device *device, int more) {
    device->open += more;
    if (device->open != (more > 0)) return;
    for (int i = 0; i < FAKE_BLOCKS; i++)
        if (device->blocks[i].memory != NULL &&
            mprotect(device->blocks[i].memory, device->blocks[i].bytes, more > 0 ? PROT_READ | PROT_WRITE : PROT_NONE))
            fake_fail("mprotect");
}

/* `bytes` bytes at `memory` are the device's. Not asked where a program lends memory of its own as the device's, with
 * FAKE_OWNS_NOT_ALL defined. */
static inline void fake_owns(const fake_device *device, const void *memory, uint64_t bytes) {
#ifdef FAKE_OWNS_NOT_ALL
    (void)device, (void)memory, (void)bytes;
    return;
#endif
    for (int i = 0; i < FAKE_BLOCKS; i++) {
        const fake_block *block = &device->blocks[i];
        const uintptr_t from = (uintptr_t)block->memory, at = (uintptr_t)memory;
        if (block->memory != NULL && at >= from && at + bytes <= from + block->bytes) return;
    }
    fake_fail("an operation on memory that is not the device's");
}

static inline int32_t fake_allocate(void *context, uint64_t bytes, void **memory) {
    fake_device *device = (fake_device *)context;
    if (device->no_memory) return 1;
    for (int i = 0; i < FAKE_BLOCKS; i++) {
        fake_block *block = &device->blocks[i];
        if (block->memory != NULL) continue;
        block->bytes = (bytes + FAKE_PAGE - 1) / FAKE_PAGE * FAKE_PAGE;
        void *mapped = mmap(NULL, block->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped == MAP_FAILED) fake_fail("mmap");
        /* What was not written is no number. */
        memset(mapped, 0xff, block->bytes);
        if (device->open == 0 && mprotect(mapped, block->bytes, PROT_NONE)) fake_fail("mprotect");
        block->memory = (char *)mapped;
        *memory = mapped;
        device->allocations++;
        return 0;
    }
    return 1;
}

static inline int32_t fake_release(void *context, void *memory) {
    fake_device *device = (fake_device *)context;
    for (int i = 0; i < FAKE_BLOCKS; i++) {
        if (device->blocks[i].memory != memory) continue;
        munmap(memory, device->blocks[i].bytes);
        device->blocks[i].memory = NULL;
        device->releases++;
        return 0;
    }
    fake_fail("memory is released that is not the device's");
    return 1;
}

static inline float fake_from_half(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    float size = exponent == 0 ? ldexpf((float)fraction, -24) : ldexpf((float)(1024 + fraction), exponent - 25);
    if (exponent == 31) size = fraction == 0 ? INFINITY : NAN;
    return (bits & 0x8000) != 0 ? -size : size;
}

static inline uint16_t fake_to_half(float x) {
    const float size = fabsf(x);
    uint32_t bits = 0x7c00;
    if (isnan(x)) {
        bits = 0x7e00;
    } else if (size < 6.103515625e-05f) {
        bits = (uint32_t)nearbyintf(ldexpf(size, 24));
    } else if (size < 65520.0f) {
        int exponent;
        frexpf(size, &exponent);
        bits = ((uint32_t)(exponent + 14) << 10) + (uint32_t)nearbyintf(ldexpf(size, 11 - exponent)) - 1024;
    }
    return (uint16_t)(bits | (signbit(x) ? 0x8000u : 0u));
}

static inline double fake_get(const void *numbers, DLDataType dtype, uint64_t i) {
    uint32_t word;
    float value;
    if (dtype.bits == 64) return ((const double *)numbers)[i];
    if (dtype.bits == 32) return ((const float *)numbers)[i];
    if (dtype.code == kDLFloat) return fake_from_half(((const uint16_t *)numbers)[i]);
    word = (uint32_t)((const uint16_t *)numbers)[i] << 16;
    memcpy(&value, &word, sizeof value);
    return value;
}

static inline void fake_put(void *numbers, DLDataType dtype, uint64_t i, double value) {
    const float narrow = (float)value;
    uint32_t word;
    if (dtype.bits == 64) {
        ((double *)numbers)[i] = value;
    } else if (dtype.bits == 32) {
        ((float *)numbers)[i] = narrow;
    } else if (dtype.code == kDLFloat) {
        ((uint16_t *)numbers)[i] = fake_to_half(narrow);
    } else {
        memcpy(&word, &narrow, sizeof word);
        ((uint16_t *)numbers)[i] = (uint16_t)(((word | (word >> 16 & 1)) + 0x7fff) >> 16);
    }
}

/* Sums are float32, and of bfloat16 with fused products; of float64 they are float64. */
static inline double fake_sum(const bespoke_device_combination *asked, const bespoke_device_sum *sum, uint64_t i) {
    float narrow = -0.0f;
    double wide = -0.0;
    for (uint32_t t = 0; t < sum->term_count; t++) {
        const bespoke_device_term *term = &asked->terms[sum->first_term + t];
        const double x = term->numbers == NULL ? 1.0 : fake_get(term->numbers, term->dtype, i);
        wide += term->coefficient * x;
        if (sum->dtype.code == kDLBfloat)
            narrow = fmaf((float)term->coefficient, (float)x, narrow);
        else
            narrow += (float)term->coefficient * (float)x;
    }
    return sum->dtype.bits == 64 ? wide : narrow;
}

static inline int32_t fake_combine(void *context, const bespoke_device_combination *asked) {
    fake_device *device = (fake_device *)context;
    int32_t answer = 0;
    if (device->no_launch) return 7;
    device->launches++;
    if (asked->struct_size != sizeof *asked || asked->part_count == 0) fake_fail("an empty launch");
    for (uint32_t p = 0; p < asked->part_count; p++) {
        const bespoke_device_part *part = &asked->parts[p];
        if (part->sum_count < 1 || part->sum_count > 4 || part->first_sum + part->sum_count > asked->sum_count)
            fake_fail("a part of too many sums, or of none");
        for (uint32_t s = 0; s < part->sum_count; s++) {
            const bespoke_device_sum *sum = &asked->sums[part->first_sum + s];
            fake_owns(device, sum->out, part->count * sum->dtype.bits / 8);
            if (sum->dtype.bits != asked->sums->dtype.bits || sum->dtype.code != asked->sums->dtype.code)
                fake_fail("a launch of sums of several types");
            if (sum->term_count < 1 || sum->first_term + sum->term_count > asked->term_count)
                fake_fail("a sum of terms that are not there");
            for (uint32_t t = 0; t < sum->term_count; t++) {
                const bespoke_device_term *term = &asked->terms[sum->first_term + t];
                if (term->numbers != NULL) fake_owns(device, term->numbers, part->count * term->dtype.bits / 8);
            }
        }
    }
    fake_open(device, 1);
    if (device->inner != NULL) {
        answer = device->inner->combine(device->inner->context, asked);
    } else {
        for (uint32_t p = 0; p < asked->part_count; p++) {
            const bespoke_device_part *part = &asked->parts[p];
            const bespoke_device_sum *sums = &asked->sums[part->first_sum];
            for (uint64_t i = 0; i < part->count; i++) {
                double values[4] = {0, 0, 0, 0};
                for (uint32_t s = 0; s < part->sum_count; s++) values[s] = fake_sum(asked, &sums[s], i);
                for (uint32_t s = 0; s < part->sum_count; s++) fake_put(sums[s].out, sums[s].dtype, i, values[s]);
            }
        }
    }
    fake_open(device, -1);
    return answer;
}

static inline int32_t fake_copy(void *context, void *to, const void *from, uint64_t bytes) {
    fake_device *device = (fake_device *)context;
    if (device->no_copy) return 7;
    device->copies++;
    fake_owns(device, to, bytes);
    fake_owns(device, from, bytes);
    fake_open(device, 1);
    memcpy(to, from, bytes);
    fake_open(device, -1);
    return 0;
}

static inline int32_t fake_finite(void *context, const void *numbers, DLDataType dtype, uint64_t rows,
                                  uint64_t elements, uint8_t *finite) {
    fake_device *device = (fake_device *)context;
    int32_t answer = 0;
    device->answers++;
    fake_owns(device, numbers, rows * elements * dtype.bits / 8);
    fake_open(device, 1);
    if (device->inner != NULL) {
        answer = device->inner->finite(device->inner->context, numbers, dtype, rows, elements, finite);
    } else {
        for (uint64_t row = 0; row < rows; row++) {
            finite[row] = 1;
            for (uint64_t i = 0; i < elements; i++)
                if (!isfinite(fake_get(numbers, dtype, row * elements + i))) finite[row] = 0;
        }
    }
    fake_open(device, -1);
    return answer;
}

/* Memory that is had and not released. */
static inline unsigned fake_held(const fake_device *device) { return device->allocations - device->releases; }

/* The device's operations. */
static inline bespoke_device_ops fake_ops(fake_device *device) {
    bespoke_device_ops ops;
    memset(&ops, 0, sizeof ops);
    ops.struct_size = sizeof ops;
    ops.device.device_type = (DLDeviceType)kDLExtDev;
    ops.device.device_id = 3;
    ops.context = device;
    ops.allocate = fake_allocate;
    ops.release = fake_release;
    ops.combine = fake_combine;
    ops.copy = fake_copy;
    ops.finite = fake_finite;
    return ops;
}

#endif
