//! The steps as scripts: their texts, how one is called, and how its answer is read.
//!
//! A step is one `EVALSHA`. Its text is what all steps begin with, the step itself, and what all end with. Nothing
//! here connects or waits.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Value};

use crate::store::{Epoch, Fence, Key, StoreError};

/// Longer ones mean "for ever", and would lose their last digits in a script.
const LENGTH_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

macro_rules! scripts {
    ($($name:ident = $file:literal),* $(,)?) => {
        /// A step, by the name of its file.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Script { $($name),* }

        impl Script {
            pub(super) const ALL: &'static [Self] = &[$(Self::$name),*];

            pub(super) const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => concat!(
                        include_str!("cells.lua"),
                        include_str!("machine.lua"),
                        include_str!($file),
                        include_str!("wake.lua"),
                    )),*
                }
            }
        }
    };
}

scripts! {
    Claim = "claim.lua",
    Renew = "renew.lua",
    Settle = "settle.lua",
    Abandon = "abandon.lua",
    Delivered = "delivered.lua",
    Generation = "generation.lua",
    Inspect = "inspect.lua",
    Resolve = "resolve.lua",
    Forget = "forget.lua",
    Kept = "kept.lua",
    Restore = "restore.lua",
    Epoch = "epoch.lua",
    Secret = "secret.lua",
}

/// What every script is told beside its own arguments.
pub(super) struct Common<'a> {
    pub(super) meta_key: &'a str,
    /// Empty but in tests: the time in milliseconds.
    pub(super) now: &'a str,
    pub(super) epoch: Option<Epoch>,
    /// The highest fence that this process was given here.
    pub(super) seen: Fence,
}

/// One call of a script, before it is known by which name the server calls it.
pub(super) struct Call {
    pub(super) script: Script,
    arguments: Vec<Vec<u8>>,
}

impl Call {
    pub(super) fn new(script: Script, common: &Common<'_>) -> Self {
        let epoch = common.epoch.map(epoch_text).unwrap_or_default();
        let arguments = vec![
            common.meta_key.as_bytes().to_vec(),
            common.now.as_bytes().to_vec(),
            epoch.into_bytes(),
            common.seen.0.to_string().into_bytes(),
        ];
        Self { script, arguments }
    }

    pub(super) fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.arguments.push(bytes.into());
        self
    }

    pub(super) fn number(self, number: u64) -> Self {
        self.bytes(number.to_string())
    }

    pub(super) fn length(self, length: Duration) -> Self {
        self.number(millis(length))
    }

    pub(super) fn key(self, key: Option<Key>) -> Self {
        self.bytes(key.map_or_else(Vec::new, |key| key.0.to_vec()))
    }

    pub(super) fn keys(self, keys: &[Key]) -> Self {
        self.bytes(keys.iter().flat_map(|key| key.0).collect::<Vec<u8>>())
    }

    /// By its digest, or by its text where the server does not know it.
    pub(super) fn command(&self, name: Name<'_>) -> Cmd {
        let (command, name) = match name {
            Name::Digest(digest) => ("EVALSHA", digest),
            Name::Text => ("EVAL", self.script.text()),
        };
        let mut command = redis::cmd(command);
        command.arg(name).arg(1);
        for argument in &self.arguments {
            command.arg(argument.as_slice());
        }
        command
    }
}

#[derive(Clone, Copy)]
pub(super) enum Name<'a> {
    Digest(&'a str),
    Text,
}

pub(super) fn millis(length: Duration) -> u64 {
    u64::try_from(length.min(LENGTH_MAX).as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn epoch_text(epoch: Epoch) -> String {
    format!("{:032x}", epoch.0)
}

/// What a script answered: a word and what belongs to it.
#[derive(Debug)]
pub(super) struct Told {
    /// Flights whose lease was found to have run out.
    pub(super) lost: u64,
    fields: std::vec::IntoIter<Value>,
    /// Where the test gave the time: who was nudged.
    #[cfg(test)]
    pub(super) nudges: Vec<Value>,
}

impl Told {
    /// What is no answer of a script is a store that cannot be understood, and never one that has nothing.
    pub(super) fn read(value: Value) -> Result<Self, StoreError> {
        let Value::Array(parts) = value else { return Err(unreadable()) };
        let mut parts = parts.into_iter();
        let (Some(Value::Int(lost)), Some(Value::Array(fields))) = (parts.next(), parts.next()) else {
            return Err(unreadable());
        };
        #[cfg(test)]
        let nudges = match parts.next() {
            Some(Value::Array(nudges)) => nudges,
            _ => Vec::new(),
        };
        Ok(Self {
            lost: u64::try_from(lost).unwrap_or_default(),
            fields: fields.into_iter(),
            #[cfg(test)]
            nudges,
        })
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, StoreError> {
        match self.fields.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes.into()),
            Some(Value::SimpleString(text)) => Ok(text.into_bytes().into()),
            _ => Err(unreadable()),
        }
    }

    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        match self.fields.next() {
            Some(Value::Int(number)) => u64::try_from(number).map_err(|_| unreadable()),
            Some(Value::BulkString(digits)) => std::str::from_utf8(&digits)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(unreadable),
            _ => Err(unreadable()),
        }
    }

    pub(super) fn length(&mut self) -> Result<Duration, StoreError> {
        self.number().map(Duration::from_millis)
    }

    pub(super) fn fence(&mut self) -> Result<Fence, StoreError> {
        self.number().map(Fence)
    }

    pub(super) fn key(&mut self) -> Result<Key, StoreError> {
        <[u8; 32]>::try_from(&*self.bytes()?).map(Key).map_err(|_| unreadable())
    }

    /// The word that says what it came to; the words of a store that has another memory are errors.
    pub(super) fn word(&mut self) -> Result<Bytes, StoreError> {
        let word = self.bytes()?;
        match &*word {
            b"forgot" => Err(StoreError::Forgot),
            b"foreign" => Err(StoreError::Down("it is kept in the format of another version".to_owned())),
            _ => Ok(word),
        }
    }
}

pub(super) fn unreadable() -> StoreError {
    StoreError::Down("it answered what cannot be understood".to_owned())
}
