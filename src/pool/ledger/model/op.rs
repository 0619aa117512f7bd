//! The steps of a history, and how bytes become steps.
//!
//! Compiled for tests and fuzzing only.

/// One step. Numbers pick among what is there, so every list of operations is a valid history.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Abandon { pick: u8 },
    Advance { millis: u16 },
    BumpEpoch,
    Checkin { pick: u8, how: u8 },
    Checkout,
    Close,
    Closed { pick: u8 },
    ConnectFailed { pick: u8, how: u8 },
    Connected { pick: u8 },
    Ended { pick: u8 },
    Join { depth: u8 },
    Leave { pick: u8, how: u8 },
    PassOn { pick: u8 },
    Resize { min: u8, max: u8 },
    Revalidate { pick: u8 },
    Settled { pick: u8, how: u8 },
    Share { pick: u8 },
    Stale { pick: u8 },
    Upkeep,
}

impl Op {
    /// Every four bytes are an operation, the frequent ones more often.
    pub(crate) fn decode([kind, pick, how, more]: [u8; 4]) -> Self {
        match kind % 64 {
            0..=10 => Self::Checkout,
            11..=20 => Self::Checkin { pick, how },
            21..=28 => Self::Upkeep,
            29..=35 => Self::Connected { pick },
            36..=39 => Self::Closed { pick },
            40..=45 => Self::Settled { pick, how },
            46..=47 => Self::Advance {
                millis: u16::from_le_bytes([how, more % 16]),
            },
            48 => Self::Abandon { pick },
            49 => Self::PassOn { pick },
            50 => Self::ConnectFailed { pick, how },
            51 => Self::Ended { pick },
            52 => Self::Revalidate { pick },
            53..=54 => Self::Share { pick },
            55..=58 => Self::Join { depth: how },
            59..=60 => Self::Leave { pick, how },
            61 => Self::Resize { min: pick, max: how },
            62 => Self::Stale { pick },
            _ if how < 24 => Self::Close,
            _ => Self::BumpEpoch,
        }
    }

    /// What should be rare in a calm life.
    pub(super) const fn is_fault(self) -> bool {
        match self {
            Self::BumpEpoch | Self::Close | Self::ConnectFailed { .. } | Self::Ended { .. } | Self::Resize { .. } => {
                true
            }
            Self::Checkin { how, .. } | Self::Leave { how, .. } => how % 8 == 7,
            Self::Settled { how, .. } => how < 64,
            Self::Abandon { .. } | Self::PassOn { .. } | Self::Revalidate { .. } => true,
            _ => false,
        }
    }
}
