//! Threads that wait for work, so that an update on several of them allocates and spawns nothing. A fork of the
//! process takes none of them along: there the crew takes on others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What the threads are to run: called with the number of a part.
type Work<'a> = dyn Fn(usize) + Sync + 'a;

/// The caller and a number of threads of its own.
pub struct Crew {
    /// The process that the threads are of.
    process: u32,
    /// How many there are, the caller included.
    size: usize,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    begin: Condvar,
    end: Condvar,
}

struct State {
    /// Counts the calls of [`Crew::run`].
    round: u64,
    work: Option<*const Work<'static>>,
    /// Threads that are not through with this round.
    busy: usize,
    /// Whether one of them panicked.
    panicked: bool,
    leave: bool,
}

// SAFETY: the pointer is only followed while `Crew::run` keeps what it points to alive, and that is `Sync`.
unsafe impl Send for State {}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of the work is caught before it could poison anything.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Crew {
    /// The caller and `threads - 1` others.
    ///
    /// # Errors
    /// The system's, where it gives no more threads.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let state = State { round: 0, work: None, busy: 0, panicked: false, leave: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), begin: Condvar::new(), end: Condvar::new() });
        let mut crew = Self { process: std::process::id(), size: threads.max(1), shared, threads: Vec::new() };
        for part in 1..threads {
            let shared = crew.shared.clone();
            let builder = std::thread::Builder::new().name(format!("bespoke-{part}"));
            crew.threads.push(builder.spawn(move || serve(&shared, part))?);
        }
        Ok(crew)
    }

    /// Number of threads, the caller included.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Runs `work(0)` here and `work(1)` to `work(size - 1)` on the others, and waits for all.
    ///
    /// A crew has one work at a time: two threads cannot share it. In a fork of the process that it was made in it
    /// first takes on as many threads as it had; where the system gives none the caller does all parts.
    ///
    /// ```compile_fail,E0499
    /// let mut crew = bespoke::tensor::Crew::new(2).unwrap();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| crew.run(&|_| ()));
    ///     scope.spawn(|| crew.run(&|_| ()));
    /// });
    /// ```
    pub fn run(&mut self, work: &Work<'_>) {
        if self.is_of_parent() {
            self.renew();
        }
        if self.threads.is_empty() {
            return (0..self.size).for_each(work);
        }
        // SAFETY: only the lifetime changes; nobody follows the pointer after this function waited for all, and
        // `&mut self` keeps another call from replacing the work, or from counting its threads, meanwhile.
        let lasting = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        {
            let mut state = self.shared.lock();
            state.round += 1;
            state.work = Some(lasting);
            state.busy = self.threads.len();
            state.panicked = false;
        }
        self.shared.begin.notify_all();
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        let mut state = self.shared.lock();
        while state.busy > 0 {
            state = self.shared.end.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.work = None;
        let panicked = state.panicked;
        drop(state);
        if let Err(panic) = own {
            std::panic::resume_unwind(panic);
        }
        assert!(!panicked, "a thread of the crew panicked");
    }
}

impl Crew {
    /// Whether the threads are another process's: this one is its fork, and they are not here.
    fn is_of_parent(&self) -> bool {
        !self.threads.is_empty() && self.process != std::process::id()
    }

    /// Takes on other threads, if there are any to be had.
    fn renew(&mut self) {
        self.abandon();
        if let Ok(crew) = Self::new(self.size) {
            *self = crew;
        }
    }

    /// Lets go of threads that are not here. Waiting for them would not end, and whoever of them held the lock at
    /// the fork holds it for good.
    fn abandon(&mut self) {
        self.threads.drain(..).for_each(std::mem::forget);
    }
}

/// The life of thread `part`.
fn serve(shared: &Shared, part: usize) {
    let mut seen = 0;
    loop {
        let mut state = shared.lock();
        while state.round == seen && !state.leave {
            state = shared.begin.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.leave {
            return;
        }
        seen = state.round;
        let work = state.work;
        drop(state);
        // SAFETY: `Crew::run` keeps the work alive until `busy` is 0.
        let done = work.map(|work| catch_unwind(AssertUnwindSafe(|| unsafe { (*work)(part) })));
        let mut state = shared.lock();
        state.panicked |= matches!(done, Some(Err(_)));
        state.busy -= 1;
        if state.busy == 0 {
            shared.end.notify_one();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if self.is_of_parent() {
            self.abandon();
        }
        if self.threads.is_empty() {
            return;
        }
        self.shared.lock().leave = true;
        self.shared.begin.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_part_runs_once_a_round() {
        let mut crew = Crew::new(3).unwrap();
        let counts = [(); 3].map(|()| AtomicUsize::new(0));
        for _ in 0..1000 {
            crew.run(&|part| {
                counts[part].fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(counts.map(AtomicUsize::into_inner), [1000; 3]);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_crew_goes_on() {
        let mut crew = Crew::new(2).unwrap();
        for part in 0..2 {
            let panicking = |own: usize| assert_ne!(own, part, "on purpose");
            assert!(catch_unwind(AssertUnwindSafe(|| crew.run(&panicking))).is_err());
        }
        let count = AtomicUsize::new(0);
        crew.run(&|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 2);
    }
}
