//! Query and update through the C ABI, beside a triad of the same bytes.
//!
//!     cargo bench --bench step
//!
//! `bespoke bench step` prints ratios for more sizes. Numbers of bytes are what an evaluation reads and
//! writes, averaged over a solve.
#![allow(
    clippy::expect_used,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    reason = "what fails here is to stop the run"
)]

use bespoke::capi::*;
use bespoke::sampler::Plan;
use bespoke::theta::knots::{Knots, rk1};
use bespoke::theta::{Family, NsTable, Theta};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use std::ffi::CString;
use std::hint::black_box;
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

const FLOAT32: DLDataType = DLDataType { code: 2, bits: 32, lanes: 1 };
const BFLOAT16: DLDataType = DLDataType { code: 4, bits: 16, lanes: 1 };

fn tensor(data: &mut [u64], dtype: DLDataType, shape: &mut [i64]) -> DLTensor {
    DLTensor {
        data: data.as_mut_ptr().cast(),
        device: DLDevice { device_type: 1, device_id: 0 },
        ndim: shape.len() as i32,
        dtype,
        shape: shape.as_mut_ptr(),
        strides: null_mut(),
        byte_offset: 0,
    }
}

fn ok(status: bespoke_status) {
    assert_eq!(status, BESPOKE_OK);
}

/// Eight evaluations of rk1 and rk2, and a table of ten rows that reads all of its velocities.
fn thetas() -> [(&'static str, Theta); 3] {
    let bent = |intervals: usize| {
        let mut knots = Knots::identity(intervals);
        // Away from the identity no coefficient is zero.
        knots.s_dot.iter_mut().for_each(|s_dot| *s_dot = 0.25);
        knots
    };
    let table = NsTable::compile(&rk1(&bent(10)));
    [("rk1", Family::Rk1(bent(8))), ("rk2", Family::Rk2(bent(8))), ("ns", Family::Ns(table))]
        .map(|(name, family)| (name, Theta::new(family).expect("a theta")))
}

fn sampler(theta: &Theta, threads: u32) -> *mut bespoke_sampler {
    let file = tempfile::NamedTempFile::new().expect("a file");
    theta.save(file.path()).expect("a theta file");
    let name = CString::new(file.path().to_string_lossy().into_owned()).expect("a path");
    let options = bespoke_sampler_options {
        struct_size: size_of::<bespoke_sampler_options>() as u32,
        threads,
        device_ops: null(),
        stream: null_mut(),
    };
    let (mut handle, mut sampler) = (null_mut(), null_mut());
    // SAFETY: as the header asks.
    unsafe {
        ok(bespoke_load_theta(name.as_ptr(), &mut handle));
        ok(bespoke_sampler_new(handle, &options, &mut sampler));
        bespoke_theta_free(handle);
    }
    sampler
}

/// Seconds of `evaluations` queries and updates; the starts between solves are not counted.
unsafe fn evaluate(
    sampler: *mut bespoke_sampler,
    state: &DLTensor,
    velocity: &DLTensor,
    mut evaluations: u64,
) -> Duration {
    let mut spent = Duration::ZERO;
    // SAFETY: as the header asks.
    unsafe {
        while evaluations > 0 {
            ok(bespoke_sampler_start(sampler, state));
            let begun = Instant::now();
            while evaluations > 0 {
                let (mut t, mut x) = (null(), null());
                ok(bespoke_sampler_query(sampler, &mut t, &mut x));
                if t.is_null() {
                    break;
                }
                black_box(x);
                ok(bespoke_sampler_update(sampler, velocity));
                evaluations -= 1;
            }
            spent += begun.elapsed();
        }
    }
    spent
}

fn updates(group: &mut BenchmarkGroup<WallTime>, theta: &Theta, dtype: DLDataType, threads: u32, size: usize) {
    let plan = Plan::new(theta.tableau());
    group.throughput(Throughput::Bytes((plan.streams() * size / plan.nfe()) as u64));
    // 2^-7 in both dtypes, or close to it.
    let memory = || vec![0x3c00_3c00_3c00_3c00u64; size / size_of::<u64>()];
    let (mut x, mut u, mut shape) = (memory(), memory(), [1, 8 * size as i64 / i64::from(dtype.bits)]);
    let (state, velocity) = (tensor(&mut x, dtype, &mut shape), tensor(&mut u, dtype, &mut shape));
    let sampler = sampler(theta, threads);
    // SAFETY: as the header asks.
    group
        .bench_function(format!("{}, {threads} threads", if dtype == FLOAT32 { "float32" } else { "bfloat16" }), |b| {
            b.iter_custom(|evaluations| unsafe { evaluate(sampler, &state, &velocity, evaluations) })
        });
    // SAFETY: as the header asks.
    unsafe { bespoke_sampler_free(sampler) };
}

fn triad(group: &mut BenchmarkGroup<WallTime>, size: usize) {
    group.throughput(Throughput::Bytes(3 * size as u64));
    let numbers = size / size_of::<f32>();
    let (mut a, b, c) = (vec![0.0f32; numbers], vec![0.5f32; numbers], vec![1e-3f32; numbers]);
    group.bench_function("triad, 1 thread", |bencher| {
        bencher.iter(|| {
            let scale = black_box(3.0f32);
            a.iter_mut().zip(&b).zip(&c).for_each(|((a, b), c)| *a = b + scale * c);
            black_box(&mut a);
        });
    });
}

fn step(criterion: &mut Criterion) {
    for size in [4 << 10, 1 << 20, 64 << 20] {
        for (name, theta) in thetas() {
            let mut group = criterion.benchmark_group(format!("{name}, {} KiB", size >> 10));
            group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(10);
            for (dtype, threads) in [(FLOAT32, 1), (FLOAT32, 2), (BFLOAT16, 1), (BFLOAT16, 2)] {
                updates(&mut group, &theta, dtype, threads, size);
            }
            triad(&mut group, size);
            group.finish();
        }
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
