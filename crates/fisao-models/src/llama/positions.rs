//! Where tokens stand: one position each, or for multimodal rotary embedding (M-RoPE) three, of time, row and column.
//!
//! Paper: Wang et al. 2024, *Qwen2-VL*, arXiv 2409.12191, §2.1; interleaved as in Qwen3-VL (Bai et al. 2025, arXiv 2511.21631).

use serde::{Deserialize, Serialize};

/// How a decoder's rotary embedding reads positions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PositionScheme {
    /// One position for each token, counted from 0.
    #[default]
    Sequential,
    /// Three positions for each token; every pair of dimensions of a head reads one of them.
    Multimodal {
        /// Pairs that read time, row and column; together half the width of a head.
        sections: [usize; 3],
        /// Whether the three take turns, as long as rows and columns last, instead of lying one behind the other.
        interleaved: bool,
    },
}

impl PositionScheme {
    /// Whether it is the default, which is not written to files.
    pub fn is_sequential(&self) -> bool {
        *self == Self::Sequential
    }

    /// Which of three positions each of `half` pairs of dimensions reads.
    ///
    /// # Panics
    /// The sections are not `half` pairs.
    pub(super) fn axes(&self, half: usize) -> Vec<usize> {
        let Self::Multimodal { sections, interleaved } = *self else { return vec![0; half] };
        assert!(sections.iter().sum::<usize>() == half, "sections of rotary pairs are all pairs");
        if !interleaved {
            let axes = sections.iter().enumerate();
            return axes.flat_map(|(axis, &pairs)| std::iter::repeat_n(axis, pairs)).collect();
        }
        (0..half).map(|pair| if pair / 3 < sections[pair % 3] { pair % 3 } else { 0 }).collect()
    }
}

/// Positions of all tokens of a batch, `[batch · length]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Positions {
    /// One for each token, which stands for all three where a decoder reads three.
    Single(Vec<usize>),
    /// Time, row and column of each token.
    Triple(Vec<[usize; 3]>),
}

impl Positions {
    /// Puts as many single positions behind each of `rows` rows.
    pub(crate) fn with_behind(self, behind: &[usize], rows: usize) -> Self {
        match self {
            Self::Single(all) => Self::Single(joined(&all, behind, rows)),
            Self::Triple(all) => {
                let behind: Vec<[usize; 3]> = behind.iter().map(|&at| [at; 3]).collect();
                Self::Triple(joined(&all, &behind, rows))
            }
        }
    }

    /// Those of some places, in this order.
    pub(crate) fn select(&self, places: &[usize]) -> Self {
        match self {
            Self::Single(all) => Self::Single(places.iter().map(|&at| all[at]).collect()),
            Self::Triple(all) => Self::Triple(places.iter().map(|&at| all[at]).collect()),
        }
    }

    /// As a card reads them: one of each token, or three where the decoder reads three.
    pub(super) fn for_card(&self, scheme: PositionScheme) -> Vec<i32> {
        let single = scheme.is_sequential();
        match self {
            Self::Single(all) if single => all.iter().map(|&at| at as i32).collect(),
            Self::Single(all) => all.iter().flat_map(|&at| [at as i32; 3]).collect(),
            Self::Triple(all) if single => all.iter().map(|at| at[0] as i32).collect(),
            Self::Triple(all) => all.iter().flat_map(|at| at.map(|at| at as i32)).collect(),
        }
    }

    /// The highest of all, 0 if there is none.
    pub(super) fn last(&self) -> usize {
        match self {
            Self::Single(all) => all.iter().copied().max().unwrap_or(0),
            Self::Triple(all) => all.iter().flatten().copied().max().unwrap_or(0),
        }
    }
}

impl From<Vec<usize>> for Positions {
    fn from(positions: Vec<usize>) -> Self {
        Self::Single(positions)
    }
}

/// Each of `rows` rows of the one, followed by that of the other.
fn joined<T: Copy>(first: &[T], second: &[T], rows: usize) -> Vec<T> {
    let lengths = [first, second].map(|part| part.len() / rows.max(1));
    let row = |row: usize| {
        let [first, second] = [(first, lengths[0]), (second, lengths[1])]
            .map(|(part, length)| &part[row * length..][..length]);
        first.iter().chain(second).copied()
    };
    (0..rows).flat_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_lie_behind_each_other_or_take_turns() {
        let axes =
            |sections, interleaved| PositionScheme::Multimodal { sections, interleaved }.axes(8);
        assert_eq!(axes([2, 3, 3], false), [0, 0, 1, 1, 1, 2, 2, 2]);
        assert_eq!(axes([4, 2, 2], true), [0, 1, 2, 0, 1, 2, 0, 0]);
        assert_eq!(PositionScheme::Sequential.axes(3), [0; 3]);
    }

    #[test]
    fn positions_are_put_behind_each_row() {
        let rows = Positions::Triple(vec![[0; 3], [1, 2, 3], [0; 3], [4, 5, 6]]);
        let expected = vec![[0; 3], [1, 2, 3], [9; 3], [0; 3], [4, 5, 6], [7; 3]];
        assert_eq!(rows.with_behind(&[9, 7], 2), Positions::Triple(expected));
        assert_eq!(Positions::Single(vec![3, 4]).with_behind(&[], 2), vec![3, 4].into());
    }
}
