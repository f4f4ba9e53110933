//! Components of lower resolution brought to that of the image, as libjpeg-turbo does it by default.
//!
//! A side that was halved is interpolated: each new sample is three quarters of the nearer old one and
//! one quarter of the further, rounded up and down by turns so that no bias remains. Every other ratio
//! repeats samples.

use super::JpegError;
use super::frame::{Component, Frame};

/// How one component's rows become the image's.
#[derive(Clone, Copy)]
pub(super) enum Upsampling {
    /// They already are.
    None,
    /// Interpolated across.
    Across,
    /// Interpolated down.
    Down,
    /// Interpolated both ways.
    Both,
    /// Every sample this often across and down.
    Repeated(usize, usize),
}

impl Upsampling {
    /// What a component needs.
    pub(super) fn of(component: &Component, frame: &Frame) -> Result<Self, JpegError> {
        let (h, v) = (component.horizontal, component.vertical);
        if !frame.horizontal.is_multiple_of(h) || !frame.vertical.is_multiple_of(v) {
            return Err(JpegError::Unsupported("fractional sampling factors"));
        }
        // libjpeg's interpolation across wants three samples.
        let wide = component.width > 2;
        Ok(match (frame.horizontal / h, frame.vertical / v) {
            (1, 1) => Self::None,
            (2, 1) if wide => Self::Across,
            (1, 2) => Self::Down,
            (2, 2) if wide => Self::Both,
            (across, down) => Self::Repeated(across, down),
        })
    }
}

/// A component and room for one row of it.
pub(super) struct Rows<'a> {
    component: &'a Component,
    upsampling: Upsampling,
    row: Vec<u8>,
    /// Weighted sums of two rows, the first and the last of them doubled.
    sums: Vec<u16>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(component: &'a Component, frame: &Frame) -> Result<Self, JpegError> {
        let upsampling = Upsampling::of(component, frame)?;
        let row = vec![0; component.width * (frame.horizontal / component.horizontal)];
        Ok(Self { component, upsampling, row, sums: vec![0; component.width + 2] })
    }

    fn stored(&self, y: usize) -> &'a [u8] {
        let stride = self.component.blocks_stored * super::frame::SIDE;
        &self.component.plane[y * stride..][..self.component.width]
    }

    /// The nearer and the further of the two stored rows next to a row of twice as many.
    fn neighbours(&self, y: usize) -> (&'a [u8], &'a [u8]) {
        let near = y / 2;
        let far = if y.is_multiple_of(2) { near.saturating_sub(1) } else { near + 1 };
        (self.stored(near), self.stored(far.min(self.component.height - 1)))
    }

    /// One row of the image's resolution, at least as long as the image is wide.
    #[inline(always)]
    pub(super) fn get(&mut self, y: usize) -> &[u8] {
        match self.upsampling {
            Upsampling::None => return self.stored(y),
            Upsampling::Across => {
                let stored = self.stored(y);
                for (sum, &value) in self.sums[1..].iter_mut().zip(stored) {
                    *sum = value.into();
                }
                self.interpolate::<2>([1, 2]);
            }
            Upsampling::Down => {
                let (near, far) = self.neighbours(y);
                let bias = 1 + y as u16 % 2;
                for ((new, &near), &far) in self.row.iter_mut().zip(near).zip(far) {
                    *new = ((3 * u16::from(near) + u16::from(far) + bias) >> 2) as u8;
                }
            }
            Upsampling::Both => {
                let (near, far) = self.neighbours(y);
                for ((sum, &near), &far) in self.sums[1..].iter_mut().zip(near).zip(far) {
                    *sum = 3 * u16::from(near) + u16::from(far);
                }
                self.interpolate::<4>([8, 7]);
            }
            Upsampling::Repeated(across, down) => {
                let stored = self.stored(y / down);
                for (new, &value) in self.row.chunks_exact_mut(across).zip(stored) {
                    new.fill(value);
                }
            }
        }
        &self.row
    }

    /// Doubles `sums` across, with a bias for the left and the right new sample.
    #[inline(always)]
    fn interpolate<const SHIFT: u32>(&mut self, [left, right]: [u16; 2]) {
        let last = self.component.width;
        self.sums[0] = self.sums[1];
        self.sums[last + 1] = self.sums[last];
        let sums = self.sums.iter().zip(&self.sums[1..]).zip(&self.sums[2..]);
        for (new, ((&before, &here), &after)) in
            self.row.as_chunks_mut::<2>().0.iter_mut().zip(sums)
        {
            *new = [
                ((3 * here + before + left) >> SHIFT) as u8,
                ((3 * here + after + right) >> SHIFT) as u8,
            ];
        }
    }
}
