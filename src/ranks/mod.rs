//! The processes that share a job, called ranks. A process that no MPI launcher started, and every
//! process of a build without the feature `mpi`, is alone: all here is then the identity.
//!
//! What steers a job is known to every rank, to the last bit: sums are made on the first rank and
//! handed to all. Whatever fails on one rank ends all of them ([`Ranks::abort`]).

#[cfg(feature = "mpi")]
#[path = "mpi.rs"]
mod world;
#[cfg(not(feature = "mpi"))]
#[path = "none.rs"]
mod world;

use crate::document;
use crate::error::{Error, Result};
use crate::tensor::Device;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::Range;
use world::{Wire, World};

/// The ranks of a job, as one of them sees them.
#[derive(Default)]
pub struct Ranks {
    world: Option<World>,
}

impl Ranks {
    /// A job of one process.
    pub fn alone() -> Self {
        Self::default()
    }

    /// The job that this process was started for: by `mpirun`, or else alone. Once a process, and on
    /// its first thread.
    ///
    /// # Errors
    /// [`Error::State`] where MPI was begun before.
    pub fn join() -> Result<Self> {
        Ok(Self { world: if launched() { World::join()? } else { None } })
    }

    /// This process among the others, from 0.
    pub fn rank(&self) -> usize {
        self.world.as_ref().map_or(0, World::rank)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.world.as_ref().map_or(1, World::count)
    }

    /// Whether this is the one that prints and writes files.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// The device called `name`; `cuda` without an index is the GPU whose number is this rank's on
    /// its machine.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no device's name.
    pub fn device(&self, name: &str) -> Result<Device> {
        match (&self.world, name) {
            (Some(world), "cuda") => Ok(Device::Cuda(world.local_rank())),
            _ => name.parse(),
        }
    }

    /// The rank that batch number `batch` is dealt to.
    pub fn owner(&self, batch: usize) -> usize {
        batch % self.count()
    }

    /// Whether batch number `batch` is dealt to this rank.
    pub fn owns(&self, batch: usize) -> bool {
        self.owner(batch) == self.rank()
    }

    /// This rank's part of `length` things.
    pub fn share(&self, length: usize) -> Range<usize> {
        let start = |rank: usize| rank * length / self.count();
        start(self.rank())..start(self.rank() + 1)
    }

    /// Adds up every rank's `values`, the same number on each, for all of them.
    pub fn sum(&self, values: &mut [f64]) {
        if let Some(world) = &self.world {
            world.sum(values);
        }
    }

    /// Whether it is so on any rank.
    pub fn any(&self, here: bool) -> bool {
        let mut found = [f64::from(u8::from(here))];
        self.sum(&mut found);
        found[0] > 0.0
    }

    /// `length` numbers, of which each rank has found its [`Ranks::share`]. Velocities that were not
    /// finite on one rank are every rank's error.
    ///
    /// # Errors
    /// What `found` is.
    pub fn gather(&self, length: usize, found: Result<Vec<f64>>) -> Result<Vec<f64>> {
        if self.count() == 1 {
            return found;
        }
        // For each rank, the evaluation that failed, counted from 1, and its time.
        let mut values = vec![0.0; length + 2 * self.count()];
        match found {
            Ok(own) => values[self.share(length)].copy_from_slice(&own),
            Err(Error::NonFinite { evaluation, t }) => {
                values[length + 2 * self.rank()..][..2].copy_from_slice(&[evaluation as f64 + 1.0, t]);
            }
            Err(other) => return Err(other),
        }
        self.sum(&mut values);
        let (failures, _) = values[length..].as_chunks::<2>();
        if let Some([evaluation, t]) = failures.iter().find(|[evaluation, _]| *evaluation > 0.0) {
            return Err(Error::NonFinite { evaluation: *evaluation as usize - 1, t: *t });
        }
        values.truncate(length);
        Ok(values)
    }

    /// `values` as the rank `root` has them; as many on each.
    pub(crate) fn broadcast<T: Wire>(&self, root: usize, values: &mut [T]) {
        if let Some(world) = &self.world {
            world.broadcast(root, values);
        }
    }

    /// What the first rank has.
    ///
    /// # Errors
    /// [`Error::Format`] where JSON cannot hold it.
    pub(crate) fn of_first<T: Serialize + DeserializeOwned>(&self, value: Option<T>) -> Result<Option<T>> {
        if self.count() == 1 {
            return Ok(value);
        }
        const NAME: &str = "what the first rank sent";
        let mut text = document::line(&value, NAME)?.into_bytes();
        let mut length = [text.len() as u64];
        self.broadcast(0, &mut length);
        text.resize(length[0] as usize, 0);
        self.broadcast(0, &mut text);
        if self.is_first() { Ok(value) } else { serde_json::from_slice(&text).map_err(|e| Error::format(NAME, ".", e)) }
    }

    /// Ends the processes of all ranks, this one with `code`.
    pub fn abort(&self, code: i32) -> ! {
        match &self.world {
            Some(world) => world.abort(code),
            None => std::process::exit(code),
        }
    }
}

impl Drop for Ranks {
    /// The others would wait for a rank that unwinds.
    fn drop(&mut self) {
        if std::thread::panicking() && self.world.is_some() {
            self.abort(101);
        }
    }
}

/// Whether an MPI launcher started this process: Open MPI's, one that speaks PMIx, or MPICH's. MPI
/// is left alone elsewhere.
fn launched() -> bool {
    ["OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"].iter().any(|name| std::env::var_os(name).is_some())
}
