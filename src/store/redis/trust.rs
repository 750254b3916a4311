//! What this process believes of the store: which memory it has, how far its fences were, and the secret of all replicas.
//!
//! A new connection is greeted with it before any call may use it. The first store that a process meets is trusted as
//! it is; another memory later on is not, until the owner of the store says so.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use redis::Value;

use super::{
    connect::{self, Primary},
    script::{Call, Common, Name, Script, Told, epoch_text, unreadable},
};
use crate::store::{Epoch, Fence, Past, Recall, StoreError};

pub(super) struct Trust {
    meta_key: String,
    seen: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    epoch: Option<Epoch>,
    secret: Option<[u8; 32]>,
}

impl Trust {
    pub(super) fn new(meta_key: String) -> Self {
        Self { meta_key, seen: AtomicU64::new(0), inner: Mutex::default() }
    }

    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.lock().epoch
    }

    /// Fences begin with this memory: an older one may have been further.
    pub(super) fn adopt(&self, epoch: Epoch) {
        let mut inner = self.lock();
        if inner.epoch != Some(epoch) {
            self.seen.store(0, Relaxed);
            inner.epoch = Some(epoch);
        }
    }

    pub(super) fn seen(&self) -> Fence {
        Fence(self.seen.load(Relaxed))
    }

    /// Only what the store itself gave out: a restored run may come from a clock that is ahead.
    pub(super) fn note(&self, fence: Fence) {
        self.seen.fetch_max(fence.0, Relaxed);
    }

    pub(super) fn keep_secret(&self, secret: [u8; 32]) {
        self.lock().secret = Some(secret);
    }

    /// A call of a step that every memory answers.
    pub(super) fn call_untrusting(&self, script: Script) -> Call {
        Call::new(script, &Common { meta_key: &self.meta_key, now: "", epoch: None, seen: Fence(0) })
    }

    /// A call of a step that only the trusted memory answers.
    pub(super) fn call(&self, script: Script) -> Result<Call, StoreError> {
        let Some(epoch) = self.epoch() else {
            return Err(StoreError::Down("no connection has been made yet".to_owned()));
        };
        let common = Common { meta_key: &self.meta_key, now: "", epoch: Some(epoch), seen: self.seen() };
        Ok(Call::new(script, &common))
    }

    pub(super) fn offer_epoch(&self) -> Call {
        let trusted = self.epoch().map(epoch_text).unwrap_or_default();
        self.call_untrusting(Script::Epoch).bytes(epoch_text(Epoch(rand::random()))).bytes(trusted)
    }

    pub(super) fn read_recall(told: &mut Told) -> Result<Recall, StoreError> {
        let text = told.word()?;
        let text = std::str::from_utf8(&text).map_err(|_| unreadable())?;
        let epoch = u128::from_str_radix(text, 16).map(Epoch).map_err(|_| unreadable())?;
        let age = told.length()?;
        let past = match &*told.word()? {
            b"forgotten" => Past::Forgotten,
            b"unknown" => Past::Unknown,
            _ => return Err(unreadable()),
        };
        Ok(Recall { epoch, age, past })
    }

    pub(super) fn offer_secret(&self, secret: [u8; 32]) -> Call {
        self.call_untrusting(Script::Secret).bytes(secret)
    }

    pub(super) fn read_secret(told: &mut Told) -> Result<[u8; 32], StoreError> {
        told.bytes()?.as_ref().try_into().map_err(|_| unreadable())
    }

    /// Brings a new connection to what this process believes, and this process to what it finds first.
    pub(super) async fn greet(&self, primary: &mut Primary) -> Result<(), StoreError> {
        let found = Self::read_recall(&mut told(primary, &self.offer_epoch()).await?)?.epoch;
        let secret = {
            let mut inner = self.lock();
            inner.epoch.get_or_insert(found);
            inner.secret
        };
        let Some(secret) = secret else { return Ok(()) };
        // A store that forgot gets it back. One that has got another one meanwhile names every order otherwise.
        if Self::read_secret(&mut told(primary, &self.offer_secret(secret)).await?)? == secret {
            Ok(())
        } else {
            Err(StoreError::Down("it holds another secret than this replica; restart the replica".to_owned()))
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn told(primary: &mut Primary, call: &Call) -> Result<Told, StoreError> {
    let value: Value = connect::ask(&mut primary.connection, &call.command(Name::Text))
        .await
        .map_err(|error| StoreError::Down(error.to_string()))?;
    Told::read(value)
}
