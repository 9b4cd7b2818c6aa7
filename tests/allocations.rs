//! Once a batch of a shape has been solved, solving another allocates nothing.

mod common;

use bespoke::sampler::{Plan, Sampler};
use bespoke::solvers::bespoke::rk2;
use bespoke::solvers::classical::{rk4, uniform_grid};
use bespoke::tensor::{Element, Host, HostView};
use bespoke::theta::NsTable;
use half::{bf16, f16};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's own contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's own contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of a whole solve of `plan`, with `u` for every velocity.
fn allocations<E: Element>(
    sampler: &mut Sampler<Host<E>>,
    plan: &Arc<Plan>,
    x0: &Host<E>,
    u: HostView<'_, E>,
) -> usize {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    sampler.start(plan, x0).unwrap();
    while sampler.query().unwrap().is_some() {
        sampler.update(u).unwrap();
    }
    assert!(sampler.state().is_ok());
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

fn check<E: Element>(batch: usize, elements: usize, name: &str) {
    let x0 = Host::<E>::from_f32(&vec![0.5; batch * elements], elements).unwrap();
    let velocity = vec![E::from_f64(0.25); batch * elements];
    let u = HostView::new(&velocity, elements).unwrap();
    let mut knots = bespoke::solvers::bespoke::Knots::identity(10);
    knots.s_dot.fill(0.1);
    let bespoke = rk2(&knots);
    let ns = NsTable::compile(&bespoke).tableau();
    let mut sampler = Sampler::new(&x0).unwrap();
    for (tableau, solver) in [(bespoke, "rk2"), (rk4(&uniform_grid(3)), "rk4"), (ns, "ns")] {
        let plan = Arc::new(Plan::new(tableau));
        allocations(&mut sampler, &plan, &x0, u);
        assert_eq!(allocations(&mut sampler, &plan, &x0, u), 0, "{solver} in {name}");
    }
}

// One test: others on other threads would be counted too.
#[test]
fn a_second_solve_allocates_nothing() {
    check::<f64>(5, 300, "f64");
    check::<f32>(64, 64, "f32");
    check::<f16>(3, 1000, "f16");
    check::<bf16>(1, 7, "bf16");
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    drop(std::hint::black_box(vec![1u8; 10]));
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before + 1, "the count counts");
}
