//! In which order encryption is tried with one address (`sslmode`). A plain machine: how a way ended in, the next way out.
//!
//! Under `dial`. As in libpq: `prefer` tries TLS and, where the server or its `pg_hba.conf` will not have it, plaintext;
//! `allow` the other way round; Unix sockets are never encrypted.

use crate::config::target::SslMode;

/// One way to speak to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Plain,
    Tls {
        /// Where the server has no TLS, the same connection goes on without.
        or_plain: bool,
    },
}

/// How a way ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WayEnd {
    /// The handshake failed.
    Handshake,
    /// The server answered the start-up with an error, authentication included, over this kind of stream.
    Refused { encrypted: bool },
    /// Anything else, which the other way would meet as well.
    Other,
}

/// The ways that are left.
#[derive(Debug)]
pub(super) struct Ways {
    mode: SslMode,
    spare: Option<Way>,
}

impl Ways {
    /// The first way, and the others.
    pub(super) fn new(mode: SslMode, is_unix: bool, has_tls: bool) -> (Way, Self) {
        let (first, spare) = match mode {
            _ if is_unix => (Way::Plain, None),
            SslMode::Disable => (Way::Plain, None),
            SslMode::Allow | SslMode::Prefer if !has_tls => (Way::Plain, None),
            SslMode::Allow => (Way::Plain, Some(Way::Tls { or_plain: false })),
            SslMode::Prefer => (Way::Tls { or_plain: true }, Some(Way::Plain)),
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Way::Tls { or_plain: false }, None),
        };
        (first, Self { mode, spare })
    }

    /// Another way to try the same address, on a new connection.
    pub(super) fn after(&mut self, end: WayEnd) -> Option<Way> {
        let another = matches!(
            (self.mode, end),
            (SslMode::Prefer, WayEnd::Handshake | WayEnd::Refused { encrypted: true })
                | (SslMode::Allow, WayEnd::Refused { encrypted: false })
        );
        if another { self.spare.take() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [SslMode; 6] = [
        SslMode::Disable,
        SslMode::Allow,
        SslMode::Prefer,
        SslMode::Require,
        SslMode::VerifyCa,
        SslMode::VerifyFull,
    ];
    const ENDS: [WayEnd; 4] = [
        WayEnd::Handshake,
        WayEnd::Refused { encrypted: true },
        WayEnd::Refused { encrypted: false },
        WayEnd::Other,
    ];

    #[test]
    fn from_require_on_there_is_no_way_without_tls() {
        for mode in &MODES[3..] {
            for end in ENDS {
                let (first, mut ways) = Ways::new(*mode, false, true);
                assert_eq!(first, Way::Tls { or_plain: false });
                assert_eq!(ways.after(end), None);
            }
        }
    }

    #[test]
    fn the_weak_modes_try_both_ways_once() {
        let (first, mut ways) = Ways::new(SslMode::Prefer, false, true);
        assert_eq!(first, Way::Tls { or_plain: true });
        assert_eq!(ways.after(WayEnd::Other), None);
        // The server had no TLS, and refused the plain start-up: nothing else is to be had.
        assert_eq!(ways.after(WayEnd::Refused { encrypted: false }), None);
        assert_eq!(ways.after(WayEnd::Refused { encrypted: true }), Some(Way::Plain));
        assert_eq!(ways.after(WayEnd::Refused { encrypted: true }), None);

        let (first, mut ways) = Ways::new(SslMode::Allow, false, true);
        assert_eq!(first, Way::Plain);
        assert_eq!(ways.after(WayEnd::Other), None);
        let tls = Way::Tls { or_plain: false };
        assert_eq!(ways.after(WayEnd::Refused { encrypted: false }), Some(tls));
        assert_eq!(ways.after(WayEnd::Refused { encrypted: true }), None);
    }

    #[test]
    fn without_a_network_or_a_library_the_weak_modes_are_plain() {
        for mode in MODES {
            assert_eq!(Ways::new(mode, true, true).0, Way::Plain, "a Unix socket");
            if mode < SslMode::Require {
                assert_eq!(Ways::new(mode, false, false).0, Way::Plain);
            }
        }
    }
}
