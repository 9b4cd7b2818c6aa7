//! Query and update through the C ABI, beside a triad of the same bytes.
//!
//!     cargo bench --bench step
//!
//! `bespoke bench step` prints the same as a table of ratios.

use bespoke::capi::*;
use bespoke::solvers::bespoke::Knots;
use bespoke::theta::{Family, Theta};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::ffi::CString;
use std::hint::black_box;
use std::ptr::{null, null_mut};

/// An evaluation of RK1 reads the state and the velocity, and writes the state.
const STREAMS: usize = 3;

fn tensor(data: &mut [f32], shape: &mut [i64]) -> DLTensor {
    DLTensor {
        data: data.as_mut_ptr().cast(),
        device: DLDevice { device_type: 1, device_id: 0 },
        ndim: shape.len() as i32,
        dtype: DLDataType { code: 2, bits: 32, lanes: 1 },
        shape: shape.as_mut_ptr(),
        strides: null_mut(),
        byte_offset: 0,
    }
}

fn ok(status: bespoke_status) {
    assert_eq!(status, BESPOKE_OK);
}

/// A sampler for an RK1 theta of as many steps as there may be.
fn sampler() -> *mut bespoke_sampler {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("theta.json");
    Theta::new(Family::Rk1(Knots::identity(1000))).and_then(|theta| theta.save(&path)).expect("a theta");
    let name = CString::new(path.to_string_lossy().into_owned()).expect("a path");
    let (mut theta, mut sampler) = (null_mut(), null_mut());
    // SAFETY: as the header asks.
    unsafe {
        ok(bespoke_load_theta(name.as_ptr(), &mut theta));
        ok(bespoke_sampler_new(theta, null(), &mut sampler));
        bespoke_theta_free(theta);
    }
    sampler
}

fn step(criterion: &mut Criterion) {
    for bytes in [4 << 10, 1 << 20, 64 << 20] {
        let numbers = bytes / size_of::<f32>();
        let mut group = criterion.benchmark_group(format!("{} KiB", bytes >> 10));
        group.throughput(Throughput::Bytes((STREAMS * bytes) as u64));
        let (mut x, mut u, mut shape) = (vec![0.5f32; numbers], vec![1e-3f32; numbers], [1i64, numbers as i64]);
        let sampler = sampler();
        let (state, velocity) = (tensor(&mut x, &mut shape), tensor(&mut u, &mut shape));
        group.bench_function("query and update", |bencher| {
            bencher.iter(|| {
                let (mut t, mut x) = (null(), null());
                // SAFETY: as the header asks.
                unsafe {
                    if bespoke_sampler_query(sampler, &mut t, &mut x) != BESPOKE_OK || t.is_null() {
                        ok(bespoke_sampler_start(sampler, &state));
                        ok(bespoke_sampler_query(sampler, &mut t, &mut x));
                    }
                    black_box(x);
                    ok(bespoke_sampler_update(sampler, &velocity));
                }
            });
        });
        // SAFETY: as the header asks.
        unsafe { bespoke_sampler_free(sampler) };
        let mut out = vec![0.0f32; numbers];
        group.bench_function("triad", |bencher| {
            bencher.iter(|| {
                let scale = black_box(3.0f32);
                out.iter_mut().zip(&x).zip(&u).for_each(|((out, x), u)| *out = x + scale * u);
                black_box(&mut out);
            });
        });
        group.finish();
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
