//! SCRAM-SHA-256, the server's side: what is kept of a password, and the two messages of an exchange.
//!
//! A plain machine: nonce and salt are given to it. It keeps no password; the client's proof is checked against what a
//! password becomes when it is set.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// PostgreSQL's own number of iterations.
const ITERATIONS: u32 = 4096;

/// What a server keeps of a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Verifier {
    salt: [u8; 16],
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

/// An exchange behind its first message.
pub(crate) struct Exchange {
    verifier: Verifier,
    /// `client-first-message-bare,server-first-message`.
    so_far: String,
    nonce: String,
    /// The channel-binding header, in base64.
    header: String,
}

impl Verifier {
    pub(crate) fn new(password: &str, salt: [u8; 16]) -> Self {
        let salted = salted_password(password.as_bytes(), &salt);
        let client_key = hmac(&salted, b"Client Key");
        Self {
            salt,
            stored_key: Sha256::digest(client_key).into(),
            server_key: hmac(&salted, b"Server Key"),
        }
    }

    /// The first message of a client, as in `n,,n=user,r=nonce`; gives what the server answers.
    ///
    /// # Errors
    /// What is wrong with the message, in PostgreSQL's words.
    pub(crate) fn begin(&self, first: &str, server_nonce: &str) -> Result<(Exchange, String), &'static str> {
        const MALFORMED: &str = "malformed SCRAM message";
        let bare_at = match first.as_bytes().first() {
            // The client could do channel binding but thinks that the server cannot: true without TLS.
            Some(b'n' | b'y') if first[1..].starts_with(',') => {
                let rest = &first[2..];
                3 + rest.find(',').ok_or(MALFORMED)?
            }
            Some(b'p') => return Err("client selected channel binding without SSL"),
            _ => return Err(MALFORMED),
        };
        let (header, bare) = first.split_at(bare_at);
        let client_nonce = bare
            .split(',')
            .find_map(|part| part.strip_prefix("r="))
            .ok_or(MALFORMED)?;
        let nonce = format!("{client_nonce}{server_nonce}");
        let answer = format!("r={nonce},s={},i={ITERATIONS}", STANDARD.encode(self.salt));
        let exchange = Exchange {
            verifier: self.clone(),
            so_far: format!("{bare},{answer}"),
            nonce,
            header: STANDARD.encode(header),
        };
        Ok((exchange, answer))
    }
}

impl Exchange {
    /// The last message of a client; gives the server's, which proves that it knows the password too.
    ///
    /// # Errors
    /// `None` for a wrong password; else what is wrong with the message.
    pub(crate) fn finish(&self, last: &str) -> Result<String, Option<&'static str>> {
        const MALFORMED: Option<&str> = Some("malformed SCRAM message");
        let (unproven, proof) = last.rsplit_once(",p=").ok_or(MALFORMED)?;
        let mut parts = unproven.split(',');
        let binding = parts.next().and_then(|part| part.strip_prefix("c="));
        let nonce = parts.next().and_then(|part| part.strip_prefix("r="));
        if binding != Some(&self.header) || nonce != Some(&self.nonce) {
            return Err(MALFORMED);
        }
        let proof: [u8; 32] = STANDARD
            .decode(proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or(MALFORMED)?;
        let text = format!("{},{unproven}", self.so_far);
        let signature = hmac(&self.verifier.stored_key, text.as_bytes());
        let mut client_key = proof;
        client_key
            .iter_mut()
            .zip(signature)
            .for_each(|(byte, mask)| *byte ^= mask);
        let stored: [u8; 32] = Sha256::digest(client_key).into();
        if stored != self.verifier.stored_key {
            return Err(None);
        }
        let signature = hmac(&self.verifier.server_key, text.as_bytes());
        Ok(format!("v={}", STANDARD.encode(signature)))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// PBKDF2 with one block.
fn salted_password(password: &[u8], salt: &[u8]) -> [u8; 32] {
    let keyed = Hmac::<Sha256>::new_from_slice(password).expect("a key of any length will do");
    let mut first = keyed.clone();
    first.update(salt);
    first.update(&1u32.to_be_bytes());
    let mut round: [u8; 32] = first.finalize().into_bytes().into();
    let mut salted = round;
    for _ in 1..ITERATIONS {
        let mut next = keyed.clone();
        next.update(&round);
        round = next.finalize().into_bytes().into();
        salted.iter_mut().zip(round).for_each(|(byte, mask)| *byte ^= mask);
    }
    salted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_exchange_of_the_standard() {
        let salt: [u8; 16] = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        let verifier = Verifier::new("pencil", salt);
        let (exchange, answer) = verifier
            .begin("n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
            .unwrap();
        assert_eq!(
            answer,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(
            exchange.finish(last).unwrap(),
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
        let wrong = last.replace("p=dHz", "p=eHz");
        assert_eq!(exchange.finish(&wrong), Err(None));
        assert_eq!(exchange.finish("c=biws"), Err(Some("malformed SCRAM message")));
    }
}
