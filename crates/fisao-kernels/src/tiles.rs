//! Products of blocks in the processor's tile registers (Intel AMX, AMX-BF16): eight registers of 16 × 64 bytes, and one
//! instruction that multiplies two of them, 16 × 32 by 32 × 16 numbers of bf16, and adds to sums in f32.
//!
//! Subnormal numbers count as zero in these products, and so do subnormal sums. The standard library's intrinsics of AMX
//! are unstable, so the instructions stand as assembly.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::OnceLock;

/// Words of a row of a tile, and rows of a tile.
pub(crate) const SIDE: usize = 16;
/// Rows and columns of a block: two tiles each way.
pub(crate) const BLOCK: usize = 2 * SIDE;

/// Sums of a block, row by row.
pub(crate) type Sums = [[f32; BLOCK]; BLOCK];

/// Proof that the processor has tiles and that the system lets this process use them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles(());

impl Tiles {
    /// `None` on a processor or a system without them. Asked of the system once a process.
    pub(crate) fn find() -> Option<Self> {
        static FOUND: OnceLock<bool> = OnceLock::new();
        FOUND.get_or_init(|| processor_has_them() && system_permits_them()).then_some(Self(()))
    }

    /// Lays the tile registers of this thread out for [`Layout::block`], until the layout is dropped.
    #[expect(clippy::unused_self, reason = "the proof that there are tiles")]
    #[expect(unsafe_code, reason = "an instruction without an intrinsic")]
    pub(crate) fn laid_out(self) -> Layout {
        let mut configuration = Configuration([0; 64]);
        let bytes = &mut configuration.0;
        bytes[0] = 1;
        for register in 0..8 {
            bytes[16 + 2 * register] = 4 * SIDE as u8;
            bytes[48 + register] = SIDE as u8;
        }
        // SAFETY: the processor has tiles, the process may use them, and the layout is a valid one.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly));
        }
        Layout(std::marker::PhantomData)
    }
}

/// Palette 1: bytes of a row from byte 16 on, two bytes each, and rows from byte 48 on.
#[repr(align(64))]
struct Configuration([u8; 64]);

/// Tile registers of this thread that are laid out; it stays in its thread.
pub(crate) struct Layout(std::marker::PhantomData<*const ()>);

impl Drop for Layout {
    #[expect(unsafe_code, reason = "an instruction without an intrinsic")]
    fn drop(&mut self) {
        // SAFETY: the processor has tiles; nothing of them is needed any longer.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

impl Layout {
    /// Products of 32 rows of words, sixteen of each row in turn, and 32 columns of lines, each word a pair of neighbours
    /// along the inner dimension: `sums[r][c] = Σ left[p / 16][r][p % 16] · right[p · right_stride + c]`.
    #[expect(clippy::unused_self, reason = "the proof that registers are laid out")]
    #[expect(unsafe_code, reason = "instructions without intrinsics")]
    #[inline(always)]
    pub(crate) fn block(
        &self,
        sums: &mut Sums,
        left: &[[[u32; SIDE]; BLOCK]],
        (right, right_stride): (&[u32], usize),
    ) {
        assert!(!left.is_empty(), "whole tiles of pairs");
        let pairs = left.len() * SIDE;
        assert!(right.len() >= (pairs - 1) * right_stride + BLOCK, "lines of a block");
        let words = size_of::<u32>();
        // SAFETY: the registers are laid out as 16 rows of 64 bytes, and what is read and written lies in the slices.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{left} + {left_stride}]",
                "tileloadd tmm6, [{right} + {right_stride}]",
                "tileloadd tmm7, [{right} + {right_stride} + 64]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{left} + {left_stride} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {left}, 2048",
                "add {right}, {right_step}",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{sums} + {sums_stride}], tmm0",
                "tilestored [{sums} + {sums_stride} + 64], tmm1",
                "tilestored [{sums} + {sums_stride} + 2048], tmm2",
                "tilestored [{sums} + {sums_stride} + 2112], tmm3",
                left = inout(reg) left.as_ptr() => _,
                right = inout(reg) right.as_ptr() => _,
                left_stride = in(reg) SIDE * words,
                right_stride = in(reg) right_stride * words,
                right_step = in(reg) SIDE * right_stride * words,
                steps = inout(reg) left.len() => _,
                sums = in(reg) sums.as_mut_ptr(),
                sums_stride = in(reg) BLOCK * words,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

/// Whether the processor has tiles, products of bf16 in them, and their state is saved between threads (XCR0).
#[expect(unsafe_code, reason = "XCR0 is read by an instruction that not every processor has")]
fn processor_has_them() -> bool {
    const XSAVE: u32 = 1 << 27;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    const TILE_STATE: u64 = 0b11 << 17;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & XSAVE == 0 {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    // SAFETY: the system has enabled XSAVE.
    let state = unsafe { enabled_state() };
    features & AMX_BF16 != 0 && features & AMX_TILE != 0 && state & TILE_STATE == TILE_STATE
}

/// Register states that the system saves.
///
/// # Safety
/// The system has enabled XSAVE.
#[target_feature(enable = "xsave")]
#[expect(unsafe_code, reason = "an instruction that not every processor has")]
unsafe fn enabled_state() -> u64 {
    // SAFETY: as above.
    unsafe { _xgetbv(0) }
}

/// Only where it is known how to ask.
#[cfg(not(target_os = "linux"))]
fn system_permits_them() -> bool {
    false
}

/// Linux saves tiles only for processes that ask for it (`arch_prctl`), and for all their threads from then on.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a call of the system")]
fn system_permits_them() -> bool {
    const ARCH_PRCTL: u64 = 158;
    const REQUEST_PERMISSION: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let answer: i64;
    // SAFETY: the call changes nothing but the permission; a kernel that does not know it answers with an error.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer == 0
}
