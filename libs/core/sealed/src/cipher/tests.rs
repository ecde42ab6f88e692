use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Vectors {
    tests: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vector {
    tc_id: u32,
    key: String,
    iv: String,
    aad: String,
    msg: String,
    ct: String,
    tag: String,
    result: String,
}

fn unhex<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

#[test]
#[cfg_attr(
    feature = "nonce-audit",
    ignore = "the published vectors repeat nonces"
)]
fn wycheproof_vectors_seal_and_open_as_published() {
    let text = include_str!("../../tests/vectors/wycheproof-aes-256-gcm-siv.json");
    let vectors: Vectors = serde_json::from_str(text).unwrap();
    assert_eq!(vectors.tests.len(), 103);
    for v in &vectors.tests {
        let aead = Aead::new(&unhex(&v.key));
        let (nonce, aad, tag) = (unhex(&v.iv), hex::decode(&v.aad).unwrap(), unhex(&v.tag));
        let (message, sealed) = (hex::decode(&v.msg).unwrap(), hex::decode(&v.ct).unwrap());
        let mut buffer = sealed.clone();
        let opened = aead.open(&nonce, &aad, &mut buffer, &tag).is_ok();
        assert_eq!(opened, v.result == "valid", "case {}", v.tc_id);
        if v.result == "valid" {
            assert_eq!(buffer, message, "case {}", v.tc_id);
            let made = aead.seal(&nonce, &aad, &mut buffer);
            assert_eq!((buffer, made), (sealed, tag), "case {}", v.tc_id);
        }
    }
}

#[test]
fn expansion_depends_on_the_bytes_of_its_label_alone() {
    let prk = Prk::extract(b"salt", &[7; 32]);
    assert_eq!(
        *prk.expand::<40>(&[b"ab", b"c"]),
        *prk.expand::<40>(&[b"abc"])
    );
    assert_ne!(*prk.expand::<40>(&[b"abc"]), *prk.expand::<40>(&[b"abd"]));
}

#[test]
fn mac_is_the_beginning_of_hmac_sha256() {
    // RFC 4231 case 1 has a key of 20 bytes; HMAC pads with zeros, so a padded key is the same.
    let mut key = [0; 32];
    key[..20].fill(0x0b);
    assert_eq!(
        hex::encode(mac(&key, b"Hi There")),
        "b0344c61d8db38535ca8afceaf0bf12b"
    );
}
