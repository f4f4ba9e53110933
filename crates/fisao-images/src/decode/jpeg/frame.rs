//! Frame and scan headers, and what a frame's components hold.

use super::JpegError;
use super::segments::Tables;
use crate::limits::MAX_PIXELS;

/// Pixels of a block's side.
pub(super) const SIDE: usize = 8;

/// An image in the making.
pub(super) struct Frame {
    pub(super) progressive: bool,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) components: Vec<Component>,
    /// Largest sampling factors.
    pub(super) horizontal: usize,
    pub(super) vertical: usize,
    /// MCUs (the smallest groups of whole blocks of all components) in a row and in a column.
    pub(super) mcus: (usize, usize),
}

/// One of the planes that an image consists of.
pub(super) struct Component {
    /// The number by which scans call it.
    pub(super) id: u8,
    /// Sampling factors: blocks in an MCU.
    pub(super) horizontal: usize,
    pub(super) vertical: usize,
    /// Samples that belong to the image.
    pub(super) width: usize,
    pub(super) height: usize,
    /// Blocks that hold them.
    pub(super) blocks: (usize, usize),
    /// Blocks in a row of whole MCUs; the plane is eight times as wide.
    pub(super) blocks_stored: usize,
    quantization: usize,
    /// The steps as they were when the component's first scan began.
    pub(super) steps: Option<[i16; 64]>,
    /// Samples, row by row, `blocks_stored · 8` to a row; 128 where no scan was.
    pub(super) plane: Vec<u8>,
    /// Of progressive files, the coefficients of all blocks.
    pub(super) coefficients: Vec<[i16; 64]>,
}

/// A scan header.
pub(super) struct Scan {
    pub(super) components: Vec<ScanComponent>,
    /// First and last coefficient, in stored order.
    pub(super) spectrum: (usize, usize),
    /// Whether earlier scans held the higher bits.
    pub(super) refines: bool,
    /// Lowest bit that this scan holds.
    pub(super) low_bit: u32,
}

/// A component in a scan.
#[derive(Clone, Copy)]
pub(super) struct ScanComponent {
    /// Its place in the frame.
    pub(super) index: usize,
    /// Its code tables.
    pub(super) dc: usize,
    pub(super) ac: usize,
}

/// Width and height in a frame header, which are not too many pixels.
pub(super) fn size(body: &[u8]) -> Result<(usize, usize), JpegError> {
    let [_, h1, h0, w1, w0, ..] = *body else {
        return Err(JpegError::Damaged("its frame header is too short"));
    };
    let height = usize::from(u16::from_be_bytes([h1, h0]));
    let width = usize::from(u16::from_be_bytes([w1, w0]));
    if width == 0 || height == 0 {
        return Err(JpegError::Damaged("its frame is empty"));
    }
    if (width * height) as u64 > MAX_PIXELS {
        return Err(JpegError::Large(width, height));
    }
    Ok((width, height))
}

impl Frame {
    /// Reads a frame header and makes room for the image, unless a file of `file_size` bytes cannot
    /// hold it.
    pub(super) fn read(
        body: &[u8],
        progressive: bool,
        file_size: usize,
    ) -> Result<Self, JpegError> {
        let (width, height) = size(body)?;
        let [precision, _, _, _, _, count, parameters @ ..] = body else {
            return Err(JpegError::Damaged("its frame header is too short"));
        };
        if *precision != 8 {
            return Err(JpegError::Unsupported("samples of other than 8 bits"));
        }
        if parameters.len() != 3 * usize::from(*count) {
            return Err(JpegError::Damaged("its frame header has a wrong length"));
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(JpegError::Unsupported("other than one, three or four components"));
        }
        let factors = |byte: u8| (usize::from(byte >> 4), usize::from(byte & 15));
        let parameters = parameters.as_chunks::<3>().0;
        if parameters.iter().map(|p| factors(p[1])).any(|(h, v)| h.min(v) < 1 || h.max(v) > 4) {
            return Err(JpegError::Damaged("a sampling factor is not in 1 to 4"));
        }
        let horizontal = parameters.iter().map(|p| factors(p[1]).0).max().unwrap_or(1);
        let vertical = parameters.iter().map(|p| factors(p[1]).1).max().unwrap_or(1);
        let mcus = (width.div_ceil(SIDE * horizontal), height.div_ceil(SIDE * vertical));
        let component = |&[id, sampling, quantization]: &[u8; 3]| {
            let (h, v) = factors(sampling);
            let (width, height) =
                ((width * h).div_ceil(horizontal), (height * v).div_ceil(vertical));
            Component {
                id,
                horizontal: h,
                vertical: v,
                width,
                height,
                blocks: (width.div_ceil(SIDE), height.div_ceil(SIDE)),
                blocks_stored: mcus.0 * h,
                quantization: usize::from(quantization),
                steps: None,
                plane: Vec::new(),
                coefficients: Vec::new(),
            }
        };
        let components = parameters.iter().map(component).collect();
        let mut frame = Self { progressive, width, height, components, horizontal, vertical, mcus };
        frame.make_room(file_size)?;
        Ok(frame)
    }

    /// Blocks of all components.
    pub(super) fn blocks(&self) -> usize {
        self.components.iter().map(Component::block_count).sum()
    }

    fn make_room(&mut self, file_size: usize) -> Result<(), JpegError> {
        // A block takes at least one bit.
        if self.blocks() > 8 * file_size {
            return Err(JpegError::Truncated);
        }
        for component in &mut self.components {
            let blocks = component.blocks_stored * self.mcus.1 * component.vertical;
            component.plane = vec![128; blocks * SIDE * SIDE];
            if self.progressive {
                component.coefficients = vec![[0; 64]; blocks];
            }
        }
        Ok(())
    }

    /// Reads a scan header.
    pub(super) fn read_scan(&mut self, body: &[u8], tables: &Tables) -> Result<Scan, JpegError> {
        let short = JpegError::Damaged("a scan header has a wrong length");
        let Some((&count, rest)) = body.split_first() else { return Err(short) };
        let (selectors, rest) = rest.as_chunks::<2>();
        let Some((selectors, [[first, last]])) = selectors.split_at_checked(usize::from(count))
        else {
            return Err(short);
        };
        let &[bits] = rest else { return Err(short) };
        if !(1..=4).contains(&count) {
            return Err(JpegError::Damaged("a scan has no components or too many"));
        }
        let mut components: Vec<ScanComponent> = Vec::new();
        for &[id, codes] in selectors {
            let index = self.components.iter().position(|component| component.id == id);
            let index = index.ok_or(JpegError::Damaged("a scan names an unknown component"))?;
            if components.iter().any(|earlier| earlier.index == index) {
                return Err(JpegError::Damaged("a scan names a component twice"));
            }
            let (dc, ac) = (usize::from(codes >> 4), usize::from(codes & 15));
            if dc.max(ac) > 3 {
                return Err(JpegError::Damaged("a scan names a code table beyond the fourth"));
            }
            components.push(ScanComponent { index, dc, ac });
            let component = &mut self.components[index];
            if component.steps.is_none() {
                let steps = tables.quantization.get(component.quantization).copied().flatten();
                let missing = JpegError::Damaged("a quantization table is missing");
                component.steps = Some(steps.ok_or(missing)?);
            }
        }
        let (high_bit, low_bit) = (bits >> 4, bits & 15);
        let scan = Scan {
            components,
            spectrum: (usize::from(*first), usize::from(*last)),
            refines: high_bit != 0,
            low_bit: u32::from(low_bit),
        };
        if self.progressive {
            let (first, last) = scan.spectrum;
            let alone = scan.components.len() == 1;
            let band = if first == 0 { last == 0 } else { first <= last && last < 64 && alone };
            let precision = low_bit <= 13 && (high_bit == 0 || high_bit == low_bit + 1);
            if !(band && precision) {
                return Err(JpegError::Damaged("a scan has impossible parameters"));
            }
        }
        Ok(scan)
    }
}

impl Component {
    fn block_count(&self) -> usize {
        self.blocks.0 * self.blocks.1
    }
}

impl Scan {
    /// Blocks of the components that it decodes.
    pub(super) fn blocks(&self, frame: &Frame) -> usize {
        self.components.iter().map(|of| frame.components[of.index].block_count()).sum()
    }

    /// Blocks of each component in an MCU of this scan, MCUs in a row, and rows of them. A component
    /// that is alone is stored block by block, without those that only fill up MCUs.
    pub(super) fn layout(&self, frame: &Frame) -> (Vec<(usize, usize)>, usize, usize) {
        if let [alone] = self.components[..] {
            let (across, down) = frame.components[alone.index].blocks;
            return (vec![(1, 1)], across, down);
        }
        let blocks = self.components.iter().map(|of| {
            let component = &frame.components[of.index];
            (component.horizontal, component.vertical)
        });
        (blocks.collect(), frame.mcus.0, frame.mcus.1)
    }
}
