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
        if let Some(block) = blocks.iter_mut().find(|block| !block.used && block.bytes == bytes) {
            block.used = true;
            return Ok(block.memory);
        }
        let memory = self.operations.allocate(bytes)?;
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
