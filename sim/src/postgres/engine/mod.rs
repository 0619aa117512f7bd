//! The engine of one node: SQL, catalog, row versions, locks. A plain machine.
