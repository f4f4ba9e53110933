//! Room for what a kernel needs on its way. Each thread keeps what it has used, so that a step of decoding, which needs what the
//! one before it needed, allocates nothing.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Numbers that a thread keeps at most, 64 MiB.
const KEPT: usize = 1 << 24;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Numbers of no particular value: what is read has to be written first.
pub(super) struct Space {
    numbers: Vec<f32>,
    length: usize,
}

impl Space {
    pub(super) fn new(length: usize) -> Self {
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

impl Drop for Space {
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

impl Deref for Space {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.numbers[..self.length]
    }
}

impl DerefMut for Space {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_used_again() {
        let place = |space: &Space| space.numbers.as_ptr();
        let (large, small) = (Space::new(1000), Space::new(10));
        let places = [place(&large), place(&small)];
        drop((large, small));
        let (small, large) = (Space::new(9), Space::new(900));
        assert_eq!([place(&large), place(&small)], places);
        assert_eq!([small.len(), large.len()], [9, 900]);
    }

    #[test]
    fn a_thread_does_not_keep_everything() {
        drop((Space::new(KEPT / 2), Space::new(KEPT / 2), Space::new(KEPT / 2), Space::new(8)));
        let kept: usize = FREE.with_borrow(|free| free.iter().map(Vec::len).sum());
        assert!(kept <= KEPT, "{kept} numbers");
    }
}
