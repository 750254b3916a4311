//! The log: one line per guarded exchange, and what operators have to know besides.
//!
//! Lines go through a bounded channel to one thread that writes. It never blocks a request: where the channel is
//! full (a slow pipe, a full disk) the line is dropped and counted. It never sees a body, a cookie or a whole
//! fingerprint: [`Line`] has no place for them.

use std::{
    io::{self, BufWriter, Write},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel},
    thread,
    time::{Duration, Instant, SystemTime},
};

use prometheus_client::metrics::counter::Counter;

mod line;

pub(crate) use line::is_treacherous;
pub use line::{Line, json_string};

/// How many lines may wait for the writer.
const LINES_MAX: usize = 8_192;

/// An error with all its sources, in one line. A source that its error has already told of, as hyper's and the
/// system's are wont to be, is not told again.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    // The bound is against a chain that leads back to itself.
    for _ in 0..8 {
        let Some(error) = source else { break };
        let own = error.to_string();
        if !text.contains(&own) {
            text.push_str(": ");
            text.push_str(&own);
        }
        source = error.source();
    }
    text
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Json,
    Text,
}

/// The most important first, so that `<=` means "at least as important".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// Whether all lines before were written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flushed {
    All,
    /// The sink did not take them in time; it may have taken some.
    NotInTime,
}

/// The sending end. Shared by reference; the thread ends when it is dropped.
#[derive(Debug)]
pub struct Log {
    format: Format,
    level: Level,
    dropped: Counter,
    lines: SyncSender<Message>,
}

enum Message {
    Line(String),
    /// Write out what came before, then answer.
    Flush(SyncSender<()>),
}

impl Level {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

impl Log {
    /// Writes to any sink. `dropped` counts lines that were lost.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn to(
        sink: impl Write + Send + 'static,
        format: Format,
        level: Level,
        dropped: Counter,
    ) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(LINES_MAX);
        let lost = dropped.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&waiting, sink, &lost))?;
        Ok(Self { format, level, dropped, lines })
    }

    /// The line of a guarded exchange.
    pub fn exchange(&self, line: &Line<'_>) {
        self.send(line.format(self.format));
    }

    /// Something an operator should know. `what` is a fixed word; values stand in the fields.
    pub fn event(&self, level: Level, what: &str, fields: &[(&str, &str)]) {
        self.event_of(level, what, fields, &[]);
    }

    /// The same with fields that are numbers.
    pub fn event_of(&self, level: Level, what: &str, fields: &[(&str, &str)], numbers: &[(&str, u64)]) {
        if level <= self.level {
            self.send(line::event(self.format, SystemTime::now(), level, what, fields, numbers));
        }
    }

    /// Waits until everything logged so far is written. Blocks the thread: for the end of the process only.
    pub fn flush(&self, within: Duration) -> Flushed {
        let deadline = Instant::now() + within;
        let (done, answer) = sync_channel(1);
        let mut message = Message::Flush(done);
        loop {
            match self.lines.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => message = back,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return Flushed::NotInTime,
            }
            thread::sleep(Duration::from_millis(1));
        }
        match answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(()) => Flushed::All,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Flushed::NotInTime,
        }
    }

    fn send(&self, line: String) {
        if self.lines.try_send(Message::Line(line)).is_err() {
            self.dropped.inc();
        }
    }
}

/// The thread. It flushes whenever nothing waits, so that a quiet log is never behind.
fn write_all(waiting: &Receiver<Message>, sink: impl Write, lost: &Counter) {
    let mut sink = BufWriter::with_capacity(64 << 10, sink);
    loop {
        let message = match waiting.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Empty) => {
                count_loss(sink.flush(), lost);
                match waiting.recv() {
                    Ok(message) => message,
                    Err(_) => return,
                }
            }
            Err(TryRecvError::Disconnected) => {
                count_loss(sink.flush(), lost);
                return;
            }
        };
        match message {
            Message::Line(line) => count_loss(sink.write_all(line.as_bytes()), lost),
            Message::Flush(done) => {
                count_loss(sink.flush(), lost);
                // Whoever asked may have stopped waiting.
                let _ = done.try_send(());
            }
        }
    }
}

/// A full disk must not end the log: the next line is tried again.
fn count_loss(written: io::Result<()>, lost: &Counter) {
    if written.is_err() {
        lost.inc();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use super::*;

    #[test]
    fn a_source_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot connect: {0}")]
        struct Outer(#[source] io::Error);
        let refused = || io::Error::other("refused");
        assert_eq!(chain(&Outer(refused())), "cannot connect: refused");
        let told = io::Error::other(Outer(refused()));
        assert_eq!(chain(&told), "cannot connect: refused");
        assert_eq!(chain(&"x".parse::<u8>().unwrap_err()), "invalid digit found in string");
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A sink that takes nothing until it is let go.
    struct Stalled(mpsc::Receiver<()>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_order_and_below_the_level_not_at_all() {
        let sink = Shared::default();
        let log = Log::to(sink.clone(), Format::Text, Level::Info, Counter::default()).unwrap();
        log.event(Level::Debug, "unseen", &[]);
        for n in 0..100 {
            log.event(Level::Info, "tick", &[("n", &n.to_string())]);
        }
        assert_eq!(log.flush(Duration::from_secs(10)), Flushed::All);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let numbers: Vec<_> =
            text.lines().filter_map(|line| line.rsplit_once("n=")).map(|(_, n)| n).collect();
        assert_eq!(numbers, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
        assert!(!text.contains("unseen"));
    }

    #[test]
    fn a_sink_that_takes_nothing_holds_nobody_up_and_the_loss_is_counted() {
        let (_hold, held) = mpsc::channel();
        let dropped = Counter::default();
        let log = Log::to(Stalled(held), Format::Json, Level::Info, dropped.clone()).unwrap();
        let long = "x".repeat(250);
        for _ in 0..LINES_MAX + 2_000 {
            log.event(Level::Info, "tick", &[("long", &long)]);
        }
        assert!(dropped.get() > 0, "nothing was dropped");
        assert_eq!(log.flush(Duration::from_millis(5)), Flushed::NotInTime);
    }

    #[test]
    fn a_full_disk_does_not_end_the_log() {
        let dropped = Counter::default();
        let log = Log::to(Full, Format::Json, Level::Info, dropped.clone()).unwrap();
        log.event(Level::Error, "one", &[]);
        assert_eq!(log.flush(Duration::from_secs(10)), Flushed::All);
        log.event(Level::Error, "two", &[]);
        assert_eq!(log.flush(Duration::from_secs(10)), Flushed::All);
        assert!(dropped.get() >= 2);
    }
}
