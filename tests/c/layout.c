/* Sizes and offsets on a 64-bit machine, as the library has them; see tests/all/abi_surface.rs. */
#include <stddef.h>

#include "bespoke.h"

#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type)
#define MEMBER(type, member, at) _Static_assert(offsetof(type, member) == (at), #type "." #member)

SIZE(DLDevice, 8);
MEMBER(DLDevice, device_type, 0);
MEMBER(DLDevice, device_id, 4);
SIZE(DLDataType, 4);
MEMBER(DLDataType, code, 0);
MEMBER(DLDataType, bits, 1);
MEMBER(DLDataType, lanes, 2);
SIZE(DLTensor, 48);
MEMBER(DLTensor, data, 0);
MEMBER(DLTensor, device, 8);
MEMBER(DLTensor, ndim, 16);
MEMBER(DLTensor, dtype, 20);
MEMBER(DLTensor, shape, 24);
MEMBER(DLTensor, strides, 32);
MEMBER(DLTensor, byte_offset, 40);
SIZE(bespoke_sampler_options, 8);
MEMBER(bespoke_sampler_options, struct_size, 0);
MEMBER(bespoke_sampler_options, threads, 4);
SIZE(bespoke_row, 16);
MEMBER(bespoke_row, struct_size, 0);
MEMBER(bespoke_row, evaluations, 4);
MEMBER(bespoke_row, nfe, 8);
MEMBER(bespoke_row, failed, 12);
SIZE(bespoke_combination, 32);
MEMBER(bespoke_combination, x, 0);
MEMBER(bespoke_combination, u, 8);
MEMBER(bespoke_combination, evaluations, 16);
MEMBER(bespoke_combination, count, 24);
MEMBER(bespoke_combination, reserved, 28);
SIZE(bespoke_stage, 88);
MEMBER(bespoke_stage, struct_size, 0);
MEMBER(bespoke_stage, base_rule, 4);
MEMBER(bespoke_stage, ends_step, 8);
MEMBER(bespoke_stage, reserved, 12);
MEMBER(bespoke_stage, t, 16);
MEMBER(bespoke_stage, next, 24);
MEMBER(bespoke_stage, base, 56);
SIZE(bespoke_theta_properties, 48);
MEMBER(bespoke_theta_properties, struct_size, 0);
MEMBER(bespoke_theta_properties, steps, 4);
MEMBER(bespoke_theta_properties, nfe, 8);
MEMBER(bespoke_theta_properties, kept_velocities, 12);
MEMBER(bespoke_theta_properties, family, 16);
MEMBER(bespoke_theta_properties, model, 24);
MEMBER(bespoke_theta_properties, training, 32);
MEMBER(bespoke_theta_properties, document, 40);
SIZE(bespoke_velocity_scalars, 56);
MEMBER(bespoke_velocity_scalars, t, 0);
MEMBER(bespoke_velocity_scalars, alpha, 8);
MEMBER(bespoke_velocity_scalars, sigma, 16);
MEMBER(bespoke_velocity_scalars, x, 24);
MEMBER(bespoke_velocity_scalars, output, 32);
MEMBER(bespoke_velocity_scalars, x_dot, 40);
MEMBER(bespoke_velocity_scalars, output_dot, 48);
SIZE(bespoke_model_properties, 72);
MEMBER(bespoke_model_properties, struct_size, 0);
MEMBER(bespoke_model_properties, ndim, 4);
MEMBER(bespoke_model_properties, shape, 8);
MEMBER(bespoke_model_properties, classes, 16);
MEMBER(bespoke_model_properties, null_class, 24);
MEMBER(bespoke_model_properties, data_low, 32);
MEMBER(bespoke_model_properties, data_high, 40);
MEMBER(bespoke_model_properties, initial_scale, 48);
MEMBER(bespoke_model_properties, name, 56);
MEMBER(bespoke_model_properties, card, 64);
SIZE(bespoke_condition, 24);
MEMBER(bespoke_condition, struct_size, 0);
MEMBER(bespoke_condition, batch, 4);
MEMBER(bespoke_condition, classes, 8);
MEMBER(bespoke_condition, guidance_scale, 16);
SIZE(bespoke_model_binding, 24);
MEMBER(bespoke_model_binding, struct_size, 0);
MEMBER(bespoke_model_binding, reserved, 4);
MEMBER(bespoke_model_binding, model, 8);
MEMBER(bespoke_model_binding, condition, 16);
SIZE(bespoke_train_progress, 80);
MEMBER(bespoke_train_progress, struct_size, 0);
MEMBER(bespoke_train_progress, validated, 4);
MEMBER(bespoke_train_progress, iteration, 8);
MEMBER(bespoke_train_progress, iterations, 16);
MEMBER(bespoke_train_progress, loss, 24);
MEMBER(bespoke_train_progress, validation_rmse, 32);
MEMBER(bespoke_train_progress, validation_psnr, 40);
MEMBER(bespoke_train_progress, best_rmse, 48);
MEMBER(bespoke_train_progress, best_psnr, 56);
MEMBER(bespoke_train_progress, forward, 64);
MEMBER(bespoke_train_progress, backward, 72);
SIZE(bespoke_train_callbacks, 40);
MEMBER(bespoke_train_callbacks, struct_size, 0);
MEMBER(bespoke_train_callbacks, reserved, 4);
MEMBER(bespoke_train_callbacks, user_data, 8);
MEMBER(bespoke_train_callbacks, progress, 16);
MEMBER(bespoke_train_callbacks, velocity, 24);
MEMBER(bespoke_train_callbacks, vjp, 32);

int main(void) { return 0; }
