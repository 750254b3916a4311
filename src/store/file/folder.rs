//! The folder that a file store lives in: whose it is, and what is set aside in it.
//!
//! One process at a time has it, by a lock on a file of its own: the database locks its file too, but closes it after an
//! error. What is set aside keeps its content and gets a name that says when; nothing here deletes anything.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

const DATABASE: &str = "store.redb";
const LOCK: &str = "lock";
/// How many damaged files may bear the same second.
const SAME_SECOND_MAX: usize = 100;

pub(super) struct Folder {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

/// Why a folder cannot be had.
#[derive(Debug)]
pub(super) enum NotHad {
    /// Another process has it.
    Taken,
    Io(io::Error),
}

impl Folder {
    pub(super) fn take(path: &Path) -> Result<Self, NotHad> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(NotHad::Io)?;
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK));
        let lock = lock.map_err(NotHad::Io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(NotHad::Taken),
            Err(TryLockError::Error(error)) => Err(NotHad::Io(error)),
        }
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Gives the database another name, and answers which.
    pub(super) fn set_aside(&self) -> io::Result<PathBuf> {
        let second = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace(['-', ':'], "");
        for number in 1..SAME_SECOND_MAX {
            let number = if number == 1 { String::new() } else { format!("-{number}") };
            let aside = self.path.join(format!("{DATABASE}.damaged-{second}{number}"));
            if !aside.try_exists()? {
                fs::rename(self.database(), &aside)?;
                // The name has to be on the disk before a new file takes the old one.
                File::open(&self.path)?.sync_all()?;
                return Ok(aside);
            }
        }
        Err(io::Error::other("there are too many damaged files of this second"))
    }
}
