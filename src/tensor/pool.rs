//! Memory of a device that is had again without asking for it.

use super::dtype::DLDataType;
use super::launch::{Combination, Operations};
use crate::error::Result;
use parking_lot::Mutex;
use std::ffi::c_void;

/// Blocks that are kept for later, at most.
const KEPT: usize = 16;

/// Operations whose memory is kept when it is released: a network's velocity needs the same few arrays at every
/// evaluation.
pub struct Pool {
    operations: Box<dyn Operations>,
    blocks: Mutex<Vec<Block>>,
}

struct Block {
    memory: *mut c_void,
    bytes: usize,
    /// Whether somebody has it.
    used: bool,
}

// SAFETY: an address of the device, which nobody here follows.
unsafe impl Send for Block {}

impl Pool {
    /// A pool of what `operations` allocate.
    pub fn new(operations: Box<dyn Operations>) -> Self {
        Self { operations, blocks: Mutex::default() }
    }

    fn release_unused(&self, blocks: &mut Vec<Block>) {
        blocks.retain(|block| {
            if !block.used {
                self.operations.release(block.memory);
            }
            block.used
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for block in self.blocks.get_mut().iter() {
            self.operations.release(block.memory);
        }
    }
}

impl Operations for Pool {
    fn allocate(&self, bytes: usize) -> Result<*mut c_void> {
        let mut blocks = self.blocks.lock();
        // Of this very size: a larger one in its place might be what another array then lacks where memory is short.
        if let Some(block) = blocks.iter_mut().find(|block| !block.used && block.bytes == bytes) {
            block.used = true;
            return Ok(block.memory);
        }
        let memory = self.operations.allocate(bytes).or_else(|failed| {
            if blocks.iter().all(|block| block.used) {
                return Err(failed);
            }
            self.release_unused(&mut blocks);
            self.operations.allocate(bytes)
        })?;
        blocks.push(Block { memory, bytes, used: true });
        Ok(memory)
    }

    fn release(&self, memory: *mut c_void) {
        let mut blocks = self.blocks.lock();
        if let Some(at) = blocks.iter().position(|block| block.memory == memory) {
            // The one that was released last comes last.
            let block = blocks.remove(at);
            blocks.push(Block { used: false, ..block });
        }
        let free = blocks.iter().filter(|block| !block.used).count();
        if let Some(oldest) = blocks.iter().position(|block| !block.used).filter(|_| free > KEPT) {
            self.operations.release(blocks.remove(oldest).memory);
        }
    }

    fn combine(&self, combination: &Combination) -> Result<()> {
        self.operations.combine(combination)
    }

    fn copy(&self, to: *mut c_void, from: *const c_void, bytes: usize) -> Result<()> {
        self.operations.copy(to, from, bytes)
    }

    fn finite(&self, numbers: *const c_void, dtype: DLDataType, elements: usize, finite: &mut [u8]) -> Result<()> {
        self.operations.finite(numbers, dtype, elements, finite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    /// Memory of 1,000 bytes, nothing of which is there: the sizes that are had, by address.
    #[derive(Default)]
    struct Small(Mutex<(usize, Vec<(usize, usize)>)>);

    impl Operations for std::sync::Arc<Small> {
        fn allocate(&self, bytes: usize) -> Result<*mut c_void> {
            let (calls, blocks) = &mut *self.0.lock();
            if bytes + blocks.iter().map(|block| block.1).sum::<usize>() > 1000 {
                return Err(Error::Memory { bytes });
            }
            *calls += 1;
            blocks.push((*calls, bytes));
            Ok(std::ptr::without_provenance_mut(*calls))
        }

        fn release(&self, memory: *mut c_void) {
            self.0.lock().1.retain(|block| block.0 != memory.addr());
        }

        fn combine(&self, _: &Combination) -> Result<()> {
            Ok(())
        }

        fn copy(&self, _: *mut c_void, _: *const c_void, _: usize) -> Result<()> {
            Ok(())
        }

        fn finite(&self, _: *const c_void, _: DLDataType, _: usize, _: &mut [u8]) -> Result<()> {
            Ok(())
        }
    }

    impl Small {
        fn held(&self) -> Vec<usize> {
            self.0.lock().1.iter().map(|block| block.1).collect()
        }
    }

    fn had_and_released(pool: &Pool, bytes: usize) -> *mut c_void {
        let memory = pool.allocate(bytes).unwrap();
        pool.release(memory);
        memory
    }

    #[test]
    fn what_is_free_is_had_again_at_its_size() {
        let memory = std::sync::Arc::new(Small::default());
        let pool = Pool::new(Box::new(memory.clone()));
        let (large, small) = (pool.allocate(300).unwrap(), pool.allocate(200).unwrap());
        pool.release(large);
        pool.release(small);
        assert_eq!(had_and_released(&pool, 200), small);
        assert_eq!(had_and_released(&pool, 300), large);
        assert_eq!(memory.held(), [300, 200]);
        had_and_released(&pool, 299);
        assert_eq!(memory.held(), [300, 200, 299]);
        drop(pool);
        assert!(memory.held().is_empty());
    }

    #[test]
    fn where_memory_ends_it_has_what_a_new_one_would() {
        let memory = std::sync::Arc::new(Small::default());
        let pool = Pool::new(Box::new(memory.clone()));
        let used = pool.allocate(100).unwrap();
        had_and_released(&pool, 800);
        let halves = [pool.allocate(400).unwrap(), pool.allocate(400).unwrap()];
        assert_eq!(memory.held(), [100, 400, 400]);
        pool.allocate(101).unwrap_err();
        halves.into_iter().chain([used]).for_each(|block| pool.release(block));
    }

    #[test]
    fn few_blocks_are_kept() {
        let memory = std::sync::Arc::new(Small::default());
        let pool = Pool::new(Box::new(memory.clone()));
        let blocks: Vec<_> = (0..2 * KEPT).map(|_| pool.allocate(10).unwrap()).collect();
        blocks.into_iter().for_each(|block| pool.release(block));
        assert_eq!(memory.held().len(), KEPT);
    }
}
