//! Ranks of an MPI job.

use crate::error::{Error, Result};
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, Equivalence, Root};
use mpi::{Rank, Threading};

/// Numbers that MPI can send.
pub trait Wire: Equivalence {}

impl<T: Equivalence> Wire for T {}

/// Numbers in one message at most: MPI counts in 32 bits.
const MESSAGE: usize = 1 << 28;

/// MPI's world, begun here and ended when this goes.
pub struct World {
    world: SimpleCommunicator,
    local_rank: usize,
    _universe: Universe,
}

impl World {
    pub fn join() -> Result<Option<Self>> {
        let (universe, _) = mpi::initialize_with_threading(Threading::Funneled)
            .ok_or_else(|| Error::State("MPI was begun before".into()))?;
        let world = universe.world();
        let local_rank = world.split_shared(world.rank()).rank() as usize;
        Ok(Some(Self { world, local_rank, _universe: universe }))
    }

    pub fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    pub fn count(&self) -> usize {
        self.world.size() as usize
    }

    /// Among the ranks on the same machine.
    pub fn local_rank(&self) -> usize {
        self.local_rank
    }

    /// MPI_Allreduce need not give every rank the same last bits; a sum that is made once and sent does.
    pub fn sum(&self, values: &mut [f64]) {
        let first = self.world.process_at_rank(0);
        if self.rank() == 0 {
            let own = values.to_vec();
            first.reduce_into_root(&own[..], values, SystemOperation::sum());
        } else {
            first.reduce_into(values, SystemOperation::sum());
        }
        self.broadcast(0, values);
    }

    pub fn broadcast<T: Wire>(&self, root: usize, values: &mut [T]) {
        let root = self.world.process_at_rank(root as Rank);
        values.chunks_mut(MESSAGE).for_each(|part| root.broadcast_into(part));
    }

    pub fn abort(&self, code: i32) -> ! {
        self.world.abort(code)
    }
}
