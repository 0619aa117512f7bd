//! Which ways of authentication a server may use (`require_auth`). A plain machine: what the server sends in, a refusal out.
//!
//! In front of the tap, and only where `require_auth` says anything: it reads each Authentication message before
//! tokio-postgres does, so that nothing is answered that must not be: a password, above all. Its memory is a few bytes.

use std::fmt;

use crate::config::target::RequireAuth;

/// The largest Authentication message of an honest server, as in libpq.
const MAX_REQUEST: u32 = 2_000;

/// Follows the start of one connection.
#[derive(Debug)]
pub(super) struct AuthGate {
    allowed: RequireAuth,
    /// Type byte, length, and of an Authentication message its kind.
    head: [u8; 9],
    have: usize,
    /// Bytes of the message still to come.
    rest: u32,
    /// The server has asked for a proof, and our side of it is given or, for SCRAM, was answered by the server's own.
    is_proven: bool,
    is_over: bool,
}

/// Why a server's way of authentication is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthRefusal {
    /// It asked for this.
    Requested(&'static str),
    /// It let us in without a proof, or before the proof was complete.
    Incomplete,
    /// It is none that could be.
    Malformed,
}

impl AuthGate {
    pub(super) fn new(allowed: RequireAuth) -> Self {
        Self {
            allowed,
            head: [0; 9],
            have: 0,
            rest: 0,
            is_proven: false,
            is_over: false,
        }
    }

    /// Whether authentication is over, one way or the other: nothing is looked at any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Bytes from the server, in pieces of any size.
    pub(super) fn inbound(&mut self, mut bytes: &[u8]) -> Result<(), AuthRefusal> {
        while !self.is_over {
            let is_request = self.have > 0 && self.head[0] == b'R';
            let wanted = if is_request { 9 } else { 5 };
            if self.have < wanted {
                let Some((&byte, after)) = bytes.split_first() else {
                    return Ok(());
                };
                bytes = after;
                self.head[self.have] = byte;
                self.have += 1;
                self.complete_head()?;
                continue;
            }
            let skip = bytes.len().min(usize::try_from(self.rest).unwrap_or(usize::MAX));
            bytes = &bytes[skip..];
            self.rest -= u32::try_from(skip).unwrap_or(self.rest);
            if self.rest > 0 {
                return Ok(());
            }
            self.have = 0;
        }
        Ok(())
    }

    fn complete_head(&mut self) -> Result<(), AuthRefusal> {
        let [tag, head @ ..] = self.head;
        let [l0, l1, l2, l3, kind @ ..] = head;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        match (tag, self.have) {
            (b'R', 9) => {
                self.rest = length - 8;
                self.request(u32::from_be_bytes(kind))
            }
            (b'R', 5) if !(8..=MAX_REQUEST).contains(&length) => Err(AuthRefusal::Malformed),
            // Nothing comes behind an error.
            (b'E', 5) => {
                self.is_over = true;
                Ok(())
            }
            (_, 5) => {
                self.rest = length.checked_sub(4).ok_or(AuthRefusal::Malformed)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn request(&mut self, kind: u32) -> Result<(), AuthRefusal> {
        let (is_allowed, what) = match kind {
            0 => {
                self.is_over = true;
                let is_enough = self.is_proven || self.allowed.none;
                return if is_enough {
                    Ok(())
                } else {
                    Err(AuthRefusal::Incomplete)
                };
            }
            3 => (self.allowed.password, "the password in clear text"),
            5 => (self.allowed.md5, "the password's MD5"),
            10..=12 => (self.allowed.scram_sha_256, "SASL (SCRAM)"),
            2 => (false, "Kerberos V5"),
            6 => (false, "SCM credentials"),
            7 | 8 => (false, "GSSAPI"),
            9 => (false, "SSPI"),
            _ => (false, "a method that is not known"),
        };
        if !is_allowed {
            return Err(AuthRefusal::Requested(what));
        }
        // Of SCRAM only the server's own proof counts, which tokio-postgres verifies.
        self.is_proven = matches!(kind, 3 | 5 | 12);
        Ok(())
    }
}

impl fmt::Display for AuthRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested(what) => write!(f, "require_auth: the server asked for {what}"),
            Self::Incomplete => f.write_str("require_auth: the server did not complete authentication"),
            Self::Malformed => f.write_str("the server's request for authentication is malformed"),
        }
    }
}

impl std::error::Error for AuthRefusal {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOTHING: RequireAuth = RequireAuth {
        none: false,
        password: false,
        md5: false,
        scram_sha_256: false,
    };

    fn request(kind: u32, rest: &[u8]) -> Vec<u8> {
        let mut message = vec![b'R'];
        message.extend_from_slice(&(8 + rest.len() as u32).to_be_bytes());
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(rest);
        message
    }

    fn outcome(allowed: RequireAuth, messages: &[Vec<u8>]) -> Result<(), AuthRefusal> {
        let mut gate = AuthGate::new(allowed);
        messages.iter().try_for_each(|message| gate.inbound(message))
    }

    fn scram() -> Vec<Vec<u8>> {
        vec![
            request(10, b"SCRAM-SHA-256\0\0"),
            request(11, b"r=x"),
            request(12, b"v=x"),
            request(0, b""),
        ]
    }

    #[test]
    fn each_method_passes_where_it_is_allowed_only() {
        let all = |none, password, md5, scram_sha_256| RequireAuth {
            none,
            password,
            md5,
            scram_sha_256,
        };
        let clear = vec![request(3, b""), request(0, b"")];
        let md5 = vec![request(5, b"salt"), request(0, b"")];
        let none = vec![request(0, b"")];
        for (allowed, passes) in [
            (all(true, false, false, false), [true, false, false, false]),
            (all(false, true, false, false), [false, true, false, false]),
            (all(false, false, true, false), [false, false, true, false]),
            (all(false, false, false, true), [false, false, false, true]),
            (all(true, false, true, true), [true, false, true, true]),
        ] {
            let all = [none.clone(), clear.clone(), md5.clone(), scram()];
            for (messages, passes) in all.iter().zip(passes) {
                assert_eq!(outcome(allowed, messages).is_ok(), passes, "{allowed:?} {messages:?}");
            }
        }
    }

    #[test]
    fn scram_without_the_servers_proof_is_not_complete() {
        let allowed = RequireAuth {
            scram_sha_256: true,
            ..NOTHING
        };
        for cut in 0..3 {
            let mut messages = scram();
            messages.drain(cut..3);
            assert_eq!(outcome(allowed, &messages), Err(AuthRefusal::Incomplete), "{cut}");
        }
    }

    #[test]
    fn what_no_server_sends_is_refused() {
        let anything = RequireAuth {
            none: true,
            password: true,
            md5: true,
            scram_sha_256: true,
        };
        let long = vec![b'R', 0, 1, 0, 0];
        let short = vec![b'R', 0, 0, 0, 7];
        let backwards = vec![b'N', 0, 0, 0, 3];
        for message in [long, short, backwards] {
            assert_eq!(outcome(anything, &[message]), Err(AuthRefusal::Malformed));
        }
        for kind in [1, 2, 6, 7, 8, 9, 13, u32::MAX] {
            let refused = outcome(anything, &[request(kind, b"")]);
            assert!(matches!(refused, Err(AuthRefusal::Requested(_))), "{kind}");
        }
    }

    proptest! {
        /// In whatever pieces the bytes come, what is refused is the same, and before anything behind it.
        #[test]
        fn pieces_make_no_difference(
            kinds in prop::collection::vec(0_u32..14, 1..5),
            notices in prop::collection::vec(0_usize..40, 1..5),
            sizes in prop::collection::vec(1_usize..20, 1..10),
            flags: (bool, bool, bool, bool),
        ) {
            let allowed = RequireAuth { none: flags.0, password: flags.1, md5: flags.2, scram_sha_256: flags.3 };
            let mut bytes = Vec::new();
            for (kind, notice) in kinds.iter().zip(notices.iter().cycle()) {
                bytes.push(b'N');
                bytes.extend_from_slice(&(4 + *notice as u32).to_be_bytes());
                bytes.extend(std::iter::repeat_n(b'R', *notice));
                bytes.extend(request(*kind, &vec![b'R'; *notice]));
            }
            let whole = outcome(allowed, std::slice::from_ref(&bytes));
            let mut pieces = Vec::new();
            let mut rest = &bytes[..];
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break }
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece.to_vec());
                rest = after;
            }
            prop_assert_eq!(outcome(allowed, &pieces), whole);
        }
    }
}
