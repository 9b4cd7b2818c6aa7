//! The threads that a computation is shared among. A fork of the process takes none of them along, and waiting for
//! them there would not end: it gets others.

use rayon::{ThreadPool, ThreadPoolBuilder};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The process that rayon's own pool is of.
static FIRST: OnceLock<u32> = OnceLock::new();

/// A pool, and the process that it is of.
struct Pool {
    process: u32,
    threads: ThreadPool,
}

/// The pool of the latest fork; none is ever freed. No lock guards it: a fork could find it held for good.
static FORKED: AtomicPtr<Pool> = AtomicPtr::new(null_mut());

/// Does `work`, in which rayon's iterators find threads of this very process.
pub fn shared<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let process = std::process::id();
    if *FIRST.get_or_init(|| process) == process {
        return work();
    }
    match of_fork(process) {
        Some(pool) => pool.threads.install(work),
        None => work(),
    }
}

/// Number of these threads.
pub fn count() -> usize {
    shared(rayon::current_num_threads)
}

/// The pool of `process`, which is a fork; `None` where the system does not even give it one of the caller alone.
fn of_fork(process: u32) -> Option<&'static Pool> {
    // SAFETY: null, or a pool that was leaked below.
    let known = unsafe { FORKED.load(Ordering::Acquire).as_ref() };
    if let Some(pool) = known.filter(|pool| pool.process == process) {
        return Some(pool);
    }
    let alone = || ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    let threads = ThreadPoolBuilder::new().build().or_else(|_| alone()).ok()?;
    let pool: &'static Pool = Box::leak(Box::new(Pool { process, threads }));
    FORKED.store(std::ptr::from_ref(pool).cast_mut(), Ordering::Release);
    Some(pool)
}
