//! SHA-256 as an array: what files held, and keys, are compared by it.

use ring::digest::{SHA256, digest};

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}
