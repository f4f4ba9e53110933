//! Sums over parts of work whose order does not depend on who computes which part.
//!
//! Parts are the leaves of a binary tree, and each process adds up what it has of it: of neighbouring parts of a power of two there is one
//! sum to send, whichever processes there are.

use serde::{Deserialize, Serialize};

/// A sum over the parts from `index << level` on, `1 << level` of them or as many as there are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sum<T> {
    level: u32,
    index: usize,
    of: T,
}

impl<T> Sum<T> {
    /// Of one part alone.
    pub(crate) fn of_part(index: usize, of: T) -> Self {
        Self { level: 0, index, of }
    }

    pub(crate) fn into_inner(self) -> T {
        self.of
    }
}

/// Adds up sums, in the order of their parts, as far as the tree goes: both halves of a node are needed. There are `count` parts in all.
pub(crate) fn added_up<T>(sums: Vec<Sum<T>>, count: usize, add: impl Fn(&mut T, T)) -> Vec<Sum<T>> {
    let mut sums = sums;
    for level in 0..count.next_power_of_two().ilog2() {
        let mut higher: Vec<Sum<T>> = Vec::with_capacity(sums.len());
        for sum in sums {
            if sum.level != level {
                higher.push(sum);
                continue;
            }
            let left = sum.index.is_multiple_of(2);
            if left && (sum.index + 1) << level >= count {
                // There is no other half.
                higher.push(Sum { level: level + 1, index: sum.index / 2, of: sum.of });
                continue;
            }
            match higher.last_mut() {
                Some(last) if !left && last.level == level && last.index + 1 == sum.index => {
                    add(&mut last.of, sum.of);
                    (last.level, last.index) = (level + 1, sum.index / 2);
                }
                _ => higher.push(sum),
            }
        }
        sums = higher;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum as text with its order.
    fn text(parts: impl Iterator<Item = usize>, count: usize) -> Vec<Sum<String>> {
        let sums = parts.map(|part| Sum::of_part(part, part.to_string())).collect();
        added_up(sums, count, |a, b| *a = format!("({a}+{b})"))
    }

    #[test]
    fn order_of_a_sum_does_not_depend_on_who_adds_what() {
        assert_eq!(text(0..8, 8)[0].of, "(((0+1)+(2+3))+((4+5)+(6+7)))");
        assert_eq!(text(0..5, 5)[0].of, "(((0+1)+(2+3))+4)");
        for count in 1..=9 {
            let whole = text(0..count, count);
            assert_eq!(whole.len(), 1);
            for processes in 1..=count {
                let edge = |process: usize| process * count / processes;
                let own = |process| text(edge(process)..edge(process + 1), count);
                let parts: Vec<Sum<String>> = (0..processes).flat_map(own).collect();
                let found = added_up(parts, count, |a, b| *a = format!("({a}+{b})"));
                assert_eq!(found, whole, "{count} parts of {processes} processes");
            }
        }
        // A process with an aligned half sends one sum.
        assert_eq!(text(4..8, 8).len(), 1);
    }
}
