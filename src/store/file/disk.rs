//! The database file: what is read from it once, at the start, and what is written to it, batch by batch.
//!
//! A batch is one transaction, and is on the disk when [`Disk::write`] returns. After an error nothing is known of the
//! handle, so it is closed and the file opened again before the next batch. Nothing here decides what is written, and
//! nothing is ever emptied: a file that cannot be read is the caller's to set aside.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, StorageError, Table as Rows,
    TableDefinition, TableError, TransactionError, WriteTransaction,
};

use super::{clock::Moment, row};
use crate::store::{
    Fence, Key, Millis, Record,
    machine::cells::{Cells, Place, Run, State},
    memory::Table,
};

/// The format of the file as a whole; a file of a later one is left alone.
const FORMAT: u64 = 1;
/// Pages that the database holds in memory: the records themselves are in memory anyway.
const CACHE_BYTES: usize = 16 << 20;
/// A file is compacted when this much of it is empty, and more than that is in use.
const WASTE_BYTES_MIN: u64 = 16 << 20;
/// So much of a file may be empty at any time, however many requests come: more is given back before the next batch is
/// written, though they wait for it.
const WASTE_BYTES_MAX: u64 = 64 << 20;
/// How much may be in use for it to be compacted while requests come: it takes some 100 ms then.
const IN_USE_BYTES_MAX: u64 = 16 << 20;
/// Only the user that runs oncegate: it holds answers of shoppers, and the secret of the installation.
const MODE: u32 = 0o600;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const RUNS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("runs");
const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const SCOPES: TableDefinition<'_, &[u8], u64> = TableDefinition::new("scopes");
const GENERATIONS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("generations");

/// What is to be written together: for each cell what it holds now, or that it is gone.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) runs: HashMap<Fence, Option<Run>>,
    pub(super) scopes: HashMap<Key, Option<Fence>>,
    pub(super) generations: HashMap<Key, Option<(Fence, Millis)>>,
    pub(super) last_fence: Fence,
    pub(super) now: Millis,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.scopes.is_empty() && self.generations.is_empty()
    }

    /// Puts what is newer over what is here.
    pub(super) fn overwrite(&mut self, newer: Self) {
        self.runs.extend(newer.runs);
        self.scopes.extend(newer.scopes);
        self.generations.extend(newer.generations);
        self.last_fence = newer.last_fence.max(self.last_fence);
        self.now = newer.now.max(self.now);
    }
}

/// What a file told.
#[derive(Default)]
pub(super) struct Told {
    /// The store's time when it was last written.
    pub(super) time: Millis,
    /// The store's time at a moment in the life of the machine.
    pub(super) clock: Option<(Millis, Moment)>,
    pub(super) secret: Option<[u8; 32]>,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// It is there and can be read, and makes no sense.
    #[error("{0}")]
    Damaged(String),
    #[error("another process has it open")]
    InUse,
    #[error("another version of oncegate wrote it, in a format that this one cannot read")]
    Foreign,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a batch is not on the disk. It may be all the same.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct WriteError(#[from] redb::Error);

pub(super) struct Disk {
    path: PathBuf,
    /// `None` after an error.
    database: Option<Database>,
    /// What runs and answers weigh that are in the file: nearly all of what is in use.
    bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    IsAnError,
}

impl Disk {
    /// Opens the file, makes sure that it is sound, and reads all of it into the table.
    pub(super) fn load(path: &Path, table: &mut Table) -> Result<(Self, Told), LoadError> {
        let file = open(path, Missing::Make)?;
        let is_new = file.metadata()?.len() == 0;
        let mut database = database(file)?;
        if !is_new {
            // A file that was not closed has been walked through by now, one that was has not.
            database.check_integrity()?;
        }
        let reading = database.begin_read()?;
        let told = read_meta(&reading)?;
        let bytes = read_runs(&reading, table)?;
        read_generations(&reading, table)?;
        drop(reading);
        Ok((Self { path: path.to_owned(), database: Some(database), bytes }, told))
    }

    /// What has to be known before anything else is written.
    pub(super) fn write_head(
        &mut self,
        secret: &[u8; 32],
        clock: Option<&(Millis, Moment)>,
    ) -> Result<(), WriteError> {
        self.transact(|writing| {
            let mut meta = writing.open_table(META).map_err(redb::Error::from)?;
            meta.insert("format", &FORMAT.to_le_bytes()[..])?;
            meta.insert("secret", &secret[..])?;
            match clock {
                Some((at, moment)) => {
                    let clock = [&at.0.to_le_bytes()[..], &moment.write()].concat();
                    meta.insert("clock", &clock[..])?;
                }
                None => drop(meta.remove("clock")?),
            }
            Ok(0)
        })
    }

    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), WriteError> {
        self.transact(|writing| {
            {
                let mut meta = writing.open_table(META).map_err(redb::Error::from)?;
                meta.insert("time", &batch.now.0.to_le_bytes()[..])?;
                meta.insert("fence", &batch.last_fence.0.to_le_bytes()[..])?;
            }
            write_scopes(writing, batch)?;
            write_generations(writing, batch)?;
            write_runs(writing, batch)
        })
    }

    /// What the file weighs.
    pub(super) fn length(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Gives back what is empty, where it is worth it. Nothing can be written meanwhile.
    pub(super) fn compact(&mut self, when: When) -> Result<(), WriteError> {
        let is_due = match when {
            When::Start => self.length() > 3 * self.bytes + WASTE_BYTES_MIN,
            When::Idle => self.bytes <= IN_USE_BYTES_MAX && self.length() > 3 * self.bytes + WASTE_BYTES_MIN,
            When::Busy => self.length() > 3 * self.bytes + WASTE_BYTES_MAX,
        };
        if let Some(database) = &mut self.database
            && is_due
        {
            database.compact().map_err(redb::Error::from)?;
        }
        Ok(())
    }

    /// One transaction, on the disk when this returns. `act` answers by how much more there is.
    fn transact(
        &mut self,
        act: impl FnOnce(&WriteTransaction) -> Result<i64, redb::Error>,
    ) -> Result<(), WriteError> {
        let done = self.try_transact(act);
        if done.is_err() {
            self.database = None;
        }
        Ok(done?)
    }

    fn try_transact(
        &mut self,
        act: impl FnOnce(&WriteTransaction) -> Result<i64, redb::Error>,
    ) -> Result<(), redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_file(open(&self.path, Missing::IsAnError).map_err(StorageError::Io)?)?,
        };
        let writing = database.begin_write()?;
        let more = act(&writing)?;
        writing.commit()?;
        self.bytes = self.bytes.saturating_add_signed(more);
        self.database = Some(database);
        Ok(())
    }
}

/// When a file is compacted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Nobody waits yet.
    Start,
    /// Nobody has come for a while.
    Idle,
    /// Requests wait to be written.
    Busy,
}

fn open(path: &Path, missing: Missing) -> io::Result<File> {
    let make = missing == Missing::Make;
    let file =
        OpenOptions::new().read(true).write(true).create(make).truncate(false).mode(MODE).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    Ok(file)
}

fn database(file: File) -> Result<Database, LoadError> {
    Ok(Database::builder().set_cache_size(CACHE_BYTES).create_file(file)?)
}

fn read_meta(reading: &ReadTransaction) -> Result<Told, LoadError> {
    let Some(meta) = there(reading.open_table(META))? else { return Ok(Told::default()) };
    let get = |name: &str| Ok::<_, LoadError>(meta.get(name)?.map(|value| value.value().to_vec()));
    let number = |name: &str| match get(name)? {
        Some(row) => row.try_into().map(u64::from_le_bytes).map(Some).map_err(|_| unreadable(name)),
        None => Ok(None),
    };
    if number("format")?.is_some_and(|format| format > FORMAT) {
        return Err(LoadError::Foreign);
    }
    let clock = match get("clock")? {
        None => None,
        Some(row) => {
            let (at, moment) = row.split_first_chunk().ok_or_else(|| unreadable("clock"))?;
            let moment = Moment::read(moment).ok_or_else(|| unreadable("clock"))?;
            Some((Millis(u64::from_le_bytes(*at)), moment))
        }
    };
    let secret = match get("secret")? {
        None => None,
        Some(row) => Some(row.try_into().map_err(|_| unreadable("secret"))?),
    };
    Ok(Told { time: Millis(number("time")?.unwrap_or(0)), clock, secret })
}

/// Answers what all that weighs.
fn read_runs(reading: &ReadTransaction, table: &mut Table) -> Result<u64, LoadError> {
    let (Some(meta), Some(rows)) = (there(reading.open_table(META))?, there(reading.open_table(RUNS))?)
    else {
        return Ok(0);
    };
    if let Some(last) = meta.get("fence")? {
        let last = last.value().try_into().map_err(|_| unreadable("fence"))?;
        table.raise_fence(Fence(u64::from_le_bytes(last)));
    }
    let records = there(reading.open_table(RECORDS))?;
    let (mut runs, mut bytes) = (Vec::new(), 0);
    for row in rows.iter()? {
        let (fence, row) = row?;
        let fence = fence.value();
        let answer = match &records {
            Some(records) => records.get(fence)?,
            None => None,
        };
        let answer: Option<Arc<Record>> = match answer {
            None => None,
            Some(row) => {
                bytes += row.value().len() as u64;
                Some(Arc::new(row::read_record(row.value()).ok_or_else(|| unreadable("records"))?))
            }
        };
        bytes += row.value().len() as u64;
        runs.push((Fence(fence), row::read_run(row.value(), answer).ok_or_else(|| unreadable("runs"))?));
    }
    // The table has them in the order in which they were settled.
    runs.sort_by_key(|(fence, run)| (settled_at(run), *fence));
    for (fence, run) in runs {
        let lanes = if run.state.is_live() { &run.lanes[..] } else { &[] };
        let fingerprint = run.fingerprint.map(Place::Fingerprint);
        let mut places = fingerprint.into_iter().chain(lanes.iter().copied().map(Place::Lane));
        if places.any(|place| table.place(place).is_some()) {
            return Err(LoadError::Damaged("two runs hold one place".to_owned()));
        }
        table.load_run(fence, run);
    }
    read_scopes(reading, table)?;
    Ok(bytes)
}

fn settled_at(run: &Run) -> Millis {
    match &run.state {
        State::Flight { lease_ends: at }
        | State::InDoubt { since: at, .. }
        | State::Done { settled_at: at, .. }
        | State::Resolved { since: at, .. } => *at,
    }
}

fn read_scopes(reading: &ReadTransaction, table: &mut Table) -> Result<(), LoadError> {
    let Some(rows) = there(reading.open_table(SCOPES))? else { return Ok(()) };
    for row in rows.iter()? {
        let (scope, fence) = row?;
        let scope = key(scope.value()).ok_or_else(|| unreadable("scopes"))?;
        let fence = Fence(fence.value());
        if table.run(fence).is_none_or(|run| run.value.scope != Some(scope)) {
            return Err(LoadError::Damaged("a scope leads nowhere".to_owned()));
        }
        table.point(Place::Scope(scope), fence);
    }
    Ok(())
}

fn read_generations(reading: &ReadTransaction, table: &mut Table) -> Result<(), LoadError> {
    let Some(rows) = there(reading.open_table(GENERATIONS))? else { return Ok(()) };
    for row in rows.iter()? {
        let (identity, row) = row?;
        let (Some(identity), Some((began, ends))) =
            (key(identity.value()), row::read_generation(row.value()))
        else {
            return Err(unreadable("generations"));
        };
        table.load_generation(identity, began, ends);
    }
    Ok(())
}

fn write_scopes(writing: &WriteTransaction, batch: &Batch) -> Result<(), redb::Error> {
    if batch.scopes.is_empty() {
        return Ok(());
    }
    let mut rows = writing.open_table(SCOPES)?;
    for (scope, fence) in &batch.scopes {
        match fence {
            Some(fence) => drop(rows.insert(&scope.0[..], fence.0)?),
            None => drop(rows.remove(&scope.0[..])?),
        }
    }
    Ok(())
}

fn write_generations(writing: &WriteTransaction, batch: &Batch) -> Result<(), redb::Error> {
    if batch.generations.is_empty() {
        return Ok(());
    }
    let mut rows = writing.open_table(GENERATIONS)?;
    for (identity, generation) in &batch.generations {
        match generation {
            Some((began, ends)) => {
                let row = row::write_generation(*began, *ends);
                drop(rows.insert(&identity.0[..], &row[..])?);
            }
            None => drop(rows.remove(&identity.0[..])?),
        }
    }
    Ok(())
}

/// Answers by how much more runs and answers weigh than before.
fn write_runs(writing: &WriteTransaction, batch: &Batch) -> Result<i64, redb::Error> {
    let mut rows = writing.open_table(RUNS)?;
    let mut records = writing.open_table(RECORDS)?;
    let mut more = 0;
    for (fence, run) in &batch.runs {
        let row = run.as_ref().map(row::write_run);
        let before = match &row {
            Some(row) => rows.insert(fence.0, &row[..])?,
            None => rows.remove(fence.0)?,
        };
        let lost = before.as_ref().map_or(0, |row| row.value().len());
        more += weight(row.map_or(0, |row| row.len())) - weight(lost);
        // An answer is written once: a delivery changes the life of its record and not the record.
        let before = before.map_or(Some(row::Answer::None), |row| row::Answer::of_row(row.value()));
        let after = run.as_ref().map_or(row::Answer::None, |run| row::Answer::of(&run.state));
        if before != Some(after) {
            more += write_record(&mut records, *fence, run.as_ref())?;
        }
    }
    Ok(more)
}

fn write_record(
    records: &mut Rows<'_, u64, &[u8]>,
    fence: Fence,
    run: Option<&Run>,
) -> Result<i64, redb::Error> {
    let row = match run.map(|run| &run.state) {
        Some(State::Done { record, .. }) => Some(row::write_record(record)),
        _ => None,
    };
    let before = match &row {
        Some(row) => records.insert(fence.0, &row[..])?,
        None => records.remove(fence.0)?,
    };
    Ok(weight(row.map_or(0, |row| row.len())) - weight(before.map_or(0, |row| row.value().len())))
}

fn weight(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn key(row: &[u8]) -> Option<Key> {
    row.try_into().ok().map(Key)
}

fn unreadable(what: &str) -> LoadError {
    LoadError::Damaged(format!("what it says under \"{what}\" cannot be read"))
}

/// A table that was never written is not there.
fn there<T>(table: Result<T, TableError>) -> Result<Option<T>, LoadError> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(TableError::Storage(error)) => Err(error.into()),
        Err(other) => Err(LoadError::Damaged(other.to_string())),
    }
}

impl From<StorageError> for LoadError {
    fn from(error: StorageError) -> Self {
        match error {
            // Nobody but the reader of a file says so: it ends too soon, or has no head that it knows.
            StorageError::Io(error)
                if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
            {
                Self::Damaged(error.to_string())
            }
            StorageError::Io(error) => Self::Io(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<DatabaseError> for LoadError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::InUse,
            DatabaseError::UpgradeRequired(_) => Self::Foreign,
            DatabaseError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<TransactionError> for LoadError {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}
