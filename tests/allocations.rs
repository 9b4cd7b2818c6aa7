//! Steps, queries and updates allocate nothing after the first call of a shape.

use bespoke::capi::*;
use bespoke::solvers::bespoke::Knots;
use bespoke::theta::{Family, NsTable, Theta};
use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{CString, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, with a count of what is asked of it.
struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all work is the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn tensor(data: &mut [f32], shape: &mut [i64], strides: *mut i64) -> DLTensor {
    DLTensor {
        data: data.as_mut_ptr().cast(),
        device: DLDevice { device_type: 1, device_id: 0 },
        ndim: shape.len() as i32,
        dtype: DLDataType { code: 2, bits: 32, lanes: 1 },
        shape: shape.as_mut_ptr(),
        strides,
        byte_offset: 0,
    }
}

unsafe extern "C-unwind" fn zero(_: *mut c_void, _: *const DLTensor, _: *const DLTensor, _: *mut DLTensor) -> i32 {
    0
}

fn ok(status: bespoke_status) {
    assert_eq!(status, BESPOKE_OK);
}

/// A solve by steps, one as a whole, one driven by the host with a strided velocity, and a batch
/// that a sample joins and another leaves.
unsafe fn solves(theta: *const bespoke_theta, sampler: *mut bespoke_sampler, x: &mut [f32], u: &mut [f32]) {
    let (mut shape, mut one) = ([4i64, (x.len() / 4) as i64], [1i64, (x.len() / 4) as i64]);
    let mut strides = [1i64, 4];
    unsafe {
        let mut info: bespoke_theta_properties = std::mem::zeroed();
        info.struct_size = size_of::<bespoke_theta_properties>() as u32;
        ok(bespoke_theta_info(theta, &mut info));
        let mut state = tensor(x, &mut shape, null_mut());
        for step in 0..info.steps {
            ok(bespoke_step(theta, sampler, step, &mut state, Some(zero), null_mut()));
        }
        ok(bespoke_sample(theta, sampler, &state, &mut state, Some(zero), null_mut()));
        ok(bespoke_sampler_start(sampler, &state));
        let mut rounds = 0;
        loop {
            let (mut t, mut x) = (null(), null());
            ok(bespoke_sampler_query(sampler, &mut t, &mut x));
            if t.is_null() {
                break;
            }
            let velocity = tensor(u, &mut shape, if rounds % 2 == 0 { null_mut() } else { strides.as_mut_ptr() });
            ok(bespoke_sampler_update(sampler, &velocity));
            if rounds == 0 {
                let mut joining = tensor(u, &mut one, null_mut());
                ok(bespoke_sampler_leave(sampler, 1, &mut joining));
                ok(bespoke_sampler_join(sampler, theta, &joining));
            }
            rounds += 1;
        }
        ok(bespoke_sampler_finish(sampler, &mut state));
    }
}

#[test]
fn nothing_is_allocated_after_the_first_call_of_a_shape() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theta.json");
    let midpoint = Theta::new(Family::Rk2(Knots::identity(8))).unwrap();
    let table = Theta::new(Family::Ns(NsTable::compile(&midpoint.tableau()))).unwrap();
    for theta in [midpoint, table] {
        theta.save(&path).unwrap();
        let name = CString::new(path.to_str().unwrap()).unwrap();
        for (numbers, threads) in [(64, 1), (400_000, 1), (400_000, 2)] {
            let (mut x, mut u) = (vec![0.5f32; numbers], vec![0.25f32; numbers]);
            let (mut handle, mut sampler) = (null_mut(), null_mut());
            let options = bespoke_sampler_options { struct_size: size_of::<bespoke_sampler_options>() as u32, threads };
            unsafe {
                ok(bespoke_load_theta(name.as_ptr(), &mut handle));
                ok(bespoke_sampler_new(handle, &options, &mut sampler));
                solves(handle, sampler, &mut x, &mut u);
                let before = CALLS.load(Ordering::Relaxed);
                for _ in 0..3 {
                    solves(handle, sampler, &mut x, &mut u);
                }
                assert_eq!(CALLS.load(Ordering::Relaxed) - before, 0, "{numbers} numbers, {threads} threads");
                bespoke_sampler_free(sampler);
                bespoke_theta_free(handle);
            }
        }
    }
}
