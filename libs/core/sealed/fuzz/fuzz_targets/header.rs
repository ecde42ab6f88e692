//! Any bytes are a header, which encodes to the same bytes again, or are refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealed::HEADER_BYTES;
use sealed::header::Header;

fuzz_target!(|input: &[u8]| {
    let mut bytes = input.to_vec();
    if bytes.len() >= HEADER_BYTES {
        // The checksum has no key: an adversary mends it, and so the target does.
        let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    }
    if let Ok(header) = Header::decode(&bytes) {
        assert_eq!(header.encode(), bytes[..HEADER_BYTES]);
    }
});
