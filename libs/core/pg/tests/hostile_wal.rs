//! Bytes that are not WAL, or not any more: errors, never panics.

use bytes::Bytes;
use ids::Lsn;
use pg::PgMajor;
use pg::control::{CONTROL_FILE_BYTES, ControlFile};
use pg::datadir::FilenodeMap;
use pg::rmgr::Payload;
use pg::wal::{Compression, Decoder, Image, WalShape, decode, encode_record, lay_out};
use proptest::prelude::*;

const SHAPE: WalShape = WalShape {
    version: PgMajor::V15,
    segment_bytes: 1 << 20,
    system_id: 7,
    tli: 1,
};

proptest! {
    #[test]
    fn a_body_of_any_bytes_is_taken_apart_or_refused(
        parts in prop::collection::vec(prop_oneof![any::<u8>(), 0_u8..4, 252_u8..], 0..200),
        rmid in prop_oneof![0_u8..30, 126_u8..136],
        version in prop::sample::select(&PgMajor::ALL),
    ) {
        let mut record = encode_record(Lsn(8), 3, rmid, 0, b"");
        record.truncate(24);
        record.extend(parts);
        let total = record.len() as u32;
        record[..4].copy_from_slice(&total.to_le_bytes());
        if let Ok(record) = decode(version, Lsn(8), Lsn(16), &record) {
            let _payload_or_error = Payload::read(version, &record);
            for block in record.blocks {
                let _page_or_error = block.image.map(|image| image.restore());
            }
        }
    }

    #[test]
    fn a_payload_of_any_bytes_is_read_or_refused(
        words in prop::collection::vec(prop_oneof![0_u32..6, any::<u32>()], 0..40),
        odd in prop::collection::vec(any::<u8>(), 0..4),
        rmid in prop_oneof![0_u8..23, 126_u8..136],
        op in 0_u8..16,
        prepare in any::<bool>(),
        version in prop::sample::select(&PgMajor::ALL),
    ) {
        let mut payload: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        payload.extend(odd);
        let (mut rmid, mut op) = (rmid, op);
        if prepare && payload.len() >= 8 {
            // Past the magic and the length, which chance does not hit.
            (rmid, op) = (1, 1);
            let total = payload.len() as u32 + 4;
            payload[..4].copy_from_slice(&0x57F9_4534_u32.to_le_bytes());
            payload[4..8].copy_from_slice(&total.to_le_bytes());
        }
        let record = encode_record(Lsn(8), 3, rmid, op << 4, &payload);
        if let Ok(record) = decode(version, Lsn(8), Lsn(16), &record) {
            let _payload_or_error = Payload::read(version, &record);
        }
    }

    #[test]
    fn an_image_of_any_bytes_makes_a_page_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        zstd_magic in any::<bool>(),
        hole_offset in any::<u16>(),
        hole_length in any::<u16>(),
    ) {
        let bytes = if zstd_magic { [&[0x28, 0xB5, 0x2F, 0xFD][..], &bytes].concat() } else { bytes };
        for compression in
            [Compression::None, Compression::Pglz, Compression::Lz4, Compression::Zstd]
        {
            let image = Image { hole_offset, hole_length, compression, apply: true, bytes: &bytes };
            let _page_or_error = image.restore();
        }
    }

    #[test]
    fn control_state_and_maps_of_any_bytes_are_read_or_refused(
        mut bytes in prop::collection::vec(any::<u8>(), 0..600),
        version in prop::sample::select(&PgMajor::ALL),
        length in prop::sample::select(&[512_usize, 524]),
    ) {
        // A map past its magic and its checksum, which chance does not hit.
        bytes.resize(length, 0);
        bytes[..4].copy_from_slice(&0x0059_2717_u32.to_le_bytes());
        let at = if version < PgMajor::V16 { 504 } else { 520 };
        if at + 4 <= length {
            let crc = crc32c::crc32c(&bytes[..at]);
            bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        }
        let _map_or_error = FilenodeMap::parse(version, Bytes::from(bytes.clone()));
        // A pg_control past its catalogue version and its checksum.
        bytes.resize(CONTROL_FILE_BYTES, 0);
        bytes[12..16].copy_from_slice(&version.catalog_version().to_le_bytes());
        let at = if version < PgMajor::V18 { 288 } else { 292 };
        let crc = crc32c::crc32c(&bytes[..at]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        if let Ok(control) = ControlFile::parse(&bytes) {
            let _checkpoint = control.checkpoint();
        }
    }

    #[test]
    fn a_stream_with_a_changed_byte_gives_no_record_that_was_not_there(
        at in 0_usize..20_000,
        flip in 1_u8..,
    ) {
        let (from, mut prev, mut bytes) = (Lsn(1 << 20), Lsn(8), Vec::new());
        for n in 0..20_u8 {
            let record = encode_record(prev, 3, 21, 0, &[n; 1000]);
            let laid = lay_out(&SHAPE, from + bytes.len() as u64, &record);
            prev = laid.start;
            bytes.extend(laid.bytes);
        }
        bytes[at] ^= flip;
        let mut decoder = Decoder::new(SHAPE, from);
        decoder.feed(&bytes);
        let mut count = 0;
        while let Ok(Some((start, end, record))) = decoder.next() {
            let record = decode(SHAPE.version, start, end, record).unwrap();
            prop_assert_eq!(record.main_data, &[count; 1000]);
            count += 1;
        }
    }
}
