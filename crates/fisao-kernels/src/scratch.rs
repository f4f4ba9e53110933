//! Scratch buffers of kernels. Each thread keeps a pool of them, so that a step of decoding, which needs the same buffers as the
//! one before it, allocates nothing.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Numbers that a thread keeps at most, 64 MiB.
const KEPT: usize = 1 << 24;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Numbers of no particular value: what is read has to be written first.
pub(crate) struct Scratch {
    numbers: Vec<f32>,
    length: usize,
}

impl Scratch {
    pub(crate) fn new(length: usize) -> Self {
        let mut numbers = FREE.with_borrow_mut(|free| {
            let fitting = (0..free.len()).filter(|&at| free[at].len() >= length);
            // The smallest that is large enough, else the largest.
            let at = fitting
                .min_by_key(|&at| free[at].len())
                .or_else(|| (0..free.len()).max_by_key(|&at| free[at].len()));
            at.map(|at| free.swap_remove(at)).unwrap_or_default()
        });
        if numbers.len() < length {
            // Without a copy of what is of no value.
            numbers.clear();
            numbers.resize(length, 0.0);
        }
        Self { numbers, length }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let numbers = std::mem::take(&mut self.numbers);
        // A thread that ends keeps nothing.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            let kept: usize = free.iter().map(Vec::len).sum();
            if kept + numbers.len() <= KEPT {
                free.push(numbers);
            }
        });
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.numbers[..self.length]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_buffers_are_reused() {
        let place = |scratch: &Scratch| scratch.numbers.as_ptr();
        let (large, small) = (Scratch::new(1000), Scratch::new(10));
        let places = [place(&large), place(&small)];
        drop((large, small));
        let (small, large) = (Scratch::new(9), Scratch::new(900));
        assert_eq!([place(&large), place(&small)], places);
        assert_eq!([small.len(), large.len()], [9, 900]);
    }

    #[test]
    fn scratch_pool_is_bounded() {
        drop((
            Scratch::new(KEPT / 2),
            Scratch::new(KEPT / 2),
            Scratch::new(KEPT / 2),
            Scratch::new(8),
        ));
        let kept: usize = FREE.with_borrow(|free| free.iter().map(Vec::len).sum());
        assert!(kept <= KEPT, "{kept} numbers");
    }
}
