//! Steps, queries and updates allocate nothing after the first call of a shape; a solver takes little to make.

use bespoke::capi::*;
use bespoke::solvers::SolverName;
use bespoke::theta::{Family, Knots, NsTable, Theta};
use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{CString, c_void};
use std::ptr::{null, null_mut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, with a count of what is asked of it.
struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);
/// Bytes that are held, and the most there have been.
static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// The counts are the process's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn hold(more: usize) {
    let held = HELD.fetch_add(more, Ordering::Relaxed).wrapping_add(more);
    MOST.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: all work is the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        hold(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        hold(size);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FLOAT32: DLDataType = DLDataType { code: 2, bits: 32, lanes: 1 };
const BFLOAT16: DLDataType = DLDataType { code: 4, bits: 16, lanes: 1 };

/// Of float32 memory, or of the first half of it as bfloat16: its numbers are finite either way.
fn tensor(data: &mut [f32], dtype: DLDataType, shape: &mut [i64], strides: *mut i64) -> DLTensor {
    DLTensor {
        data: data.as_mut_ptr().cast(),
        device: DLDevice { device_type: 1, device_id: 0 },
        ndim: shape.len() as i32,
        dtype,
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

/// A solve by steps, one as a whole, and one driven by the host with a strided velocity, where
/// samples leave and others join at the start of `theta` and of `other`.
unsafe fn solves(
    (theta, other): (*const bespoke_theta, *const bespoke_theta),
    sampler: *mut bespoke_sampler,
    dtype: DLDataType,
    x: &mut [f32],
    u: &mut [f32],
) {
    let (mut shape, mut one) = ([4i64, (x.len() / 4) as i64], [1i64, (x.len() / 4) as i64]);
    let mut strides = [1i64, 4];
    unsafe {
        let mut info: bespoke_theta_properties = std::mem::zeroed();
        info.struct_size = size_of::<bespoke_theta_properties>() as u32;
        ok(bespoke_theta_info(theta, &mut info));
        let mut state = tensor(x, dtype, &mut shape, null_mut());
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
            let velocity =
                tensor(u, dtype, &mut shape, if rounds % 2 == 0 { null_mut() } else { strides.as_mut_ptr() });
            ok(bespoke_sampler_update(sampler, &velocity));
            if rounds < 3 {
                let mut joining = tensor(u, dtype, &mut one, null_mut());
                ok(bespoke_sampler_leave(sampler, 1, &mut joining));
                ok(bespoke_sampler_join(sampler, if rounds == 1 { other } else { theta }, &joining));
            }
            rounds += 1;
        }
        ok(bespoke_sampler_finish(sampler, &mut state));
    }
}

fn load(theta: &Theta) -> *mut bespoke_theta {
    let file = tempfile::NamedTempFile::new().unwrap();
    theta.save(file.path()).unwrap();
    let name = CString::new(file.path().to_str().unwrap()).unwrap();
    let mut handle = null_mut();
    unsafe { ok(bespoke_load_theta(name.as_ptr(), &mut handle)) };
    handle
}

#[test]
fn nothing_is_allocated_after_the_first_call_of_a_shape() {
    let _alone = ALONE.lock();
    let midpoint = Theta::new(Family::Rk2(Knots::identity(8))).unwrap();
    let table = Theta::new(Family::Ns(NsTable::compile(&midpoint.tableau()))).unwrap();
    let handles = [load(&midpoint), load(&table)];
    for (theta, other) in [(handles[0], handles[1]), (handles[1], handles[0])] {
        for (numbers, threads) in [(64, 1), (400_000, 1), (400_000, 2)] {
            let (mut x, mut u) = (vec![0.5f32; numbers], vec![0.25f32; numbers]);
            let options = bespoke_sampler_options {
                struct_size: size_of::<bespoke_sampler_options>() as u32,
                threads,
                device_ops: null(),
                stream: null_mut(),
            };
            for dtype in [FLOAT32, BFLOAT16] {
                let mut sampler = null_mut();
                unsafe {
                    ok(bespoke_sampler_new(theta, &options, &mut sampler));
                    solves((theta, other), sampler, dtype, &mut x, &mut u);
                    let before = CALLS.load(Ordering::Relaxed);
                    for _ in 0..3 {
                        solves((theta, other), sampler, dtype, &mut x, &mut u);
                    }
                    let asked = CALLS.load(Ordering::Relaxed) - before;
                    assert_eq!(asked, 0, "{numbers} numbers, {threads} threads, {dtype:?}");
                    bespoke_sampler_free(sampler);
                }
            }
        }
    }
    for handle in handles {
        unsafe { bespoke_theta_free(handle) };
    }
}

#[test]
fn a_published_solver_of_a_thousand_evaluations_takes_less_than_a_megabyte() {
    let _alone = ALONE.lock();
    for solver in SolverName::ALL {
        let (least, step, most) = solver.nfe.range();
        let nfe = (least + (1000 - least) / step * step).min(most);
        let (name, mut handle) = (CString::new(solver.name).unwrap(), null_mut());
        let before = HELD.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        unsafe { ok(bespoke_theta_solver(name.as_ptr(), nfe as u32, c"vp".as_ptr(), &mut handle)) };
        let making = MOST.load(Ordering::Relaxed) - before;
        let held = HELD.load(Ordering::Relaxed) - before;
        let said = unsafe {
            let mut info: bespoke_theta_properties = std::mem::zeroed();
            info.struct_size = size_of::<bespoke_theta_properties>() as u32;
            ok(bespoke_theta_info(handle, &mut info));
            bespoke_theta_free(handle);
            info.bytes as usize
        };
        println!("{}@{nfe}: {held} bytes, {making} while it is made, {said} said", solver.name);
        assert!(making <= 1 << 20, "{}@{nfe}: {making} bytes while it is made", solver.name);
        assert!(held <= 1 << 20 && said.abs_diff(held) * 20 < held, "{}: {held} bytes, {said} said", solver.name);
    }
}
