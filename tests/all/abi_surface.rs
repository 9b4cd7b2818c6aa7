//! What is kept stable: the exported symbols, and the layout of every struct.
//!
//! Both stand in committed files, mended with `BESPOKE_WRITE_HEADER=1 cargo test --release --test all abi_surface`.
//! A line that is taken away or changed, but for a struct that grew at its end, breaks the ABI.

use crate::native::{Workshop, succeed};
use crate::tree::root;
use bespoke::capi::*;
use std::fmt::Write;
use std::mem::{offset_of, size_of};
use std::process::Command;

/// Compares `found` with the committed file `path`.
fn compare(path: &str, found: &str) {
    let full = root().join(path);
    if std::env::var_os("BESPOKE_WRITE_HEADER").is_some() {
        std::fs::write(&full, found).unwrap();
    }
    let committed = std::fs::read_to_string(&full).unwrap_or_default();
    assert!(
        committed == found,
        "{path} says\n{committed}\nbut the library says\n{found}\nIf the ABI may change so, mend it with\n\n    \
         BESPOKE_WRITE_HEADER=1 cargo test --release --test all abi_surface\n"
    );
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

#[test]
fn the_exported_symbols_are_the_committed_ones() {
    let workshop = Workshop::new();
    let mut command = Command::new("nm");
    command.args(["--dynamic", "--defined-only", "--format=posix"]).arg(workshop.path("libbespoke.so"));
    let listing = succeed(command);
    let mut symbols: Vec<&str> = listing.lines().filter_map(|line| line.split_whitespace().next()).collect();
    symbols.sort_unstable();
    compare("include/bespoke.symbols", &format!("{}\n", symbols.join("\n")));
    let [header, wrapper, promises] = ["include/bespoke.h", "include/bespoke.hpp", "docs/abi.md"]
        .map(|name| std::fs::read_to_string(root().join(name)).unwrap());
    for symbol in symbols {
        assert!(header.contains(&format!("{symbol}(")), "{symbol} is exported, but not in the header");
        // In C++ a callable takes its place.
        let wrapped = symbol == "bespoke_model_field" || words(&wrapper).any(|word| word == symbol);
        assert!(wrapped, "{symbol} is exported, but bespoke.hpp does not use it");
        assert!(promises.contains(&format!("`{symbol}`")), "{symbol} is exported, but docs/abi.md does not name it");
    }
}

macro_rules! layout {
    ($out:ident, $($name:ident { $($field:ident),+ $(,)? })+) => {
        $({
            let _ = writeln!($out, "SIZE({}, {});", stringify!($name), size_of::<$name>());
            $(let _ = writeln!($out, "MEMBER({}, {}, {});", stringify!($name), stringify!($field), offset_of!($name, $field));)+
            // A member that is not named here does not compile.
            #[allow(dead_code)]
            fn complete(value: $name) {
                let $name { $($field: _),+ } = value;
            }
        })+
    };
}

/// The layout as Rust has it, as assertions of a C11 program.
fn layout() -> String {
    let mut out = String::from(
        "/* Sizes and offsets on a 64-bit machine, as the library has them; see tests/all/abi_surface.rs. */\n\
         #include <stddef.h>\n\n#include \"bespoke.h\"\n\n\
         #define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type)\n\
         #define MEMBER(type, member, at) _Static_assert(offsetof(type, member) == (at), #type \".\" #member)\n\n",
    );
    structs(&mut out);
    out.push_str("\nint main(void) { return 0; }\n");
    out
}

fn structs(out: &mut String) {
    layout! { out,
        DLDevice { device_type, device_id }
        DLDataType { code, bits, lanes }
        DLTensor { data, device, ndim, dtype, shape, strides, byte_offset }
        bespoke_sampler_options { struct_size, threads, device_ops, stream }
        bespoke_device_ops { struct_size, reserved, device, context, allocate, release, combine, copy, finite }
        bespoke_device_combination { struct_size, part_count, sum_count, term_count, parts, sums, terms }
        bespoke_device_part { count, first_sum, sum_count }
        bespoke_device_sum { out, dtype, first_term, term_count, reserved }
        bespoke_device_term { numbers, coefficient, dtype, reserved }
        bespoke_row { struct_size, evaluations, nfe, failed }
        bespoke_combination { target, count, velocity, registers, coefficients }
        bespoke_reference { struct_size, kind, file, nfe, name_length, grid_begin }
        bespoke_stage { struct_size, ends_step, self_contained, reserved, t, next, kept }
        bespoke_theta_properties { struct_size, steps, nfe, kept_registers, family, model, training, document, bytes }
        bespoke_velocity_scalars { t, alpha, sigma, x, output, x_dot, output_dot }
        bespoke_model_properties { struct_size, ndim, shape, classes, null_class, data_low, data_high, initial_scale, name, card, shape_names, inputs, scales, input_count, scale_count }
        bespoke_input_properties { name, dtype, ndim, shape, shape_names }
        bespoke_input { name, tensor }
        bespoke_call { struct_size, input_count, time, x, inputs, output, cotangent, by_x, by_t }
        bespoke_condition { struct_size, batch, classes, guidance_scale, inputs, scales, input_count, scale_count, kept }
        bespoke_scale { name, values }
        bespoke_model_binding { struct_size, reserved, model, condition }
        bespoke_train_progress { struct_size, validated, iteration, iterations, loss, validation_rmse, validation_psnr, best_rmse, best_psnr, forward, backward }
        bespoke_train_callbacks { struct_size, reserved, user_data, progress, velocity, vjp }
    }
}

#[cfg(target_pointer_width = "64")]
#[test]
fn the_layout_of_every_struct_is_the_committed_one_on_both_sides() {
    compare("tests/c/layout.c", &layout());
    // Every struct of the header is there.
    let header = std::fs::read_to_string(root().join("include/bespoke.h")).unwrap();
    for line in header.lines().filter(|line| line.starts_with("typedef struct") && line.ends_with('{')) {
        let name = line.split_whitespace().nth(2).unwrap();
        let listed = name == "{" || layout().contains(&format!("SIZE({name}, "));
        assert!(listed, "{name} is not in the layout");
    }
    let workshop = Workshop::new();
    succeed(Command::new(workshop.build("tests/c/layout.c", &["-std=c11"])));
}
