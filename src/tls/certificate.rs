//! What rustls does not tell of a certificate: the hash its signature was made with, and its days. A plain machine: DER in,
//! values out.
//!
//! Beside the verifier. It trusts nothing of what it reads and reads nothing twice; a certificate it does not understand has
//! no channel binding, and is none that may be pinned.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

/// Tags of DER.
mod tag {
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const OID: u8 = 0x06;
    pub(super) const UTC_TIME: u8 = 0x17;
    pub(super) const GENERALIZED_TIME: u8 = 0x18;
    pub(super) const SEQUENCE: u8 = 0x30;
    /// `[0]`, constructed: the version of a certificate, the hash of RSASSA-PSS parameters.
    pub(super) const CONTEXT_0: u8 = 0xa0;
}

/// Object identifiers, as in DER.
mod oid {
    /// 1.2.840.113549.1.1: RSA's; the next byte tells the hash.
    pub(super) const RSA: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    /// 1.2.840.10045.4.1: ECDSA with SHA-1.
    pub(super) const ECDSA_SHA1: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
    /// 1.2.840.10045.4.3: ECDSA with SHA-2; the next byte tells the hash.
    pub(super) const ECDSA: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    /// 2.16.840.1.101.3.4.2: SHA-2; the next byte tells which.
    pub(super) const SHA2: [u8; 8] = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// `tls-server-end-point` (RFC 5929): the certificate's hash by its signature's hash function; SHA-256 in place of MD5 and
/// SHA-1. `None` for signatures without one, such as Ed25519, for which it is not defined.
pub(super) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    Some(match signature_hash(certificate)? {
        Hash::Sha224 => Sha224::digest(certificate).to_vec(),
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

/// From when to when it is good, both included, in seconds since 1970.
pub(super) fn validity(certificate: &[u8]) -> Option<(u64, u64)> {
    let (tbs, _) = parts(certificate)?;
    let mut rest = tbs;
    if rest.first() == Some(&tag::CONTEXT_0) {
        take(&mut rest, tag::CONTEXT_0)?;
    }
    take(&mut rest, tag::INTEGER)?;
    // The signature's algorithm, and the issuer.
    take(&mut rest, tag::SEQUENCE)?;
    take(&mut rest, tag::SEQUENCE)?;
    let mut validity = take(&mut rest, tag::SEQUENCE)?;
    Some((time(&mut validity)?, time(&mut validity)?))
}

fn signature_hash(certificate: &[u8]) -> Option<Hash> {
    let (_, mut algorithm) = parts(certificate)?;
    let id = take(&mut algorithm, tag::OID)?;
    if id == oid::ECDSA_SHA1 {
        return Some(Hash::Sha256);
    }
    if let Some([which]) = id.strip_prefix(&oid::ECDSA) {
        return [Hash::Sha224, Hash::Sha256, Hash::Sha384, Hash::Sha512]
            .get(usize::from(*which).checked_sub(1)?)
            .copied();
    }
    match id.strip_prefix(&oid::RSA)? {
        // MD5 and SHA-1.
        [4 | 5] => Some(Hash::Sha256),
        [10] => pss_hash(algorithm),
        [11] => Some(Hash::Sha256),
        [12] => Some(Hash::Sha384),
        [13] => Some(Hash::Sha512),
        [14] => Some(Hash::Sha224),
        _ => None,
    }
}

/// The hash in RSASSA-PSS's parameters; without one it is SHA-1.
fn pss_hash(mut algorithm: &[u8]) -> Option<Hash> {
    let mut parameters = take(&mut algorithm, tag::SEQUENCE)?;
    let Some(mut hash) = take(&mut parameters, tag::CONTEXT_0) else {
        return Some(Hash::Sha256);
    };
    let mut hash = take(&mut hash, tag::SEQUENCE)?;
    let id = take(&mut hash, tag::OID)?;
    match id.strip_prefix(&oid::SHA2)? {
        [1] => Some(Hash::Sha256),
        [2] => Some(Hash::Sha384),
        [3] => Some(Hash::Sha512),
        [4] => Some(Hash::Sha224),
        _ => None,
    }
}

/// The signed part of a certificate, and the algorithm of its signature.
fn parts(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut input = certificate;
    let mut parts = take(&mut input, tag::SEQUENCE)?;
    let signed = take(&mut parts, tag::SEQUENCE)?;
    Some((signed, take(&mut parts, tag::SEQUENCE)?))
}

/// Takes one element with this tag from the front; its content. Nothing is taken when the front is something else.
fn take<'a>(input: &mut &'a [u8], wanted: u8) -> Option<&'a [u8]> {
    let (&[tag, first], rest) = input.split_first_chunk::<2>()?;
    if tag != wanted {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // So many bytes of length follow; more than three are none of a certificate.
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (
                bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
                rest,
            )
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some(content)
}

/// Seconds since 1970 of a time in the forms that certificates have: `YYMMDDhhmmssZ` and `YYYYMMDDhhmmssZ`.
fn time(input: &mut &[u8]) -> Option<u64> {
    let (text, is_short) = match input.first()? {
        &tag::UTC_TIME => (take(input, tag::UTC_TIME)?, true),
        _ => (take(input, tag::GENERALIZED_TIME)?, false),
    };
    let digits = text.strip_suffix(b"Z")?;
    if digits.len() != if is_short { 12 } else { 14 } || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (year, rest) = digits.split_at(digits.len() - 10);
    let number = |digits: &[u8]| {
        digits
            .iter()
            .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    };
    let year = match number(year) {
        year if !is_short => year,
        year @ 0..=49 => 2000 + year,
        year => 1900 + year,
    };
    let mut pairs = rest.chunks(2).map(number);
    let mut next = || pairs.next().unwrap_or(0);
    let (month, day, hour, minute, second) = (next(), next(), next(), next(), next());
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // What began before 1970 has begun.
    Some((days(year, month, day).checked_mul(86_400)? + hour * 3_600 + minute * 60) + second)
}

/// Days from 1970 to a day of the Gregorian calendar; none for those before.
fn days(year: u64, month: u64, day: u64) -> u64 {
    // Years that begin with March have their leap day last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.saturating_sub(1), month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    days.saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, date_time_ymd,
    };

    use super::*;

    fn made(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["db1".to_owned()]).expect("a name");
        params.not_before = date_time_ymd(1999, 12, 31);
        params.not_after = date_time_ymd(2100, 2, 28);
        let key = KeyPair::generate_for(algorithm).expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let certificate = made(&PKCS_ECDSA_P256_SHA256);
        assert_eq!(
            server_end_point(&certificate),
            Some(Sha256::digest(&certificate).to_vec())
        );
        let certificate = made(&PKCS_ECDSA_P384_SHA384);
        assert_eq!(
            server_end_point(&certificate),
            Some(Sha384::digest(&certificate).to_vec())
        );
        assert_eq!(server_end_point(&made(&PKCS_ED25519)), None);
    }

    #[test]
    fn both_forms_of_a_day_are_read() {
        // 946598400 is 1999-12-31, 4107456000 is 2100-02-28 (of a year without a leap day).
        assert_eq!(
            validity(&made(&PKCS_ECDSA_P256_SHA256)),
            Some((946_598_400, 4_107_456_000))
        );
        for (text, seconds) in [
            ("20000229123456Z", Some(951_827_696)),
            ("19700101000000Z", Some(0)),
            ("20240301000000Z", Some(1_709_251_200)),
            ("20241301000000Z", None),
            ("2024030100000Z", None),
            ("20240301000000", None),
        ] {
            let mut der = vec![tag::GENERALIZED_TIME, u8::try_from(text.len()).expect("short")];
            der.extend_from_slice(text.as_bytes());
            assert_eq!(time(&mut &der[..]), seconds, "{text}");
        }
    }

    #[test]
    fn pss_names_its_hash_in_its_parameters() {
        // SEQUENCE { [0] SEQUENCE { OID sha384 } }
        let mut parameters = vec![0x30, 0x0f, 0xa0, 0x0d, 0x30, 0x0b, 0x06, 0x09];
        parameters.extend_from_slice(&oid::SHA2);
        parameters.push(2);
        assert_eq!(pss_hash(&parameters), Some(Hash::Sha384));
        assert_eq!(pss_hash(&[0x30, 0x00]), Some(Hash::Sha256));
    }

    proptest! {
        /// Whatever a server calls its certificate, reading it ends, and what is cut short is not understood.
        #[test]
        fn anything_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0_usize..300) {
            let _ = (server_end_point(&bytes), validity(&bytes));
            let certificate = made(&PKCS_ECDSA_P256_SHA256);
            prop_assert_eq!(server_end_point(&certificate[..cut.min(certificate.len() - 1)]), None);
        }
    }
}
