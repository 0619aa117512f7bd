//! The receipt of a commit: what a caller may keep of it.
//!
//! A value at the end of a transaction's way.

/// What a commit leaves in the caller's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    transaction_id: Option<u64>,
}

impl Receipt {
    pub(super) fn new(transaction_id: Option<u64>) -> Self {
        Self { transaction_id }
    }

    /// Nothing was ever sent.
    pub(super) fn empty() -> Self {
        Self { transaction_id: None }
    }

    /// The server's number of the transaction, `xid8` there; `None` for one that wrote nothing.
    #[must_use]
    pub fn transaction_id(&self) -> Option<u64> {
        self.transaction_id
    }
}
