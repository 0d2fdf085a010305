//! Blocks of the standard, blocks of another implementation, and blocks there and back.

use bytes::BytesMut;
use proptest::prelude::*;

use super::{Decoder, Encoder, Malformed};
use crate::link::head::Head;

type Field = (Vec<u8>, Vec<u8>);

fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Field>, Malformed> {
    let mut head = Head::default();
    decoder.read(block, &mut head)?;
    Ok(head
        .iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect())
}

fn fields(list: &[(&str, &str)]) -> Vec<Field> {
    let bytes = |text: &str| text.as_bytes().to_vec();
    list.iter()
        .map(|(name, value)| (bytes(name), bytes(value)))
        .collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// RFC 7541, C.3 (raw) and C.4 (Huffman): three requests on one connection.
#[test]
fn requests_of_the_standard() {
    let raw = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let coded = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    let host = (":authority", "www.example.com");
    let wanted = [
        vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            host,
        ],
        vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            host,
            ("cache-control", "no-cache"),
        ],
        vec![
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            host,
            ("custom-key", "custom-value"),
        ],
    ];
    for blocks in [raw, coded] {
        let mut decoder = Decoder::new();
        for (block, wanted) in blocks.iter().zip(&wanted) {
            assert_eq!(read(&mut decoder, &hex(block)).unwrap(), fields(wanted));
        }
    }
}

/// RFC 7541, C.6: a table of 256 bytes, from which entries are driven out.
#[test]
fn answers_of_the_standard() {
    let blocks = [
        "3fe101 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
         1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 \
         b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    let mut decoder = Decoder::new();
    let first = read(&mut decoder, &hex(blocks[0])).unwrap();
    assert_eq!(first[0], fields(&[(":status", "302")])[0]);
    assert_eq!(
        first[2],
        fields(&[("date", "Mon, 21 Oct 2013 20:13:21 GMT")])[0]
    );
    let second = read(&mut decoder, &hex(blocks[1])).unwrap();
    assert_eq!(second[0], fields(&[(":status", "307")])[0]);
    assert_eq!(second[1..], first[1..]);
    let third = read(&mut decoder, &hex(blocks[2])).unwrap();
    let cookie = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
    assert_eq!(third.last().unwrap(), &fields(&[("set-cookie", cookie)])[0]);
}

#[test]
fn malformed_blocks() {
    for block in [
        // Number 0, numbers of nothing, a cut number, a cut text, bad Huffman code.
        "80",
        "be",
        "ff",
        "c0",
        "41",
        "4103 6162",
        "0001 61",
        "4181 ff",
        "7f80 8080 8080 01",
        // A table larger than allowed, and a change of it behind a field.
        "3fe2 1f",
        "82 20",
    ] {
        assert_eq!(
            read(&mut Decoder::new(), &hex(block)),
            Err(Malformed),
            "{block}"
        );
    }
    // Exactly as large as allowed, and none at all.
    assert!(read(&mut Decoder::new(), &hex("3fe1 1f 20 82")).is_ok());
}

#[test]
fn a_field_is_remembered_when_it_comes_again() {
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::new();
    let lengths: Vec<usize> = (0..4)
        .map(|_| {
            let mut out = BytesMut::new();
            encoder.begin(&mut out);
            encoder.field(b"user-agent", b"curl/8.0", &mut out);
            Encoder::once(b"x-id", b"123", &mut out);
            Encoder::secret(b"authorization", b"abc", &mut out);
            let found = read(&mut decoder, &out).unwrap();
            assert_eq!(
                found,
                fields(&[
                    ("user-agent", "curl/8.0"),
                    ("x-id", "123"),
                    ("authorization", "abc")
                ])
            );
            out.len()
        })
        .collect();
    // What is to be remembered has its name in one byte.
    assert_eq!(lengths[0], lengths[1] + 1);
    assert_eq!(lengths[2], lengths[3]);
    assert!(lengths[2] + 8 < lengths[0]);
}

#[test]
fn fixed_fields_are_numbers() {
    let mut encoder = Encoder::new();
    for (number, (name, value)) in (1u8..).zip(&super::fixed::FIELDS) {
        let mut out = BytesMut::new();
        encoder.field(name, value, &mut out);
        assert_eq!(&out[..], [0x80 | number], "{number}");
    }
}

#[test]
fn the_other_end_may_remember_less() {
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::new();
    for limit in [4096, 100, 0, 60, 4096] {
        encoder.set_limit(limit);
        for round in 0..6 {
            let mut out = BytesMut::new();
            encoder.begin(&mut out);
            encoder.field(b"x-one", b"1", &mut out);
            encoder.field(b"x-two", b"2", &mut out);
            let found = read(&mut decoder, &out).unwrap();
            assert_eq!(
                found,
                fields(&[("x-one", "1"), ("x-two", "2")]),
                "{limit} {round}"
            );
        }
    }
}

proptest! {
    #[test]
    fn there_and_back(
        blocks in prop::collection::vec(
            prop::collection::vec(("[a-d]{1,2}", prop::collection::vec(any::<u8>(), 0..40)), 0..8),
            0..60,
        ),
        limits in prop::collection::vec(0usize..300, 0..4),
    ) {
        let mut encoder = Encoder::new();
        let mut decoder = Decoder::new();
        let mut limits = limits.into_iter();
        for (number, block) in blocks.iter().enumerate() {
            if number % 16 == 15 && let Some(limit) = limits.next() {
                encoder.set_limit(limit);
            }
            let mut out = BytesMut::new();
            encoder.begin(&mut out);
            for (name, value) in block {
                encoder.field(name.as_bytes(), value, &mut out);
            }
            let found = read(&mut decoder, &out).unwrap();
            let wanted: Vec<Field> =
                block.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone())).collect();
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn noise_is_refused_or_read(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..20)) {
        let mut decoder = Decoder::new();
        for block in &blocks {
            // Whatever it is, it ends, and the table stays within its bound.
            drop(read(&mut decoder, block));
        }
    }
}
