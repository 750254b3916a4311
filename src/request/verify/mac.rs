//! Keyed hashes of the kinds that providers sign with, compared in constant time.
//!
//! It never shows a key: a [`Key`] has no `Debug`.

use hmac::{Hmac, KeyInit, Mac};
use sha1::{Digest, Sha1};
use sha2::{Sha256, Sha512};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

/// A key, ready to be used.
#[derive(Clone)]
pub(super) enum Key {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha512(Hmac<Sha512>),
}

impl Key {
    pub(super) fn new(algorithm: Algorithm, bytes: &[u8]) -> Self {
        match algorithm {
            Algorithm::Sha1 => Self::Sha1(keyed(bytes)),
            Algorithm::Sha256 => Self::Sha256(keyed(bytes)),
            Algorithm::Sha512 => Self::Sha512(keyed(bytes)),
        }
    }

    /// Whether one of the signatures is this key's over the parts, one after the other.
    pub(super) fn signed(&self, parts: &[&[u8]], signatures: &[Vec<u8>]) -> bool {
        match self {
            Self::Sha1(mac) => signed(mac, parts, signatures),
            Self::Sha256(mac) => signed(mac, parts, signatures),
            Self::Sha512(mac) => signed(mac, parts, signatures),
        }
    }
}

fn keyed<M: KeyInit>(bytes: &[u8]) -> M {
    M::new_from_slice(bytes).expect("a key of HMAC may have any length")
}

fn signed<M: Mac + Clone>(mac: &M, parts: &[&[u8]], signatures: &[Vec<u8>]) -> bool {
    let mut mac = mac.clone();
    for part in parts {
        mac.update(part);
    }
    signatures.iter().fold(false, |good, signature| mac.clone().verify_slice(signature).is_ok() | good)
}

pub(super) fn sha1(bytes: &[u8]) -> [u8; 20] {
    Sha1::digest(bytes).into()
}
