//! TFRecord: length and content, each with a checksum.

/// What is added to a rotated checksum, so that the checksum of a text which holds checksums is not degenerate.
const MASK: u32 = 0xA282_EAD8;

/// One record: `u64` length, its checksum, the content, its checksum; numbers little-endian.
pub(super) fn framed(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let checksums = [masked_checksum(&length), masked_checksum(content)].map(u32::to_le_bytes);
    [&length[..], &checksums[0], content, &checksums[1]].concat()
}

/// CRC-32C, rotated right by 15 bits, plus a constant.
fn masked_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(MASK)
}

#[cfg(test)]
mod tests {
    use super::{MASK, masked_checksum};

    /// RFC 3720, appendix B.4: 32 bytes of zero, and of ones.
    #[test]
    fn record_checksum_is_crc32c() {
        let unmasked = |bytes: &[u8]| masked_checksum(bytes).wrapping_sub(MASK).rotate_left(15);
        assert_eq!(unmasked(&[0; 32]), 0x8A91_36AA);
        assert_eq!(unmasked(&[0xFF; 32]), 0x62A8_AB43);
    }
}
